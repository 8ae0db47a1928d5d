"""The tools of Specialize and Fuse: what they print is what loops find."""
import json
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import BaseLoop, Runner
from mmseg.utils import register_all_modules
from torch import nn

from mmsparse.models.specialize_fuse import SpecializeFuseHead
from mmsparse.visualization import LevelMaps, pyramid_panels
from mmsparse.visualization.panels import LOOKED, MADE
from mmsparse.visualization.pyramid import DONE
from tests.models.specialize_fuse.builders import (
    balance,
    features,
    label_map,
    loop_targets,
    metas,
    randomize,
)

SIZE = (180, 254)


@pytest.fixture
def tool(root, monkeypatch):
    """Run a tool's main(), or get the module without arguments."""
    monkeypatch.syspath_prepend(str(root / 'tools'))

    def run(name, *arguments):
        sys.modules.pop(name, None)
        module = __import__(name)
        if arguments:
            monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
            module.main()
        return module

    yield run
    for name in ('command_line', 'bench_pyramid', 'analyze_pyramid'):
        sys.modules.pop(name, None)


@pytest.fixture
def labels(tmp_path):
    """Three label maps with pictures, laid out as CamVid."""
    rng = np.random.default_rng(0)
    found = label_map(SIZE, classes=11, block=70, batch=3).numpy().astype(np.uint8)
    for kind in ('images', 'labels'):
        (tmp_path / 'camvid' / kind / 'val').mkdir(parents=True)
    for i, label in enumerate(found):
        image = (label[..., None] * 20 + rng.integers(0, 15, (*SIZE, 3))).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f'camvid/images/val/{i}.jpg'), image)
        cv2.imwrite(str(tmp_path / f'camvid/labels/val/{i}.png'), label)
    return found


