"""What the command line changes in a config."""
import inspect
import re

import pytest
from mmengine.runner import FlexibleRunner, Runner

from mmsparse.engine.config import SETTINGS, override, read_config
from mmsparse.engine.loading import load_model

NAME = 'configs/sparserefine/sparserefine-s_wnet_1xb4-2k_hrf-1366x2048.py'


@pytest.fixture
def config(root):
    return root / NAME


@pytest.mark.parametrize('option, place', [
    ('alpha', 'model.selector.alpha'),
    ('channels', 'model.decode_head.extractor.channels'),
    ('crop_size', 'train_dataloader.dataset.pipeline.3.crop_size'),
    ('train_pipeline.3.crop_size', 'train_dataloader.dataset.pipeline'),
    ('max_iters', 'train_cfg.max_iters'),
])
def test_a_variable_is_refused_with_the_place_of_its_value(config, option, place):
    """Changed once the file is read, it would change nothing."""
    with pytest.raises(ValueError, match=f"'{option.split('.')[0]}' is a variable") as error:
        read_config(config, {'model.selector.min_points': 1, option: 3})
    assert place in str(error.value).split(' stands at ')[1].split(', ')


def test_places_have_values_of_the_same_type(config):
    cfg = read_config(config)
    cfg.merge_from_dict(dict(flag=True, model=dict(one=1, same=True)))
    with pytest.raises(ValueError, match=r'model\.same') as error:
        override(cfg, {'flag': False})
    assert 'model.one' not in str(error.value)


def test_a_variable_that_stands_nowhere_else_is_refused_too(config):
    cfg = read_config(config)
    cfg.merge_from_dict(dict(alone='nowhere else'))
    with pytest.raises(ValueError, match='change it there$'):
        override(cfg, {'alone': 1})


def test_what_no_setting_begins_with_is_refused(config):
    with pytest.raises(ValueError, match="'modle.selector.alpha': there is no setting 'modle'; "
                                         'there are .*model,'):
        read_config(config, {'modle.selector.alpha': .3})


def test_a_config_that_is_given_is_checked_as_well(config):
    with pytest.raises(ValueError, match=r'model\.selector\.alpha'):
        load_model(read_config(config), None, 'cpu', {'alpha': .3})


def test_settings_are_changed_and_added(config):
    cfg = read_config(config, {'model.selector.alpha': .3, 'load_from': 'some.pth',
                               'param_scheduler.1.end': 7})
    assert (cfg.model.selector.alpha, cfg.load_from, cfg.param_scheduler[1].end) == \
        (.3, 'some.pth', 7)


@pytest.mark.parametrize('runner', [Runner, FlexibleRunner])
def test_whatever_mmengine_reads_is_a_setting(runner):
    source = inspect.getsource(inspect.getmodule(runner))
    read = set(re.findall(r"(?<!\w)(?:self\.)?cfg\.get\(\s*'(\w+)'", source))
    assert {'train_dataloader', 'randomness'} < read
    assert read <= SETTINGS
