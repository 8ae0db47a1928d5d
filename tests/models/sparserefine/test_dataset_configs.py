"""HRNet-W48 on the paper's other datasets: what the three configs of each have to agree on."""
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmseg.utils import register_all_modules

from tests.models.without_memory import without_memory

FOLDER = Path(__file__).parents[3] / 'configs' / 'sparserefine'
SETS = {'bdd100k': ('80k', 720, 1280), 'voc12aug': ('40k', 512, 512),
        'deepglobe': ('40k', 2448, 2448), 'isic': ('40k', 1024, 1024)}


@pytest.fixture(params=SETS)
def configs(request):
    """Low resolution, dense, refined."""
    schedule, height, width = SETS[request.param]
    register_all_modules(init_default_scope=False)
    names = (f'fcn-hr48_4xb4-{schedule}_{request.param}-{height // 2}x{width // 2}',
             f'fcn-hr48_4xb4-{schedule}_{request.param}-{height}x{width}',
             f'sparserefine_fcn-hr48_8xb4-46k_{request.param}-{height}x{width}')
    found = [Config.fromfile(FOLDER / f'{name}.py') for name in names]
    init_default_scope(found[0].default_scope)
    return found


def training_sets(cfg):
    dataset = cfg.train_dataloader.dataset
    return dataset.get('datasets', [dataset])


def test_all_three_are_one_network_with_the_classes_of_the_data(configs):
    low, dense, refined = configs
    for part in ('backbone', 'decode_head'):
        assert low.model[part] == dense.model[part] == refined.model.segmentor[part]
    assert refined.model.segmentor_checkpoint == (
        f'work_dirs/{Path(low.filename).stem}/iter_{low.train_cfg.max_iters}.pth')
    classes = {len(DATASETS.get(d.type).METAINFO['classes']) for cfg in configs
               for d in [*training_sets(cfg), cfg.val_dataloader.dataset]}
    assert classes == {low.model.decode_head.num_classes}
    refined.model.segmentor_checkpoint = refined.model.segmentor.pretrained = None
    with without_memory():
        model = MODELS.build(refined.model)
    k, = classes
    head = model.decode_head
    assert sum(p.numel() for p in head.parameters()) == 79_334_560 + 33 * k + 257 * k + 386


def test_low_resolution_sees_half_of_what_the_others_see(configs):
    low, dense, refined = configs
    assert tuple(2 * n for n in low.model.data_preprocessor.size) == (
        dense.model.data_preprocessor.size) == refined.model.data_preprocessor.size
    for a, b, c in zip(*map(training_sets, configs), strict=True):
        assert b.pipeline == c.pipeline and a.get('ann_file') == b.get('ann_file')
        halved = [t for t in a.pipeline if t not in b.pipeline]
        assert halved == [dict(type='Resize', scale_factor=0.5)]
        assert a.pipeline[-2] == halved[0]
    for split in ('val', 'test'):
        pipelines = [cfg[f'{split}_dataloader'].dataset.pipeline for cfg in configs]
        assert pipelines[1] == pipelines[2]
        names = [t.type for t in pipelines[0]]
        assert names[-3:] == ['Resize', 'LoadAnnotations', 'PackSegInputs']
        assert [t for t in pipelines[0] if t not in pipelines[1]] == [
            dict(type='Resize', scale_factor=0.5)]


def test_only_the_refiner_is_scored_as_one(configs):
    for cfg, metrics in zip(configs, (2, 2, 4), strict=True):
        assert len(cfg.val_evaluator) == metrics and cfg.val_evaluator == cfg.test_evaluator