def test_bench_forces_the_unity_of_the_labels(tool):
    module = tool('bench_pyramid')
    torch.manual_seed(0)
    head = randomize(SpecializeFuseHead(in_channels=(48, 96, 192, 384), channels=8, num_classes=5,
                                        context=dict(kv_source='coarser'),
                                        fusion=dict(sparse=True))).eval()
    labels = list(label_map((96, 128), classes=5, block=70).split(1))
    with torch.no_grad():
        found = module.measure(head, labels, (96, 128), 1, 'cpu')
    assert found['difference'] < 1e-4 and 'classify' not in vars(head)
    assert found['sparse_gmacs'] < found['dense_gmacs']
    done, share = np.zeros((2, 24, 32), bool), {}
    for stride in (32, 16, 8):
        unity = (torch.cat([loop_targets(m, stride)[1] for m in labels]) == 1).numpy()
        done |= unity.repeat(stride // 4, 1).repeat(stride // 4, 2)
        cells = done[:, ::stride // 8, ::stride // 8]
        share[stride // 2] = 1 - cells.mean()
    assert found['active'] == pytest.approx(share)


def test_bench_prints_and_writes(tool, labels, tmp_path, capsys):
    tool('bench_pyramid', '--classes', 3, '--shape', 64, 96, '--iterations', 1, '--images', 2,
         '--labels', tmp_path / 'camvid/labels/val', '--out', tmp_path / 'b.json')
    rows = json.loads((tmp_path / 'b.json').read_text())['results']
    assert len(rows) == 2 and all(r['difference'] < 1e-3 and r['classes'] == 3 for r in rows)
    assert '64x96' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='holds no .png'):
        tool('bench_pyramid', '--labels', tmp_path)


@pytest.mark.parametrize('single', [False, True])
def test_analysis_of_every_level(tool, root, labels, tmp_path, monkeypatch, single):
    monkeypatch.setenv('MMSPARSE_DATA', str(tmp_path))
    config = root / 'projects/camvid/configs/specialize-fuse-f_mnv2_1xb6-600_camvid-360x480.py'
    if single:
        config = tmp_path / 'single.py'
        config.write_text(
            f"_base_ = '{root}/projects/camvid/configs/specialize-fuse_mnv2_1xb6-600_camvid-360x480"
            ".py'\nmodel = dict(decode_head=dict(unity_head=None, "
            "targets=dict(relabel='naive')))\n")
    register_all_modules()
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    randomize(model.decode_head)
    loader = Runner.build_dataloader(dict(cfg.test_dataloader, num_workers=0,
                                          persistent_workers=False))
    batches = [model.data_preprocessor(data, False) for data in loader]
    with torch.no_grad():
        balance(model.decode_head, model.extract_feat(batches[0]['inputs']))
        outputs = [model.decode_head(model.extract_feat(b['inputs'])) for b in batches]
        results = [model.test_step(data)[0] for data in loader]
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
    tool('analyze_pyramid', config, tmp_path / 'w.pth', '--out', tmp_path / 'out', '--pictures', 2)
    found = json.loads((tmp_path / 'out/levels.json').read_text())

    def iou(maps):
        both = np.array([[((m == c) & (t == c)).sum() for c in range(11)]
                         for m, t in zip(maps, labels, strict=True)]).sum(0)
        known = [t != 255 for t in labels]
        either = np.array([[(((m == c) | (t == c)) & k).sum() for c in range(11)]
                           for m, t, k in zip(maps, labels, known, strict=True)]).sum(0)
        return 100 * both / either

    fused = iou([r.pred_sem_seg.data[0].numpy() for r in results])
    np.testing.assert_allclose(found['iou_fused'], fused)
    assert list(found['miou']) == ['fused', 's32', 's16', 's8', 's4'], 'columns of the table'
    # pictures are halved, then padded on the right and below: pixel y reads row y // 2 // stride
    for i, stride in enumerate((32, 16, 8, 4)):
        at = np.arange(SIZE[0])[:, None] // 2 // stride, np.arange(SIZE[1]) // 2 // stride
        maps = [sem[i][0].argmax(0).numpy()[at] for sem, _ in outputs]
        np.testing.assert_allclose(found['iou_minus_fused'][f's{stride}'], iou(maps) - fused)
    assert (tmp_path / 'out/levels.png').stat().st_size > 1000
    pictures = list((tmp_path / 'out').glob('*_levels.jpg'))
    assert len(pictures) == (0 if single else 2) and bool(found['unity']) != single
    if single:
        return
    hits = np.zeros((3, 3))
    for label, (_, unity) in zip(labels, outputs, strict=True):
        half = torch.full((1, *[n * 32 for n in unity[0].shape[2:]]), 255)
        half[:, :SIZE[0] // 2, :SIZE[1] // 2] = torch.from_numpy(label[1::2, 1::2].astype(int))
        for i, logits in enumerate(unity):
            target = loop_targets(half, 32 >> i)[1]
            positive = logits[:, 0] >= 0
            hits[i] += [int((positive & (target == 1)).sum()), int((target == 1).sum()),
                        int((positive & (target != 255)).sum())]
    np.testing.assert_allclose(found['unity']['recall'], 100 * hits[:, 0] / hits[:, 1])
    np.testing.assert_allclose(found['unity']['precision'], 100 * hits[:, 0] / hits[:, 2])
    assert 100 == found['unity']['active']['32'] > found['unity']['active']['4'] > 0


def test_analysis_refuses_another_head(tool, root, tmp_path):
    (tmp_path / 'w.pth').write_bytes(b'')
    config = root / 'configs/swiftnet/swiftnet-ss_r18_1xb8-1k_camvid-360x480.py'
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'w.pth')
    with pytest.raises(SystemExit, match='has a SwiftNetHead, no SpecializeFuseHead'):
        tool('analyze_pyramid', config, tmp_path / 'w.pth', '--out', tmp_path)


def test_panels_show_what_is_taken():
    palette = [[10, 20, 30], [40, 50, 60]]
    classes = np.zeros((40, 60), int)
    classes[:, 30:] = 1
    unity, nothing = classes == 0, np.zeros((40, 60), bool)
    levels = [LevelMaps(8, classes, unity, nothing), LevelMaps(4, classes, None, unity)]
    assert levels[0].taken.mean() == levels[1].taken.mean() == 0.5
    image = np.full((40, 60, 3), 77, np.uint8)
    sheet = pyramid_panels(image, levels, classes, classes, classes=('road', 'pole'),
                           palette=palette, width=60)
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 3 * (60 + 12)
    tile = sheet[34:74, 6:66], sheet[34:74, 78:138], sheet[34:74, 150:210]
    for panel, left, right in zip(tile, ((30, 20, 10), LOOKED, (30, 20, 10)),
                                  ((60, 50, 40), MADE, DONE), strict=True):
        assert tuple(panel[20, 5]) == left and tuple(panel[20, 55]) == right


@torch.no_grad()
def test_sparse_inference_of_a_batch_reports_the_mean():
    torch.manual_seed(0)
    head = randomize(SpecializeFuseHead(in_channels=(4, 6), in_index=(0, 1), channels=16,
                                        num_classes=5, fusion=dict(sparse=True))).eval()
    balance(head, features())
    shares = []
    for b in range(2):
        head.predict([m[b:b + 1] for m in features()], metas((96, 128)), {})
        shares.append(head.active_share[4])
    head.predict(features(), metas((96, 128)), {})
    assert head.active_share[4] == pytest.approx(sum(shares) / 2) and shares[0] != shares[1]


def test_the_hook_logs_means_of_an_epoch():
    class Head(SpecializeFuseHead):
        def __init__(self):
            nn.Module.__init__(self)
            self.active_share = {}

    scalars, lines, head, other = [], [], Head(), nn.Identity()
    other.active_share = {16: 0.5, 4: 0.5}  # of another head
    runner = SimpleNamespace(
        model=nn.Sequential(head, other), iter=7, _train_loop=Mock(spec=BaseLoop),
        visualizer=SimpleNamespace(add_scalars=lambda s, step: scalars.append((s, step))),
        logger=SimpleNamespace(info=lines.append))
    hook = HOOKS.build(dict(type='mmsparse.ActiveCellsHook'))
    for epoch in range(2):
        hook.before_val_epoch(runner)
        for share in (0.25, 0.5 + epoch / 4):
            head.active_share = {16: 1.0, 4: share}
            hook.after_val_iter(runner, 0)
        hook.after_val_epoch(runner)
    assert scalars == [({'active/s16': 100, 'active/s4': 37.5}, 7),
                       ({'active/s16': 100, 'active/s4': 50}, 7)]
    assert lines[1] == 'val, cells computed, %: active/s16: 100.00  active/s4: 50.00'
    head.active_share = {}
    hook.before_test_epoch(runner)
    hook.after_test_iter(runner, 0)
    hook.after_test_epoch(runner)
    assert len(scalars) == 2
