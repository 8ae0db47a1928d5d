"""A config of a tiny model with a pipeline."""
from mmengine.config import Config

from tests.models.tiny import refine_cfg

LOAD = dict(type='LoadImageFromFile')
PACK = dict(type='PackSegInputs')


def config(*pipeline, model=None, dataset='mmsparse.CamVidDataset', **settings):
    data = dict(type=dataset, pipeline=list(pipeline) or [LOAD, PACK], **settings)
    return Config(dict(default_scope='mmseg', model=model or refine_cfg(),
                       test_dataloader=dict(dataset=data),
                       visualizer=dict(type='mmsparse.RefinementVisualizer')))
