"""SparseRefine's converter, run on made files with the authors' keys."""
import runpy
import sys

import pytest
import torch
from mmengine.config import Config

from tests.models.tiny import PREPROCESSOR, refine_cfg, segmentor_cfg

NARROW = 'sparserefine_refiner_narrow_8_12_16'


def head_cfg(down_padding=0):
    """The head of the narrow keys."""
    return dict(type='mmsparse.SparseRefineHead', extractor=dict(
        type='mmsparse.SparseUNet', channels=(8, 12, 16), down_padding=down_padding))


def converted(root, folder, state, **changes):
    """The entries that the command writes for a made file and a narrow config.

    Raises:
        SystemExit: with its message.
    """
    torch.save(dict(state_dict=state), folder / 'theirs.pth')
    model = refine_cfg(segmentor=segmentor_cfg(19, data_preprocessor=None)) | dict(
        data_preprocessor=PREPROCESSOR | dict(bgr_to_rgb=False), decode_head=head_cfg()) | changes
    Config(dict(default_scope='mmseg', model=model)).dump(folder / 'config.py')
    script = root / 'tools' / 'model_converters' / 'sparserefine.py'
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(script.parent)
        patch.setattr(sys, 'argv', [str(script), *(
            str(folder / name) for name in ('theirs.pth', 'config.py', 'ours.pth'))])
        runpy.run_path(str(script), run_name='__main__')
    return torch.load(folder / 'ours.pth')['state_dict']
