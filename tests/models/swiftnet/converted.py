"""SwiftNet's converter, run on a made file of the authors' keys."""
import runpy
import sys

import pytest
import torch

# The authors' file and the config that docs/swiftnet.md names for it.
CONFIGS = {
    '2019_rn18_single': 'ss-cvpr_r18',
    '2019_rn18_pyramid2': 'pyr2-cvpr_r18',
    '2019_rn18_pyramid3': 'pyr3-cvpr_r18',
    '2020_rn18_single_head1x1': 'ss-2020_r18',
    '2020_rn18_single_head3x3': 'ss-2020-k3_r18',
    '2020_rn34_single': 'ss-2020_r34',
    '2020_rn50_single': 'ss-2020_r50',
    '2020_rn18_pyramid2': 'pyr2-2020_r18',
    '2020_rn18_pyramid3': 'pyr3-2020_r18'}
STATISTICS = dict(img_mean=(73.15, 82.90, 72.3), img_std=(47.67, 48.49, 47.73))


def config(root, name):
    return root / f'configs/swiftnet/swiftnet-{name}_1xb14-53k_cityscapes-768x768.py'


def with_statistics(state):
    """The authors' state dict of 2020 with what is not drawn by the rule of their numbers."""
    return {key: torch.tensor(STATISTICS[name]).view(1, 3, 1, 1)
            if (name := key.rsplit('.', 1)[-1]) in STATISTICS else value
            for key, value in state.items()}


def convert(root, folder, state, name):
    """Run the converter as its command does; what it writes, or ``SystemExit``."""
    torch.save(state, folder / 'theirs.pt')
    script, out = root / 'tools/model_converters/swiftnet.py', folder / 'ours.pth'
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(script.parent)
        patch.setattr(sys, 'argv', [str(x) for x in (
            script, folder / 'theirs.pt', config(root, name), out, '--force')])
        runpy.run_path(str(script), run_name='__main__')
    return torch.load(out)['state_dict']
