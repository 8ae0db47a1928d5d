"""Rename the weights of CRM's authors for a CRM config of this package.

For people who hold the checkpoint (its licence does not allow commercial use); none is distributed
here. The encoder's last stage is left out: the authors compute it and do not use it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conversion import run

if TYPE_CHECKING:
    from torch import Tensor

# Modules of the fusion and of the implicit function, which are counted there with the ReLUs.
MODULES = {'aspp_.last_conv.0': 'neck.blend.0', 'aspp_.last_conv.1': 'neck.blend.1'}
for i in range(5):
    MODULES[f'imnet.layers.{2 * i}'] = f'head.layers.{i}'
for i, name in enumerate(('128', '256', '1024')):  # a branch each: convolution, norm, second norm
    MODULES |= {f'aspp_.aspp1_{name}.atrous_conv': f'neck.branches.{i}.0',
                f'aspp_.aspp1_{name}.bn': f'neck.branches.{i}.1',
                f'aspp_.bn1_{name}': f'neck.branches.{i}.3'}


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names.

    Raises:
        ValueError: an entry is not one of CRM's.
    """
    renamed = {}
    for key, value in state.items():
        module, _, entry = key.rpartition('.')
        if key.startswith('feats.'):
            if not key.startswith('feats.layer4.'):
                renamed[f'backbone.{key.removeprefix("feats.")}'] = value
        elif module in MODULES:
            renamed[f'{MODULES[module]}.{entry}'] = value
        else:
            raise ValueError(f"{key} is not one of CRM's entries: feats.* and those of "
                             f'{", ".join(MODULES)}')
    return renamed


if __name__ == '__main__':
    run(__doc__, 'crm_r50_2xb6-45k_saliency-224x224.py', convert)
