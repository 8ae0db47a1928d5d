"""W-Net's converter on made files with the names of the released one."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests.tools.in_process import run_tool

CONFIG = 'configs/wnet/wnet_hrf-1024x1104.py'


def norm(name, channels):
    return {f'{name}.{entry}': torch.rand(channels) + 0.5 for entry in (
        'weight', 'bias', 'running_mean', 'running_var')} | {
            f'{name}.num_batches_tracked': torch.tensor(7)}


def conv(name, fan_in, out, side=3, bias=True):
    weight = {f'{name}.weight': torch.randn(out, fan_in, side, side)}
    return weight | ({f'{name}.bias': torch.randn(out)} if bias else {})


def block(name, fan_in, out):
    return (conv(f'{name}.shortcut.0', fan_in, out, 1, bias=False)
            | norm(f'{name}.shortcut.1', out) | conv(f'{name}.block.0', fan_in, out)
            | norm(f'{name}.block.2', out) | conv(f'{name}.block.3', out, out)
            | norm(f'{name}.block.5', out))


def released(classes=4):
    state = {}
    for net, channels in (('unet1', 3), ('unet2', 3 + classes)):
        state |= block(f'{net}.first', channels, 8)
        for i, width in enumerate((16, 32, 64)):
            state |= block(f'{net}.down_path.{i}', width // 2, width)
            up, out = f'{net}.up_path.{2 - i}', width // 2
            state |= {f'{up}.up_layer.block.0.weight': torch.randn(width, out, 2, 2),
                      f'{up}.up_layer.block.0.bias': torch.randn(out)}
            state |= block(f'{up}.conv_layer', width, out)
            state |= conv(f'{up}.conv_bridge_layer.block.0', out, out)
            state |= norm(f'{up}.conv_bridge_layer.block.2', out)
        state |= conv(f'{net}.final', 8, classes, 1)
    return state


def convert(root, folder, state):
    torch.save(dict(model_state_dict=state, stats=None), folder / 'theirs.pth')
    return run_tool(root / 'tools/model_converters/wnet.py', folder / 'theirs.pth', CONFIG,
                    folder / 'ours.pth', cwd=root)


def test_every_entry_and_three_of_four_classes(root, tmp_path):
    theirs = released()
    assert len(theirs) == 338  # of the released file
    done = convert(root, tmp_path, theirs)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / 'ours.pth')['state_dict']
    cfg = Config.fromfile(root / CONFIG)
    init_default_scope('mmseg')
    MODELS.build(cfg.model).load_state_dict(found, strict=True)
    for part in ('weight', 'bias'):
        kept = theirs[f'unet2.final.{part}'][[0, 2, 3]]
        assert torch.equal(found[f'decode_head.conv_seg.{part}'], kept)
        assert torch.equal(found[f'backbone.final1.{part}'], theirs[f'unet1.final.{part}'])
        name = f'up_path.1.up_layer.block.0.{part}'
        assert torch.equal(found[f'backbone.unet2.up_path.1.up_layer.{part}'],
                           theirs[f'unet2.{name}'])


@pytest.mark.parametrize(('change', 'message'), [
    (lambda s: s.update(extra=torch.zeros(1)), "extra is not one of W-Net's entries"),
    (lambda s: s.pop('unet1.final.bias'), 'lacks 1 entries, the first is backbone.final1.bias'),
    (lambda s: s.update({'unet2.final.weight': torch.zeros(3, 8, 1, 1)}),
     'unet2.final has 3 classes, must be 4')])
def test_misfits(root, tmp_path, change, message):
    theirs = released()
    change(theirs)
    done = convert(root, tmp_path, theirs)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert not (tmp_path / 'ours.pth').exists()
