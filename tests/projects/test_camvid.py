"""The scripts of the CamVid studies on made pictures."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.models.backbones import MobileNetV2
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules
from torch import nn

from mmsparse.engine.config import read_config
from tests.tools.in_process import run_tool

CONFIGS = Path(__file__).parents[2] / 'projects/camvid/configs'
LOW, DENSE, REFINED = (f'configs/sparserefine/{name}.py' for name in (
    'fcn_hr16s_1xb2-400_camvid-360x480', 'fcn_hr16s_1xb2-400_camvid-720x960',
    'sparserefine_fcn-hr16s_1xb2-400_camvid-720x960'))


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two validation pictures of 96x128 with labels of all classes, and `train` with six.

    Of gray blocks, which JPEG keeps and every way of halving a picture gives the same.
    """
    rng = np.random.default_rng(0)
    for split, count in (('val', 2), ('train', 6)):
        for kind in ('images', 'labels'):
            (tmp_path / 'camvid' / kind / split).mkdir(parents=True)
        for i in range(count):
            image, label = (rng.integers(0, n, (12, 16), np.uint8).repeat(8, 0).repeat(8, 1)
                            for n in (256, 11))
            cv2.imwrite(str(tmp_path / f'camvid/images/{split}/{i}.jpg'), image)
            cv2.imwrite(str(tmp_path / f'camvid/labels/{split}/{i}.png'), label)
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    return tmp_path


def test_compare(root, pictures):
    """Four rows on the same pictures; a refiner that finds nothing uncertain is its segmentor."""
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    models = {}
    for name, config in (('low', LOW), ('dense', DENSE), ('refined', REFINED)):
        cfg = Config.fromfile(root / config).model
        if name == 'refined':
            cfg.update(segmentor_checkpoint=None)
        models[name] = MODELS.build(cfg)
        if name == 'refined':
            models[name].segmentor.load_state_dict(models['low'].state_dict())
        torch.save(dict(state_dict=models[name].state_dict()), pictures / f'{name}.pth')
    never = pictures / 'never.py'
    never.write_text(f"_base_ = '{root / REFINED}'\nmodel = dict(selector=dict(alpha=9.0))\n")
    for refined in (root / REFINED, never):
        done = run_tool(
            root / 'projects/camvid/compare.py', '--low', LOW, pictures / 'low.pth', '--dense',
            DENSE, pictures / 'dense.pth', '--refined', refined, pictures / 'refined.pth', '--out',
            pictures / 'scores.json', cwd=root)
        assert done.returncode == 0, done.stderr
        scores = json.loads((pictures / 'scores.json').read_text())
        assert list(scores) == ['low', 'dense', 'refined nearest', 'refined bilinear']
        assert all(name in done.stdout for name in scores)
        if refined == never:
            assert scores['refined bilinear']['density'] == 0
            assert scores['refined bilinear']['iou'] == scores['low']['iou']
        else:
            assert scores['refined nearest']['density'] > 0.9
            assert scores['refined nearest']['iou'] != scores['low']['iou']


@pytest.mark.parametrize('name', sorted(p.stem for p in CONFIGS.glob('*.py')))
@torch.no_grad()
def test_every_config_predicts(name):
    cfg = read_config(str(CONFIGS / f'{name}.py'))
    register_all_modules(init_default_scope=False)
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    sample, = model.test_step(dict(
        inputs=[torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)],
        data_samples=[SegDataSample(metainfo=dict(
            ori_shape=(96, 128), img_shape=(96, 128), scale_factor=(1.0, 1.0)))]))
    assert sample.pred_sem_seg.shape == (96, 128)
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0  # scored at its end


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def test_folded_weights_get_norms_that_can_be_trained_on(root, pictures):
    """The same function; each norm's statistics are those that its input has."""
    net = MobileNetV2(out_indices=(1, 2, 4, 6))
    net.eval()  # returns nothing
    for norm in norms(net):  # as folding leaves them: what a convolution adds is theirs to keep
        nn.init.normal_(norm.bias, std=0.3)
        norm.running_var.fill_(1 - norm.eps)
    state = {f'features.{i}': tensor for i, tensor in enumerate(
        v for k, v in net.state_dict().items() if not k.endswith('num_batches_tracked'))}
    torch.save(state | {'features.18.0.weight': torch.zeros(1)}, pictures / 'theirs.pth')
    done = run_tool(
        root / 'projects/camvid/mobilenetv2.py', pictures / 'theirs.pth', '--out',
        pictures / 'out' / 'ours.pth', '--recalibrate', pictures / 'camvid/images/train', cwd=root)
    assert done.returncode == 0, done.stderr
    found = MobileNetV2(out_indices=(1, 2, 4, 6))
    found.eval()
    found.load_state_dict(torch.load(pictures / 'out' / 'ours.pth')['state_dict'])
    x = torch.randn(1, 3, 96, 128)
    for a, b in zip(net(x), found(x), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    image = cv2.imread(str(pictures / 'camvid/images/train/0.jpg'))
    x = torch.from_numpy(cv2.resize(image, (480, 360))).permute(2, 0, 1)[None]
    seen = {}
    for norm in norms(found):
        norm.register_forward_pre_hook(lambda m, inputs: seen.update({m: inputs[0]}))
    found((x - 127.5) / 127.5)
    assert len(seen) == len(norms(found)) > 50
    for norm, inputs in seen.items():
        variance, mean = torch.var_mean(inputs, (0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean, mean, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(norm.running_var, variance, atol=1e-5, rtol=1e-3)


def test_weights_of_another_network_are_refused(root, tmp_path):
    torch.save({'features.0.0.weight': torch.zeros(1)}, tmp_path / 'theirs.pth')
    done = run_tool(root / 'projects/camvid/mobilenetv2.py', tmp_path / 'theirs.pth', '--out',
                    tmp_path / 'ours.pth', cwd=root)
    assert done.returncode == 1 and not (tmp_path / 'ours.pth').exists()
    # 51 convolutions without a bias, each with a norm of four
    assert f'features.17: 1 tensors, MobileNetV2 has {51 * 5}' in done.stderr
