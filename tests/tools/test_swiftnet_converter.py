"""SwiftNet's converter on files with the authors' keys: what it writes, and what it refuses."""
import subprocess
import sys

import pytest
import torch

from tests import authors
from tests.models.swiftnet.converted import CONFIGS, config, convert, with_statistics
from tests.tools.in_process import run_tool


def blank(file):
    """A state dict with the authors' keys, shapes and statistics."""
    return with_statistics({key: torch.zeros(()).expand(shape)
                            for key, shape, _ in authors.entries(f'swiftnet{file}')})


def test_the_command(root, tmp_path):
    torch.save(blank('2019_rn18_single'), tmp_path / 'theirs.pt')
    command = ['tools/model_converters/swiftnet.py', tmp_path / 'theirs.pt',
               config(root, 'ss-cvpr_r18'), tmp_path / 'ours.pth']
    done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and 'ours.pth: 192 entries' in done.stdout, done.stderr
    again = run_tool(root / command[0], *command[1:], cwd=root)
    assert again.returncode == 1 and 'ours.pth exists; --force' in again.stderr
    assert 'Traceback' not in again.stderr


@pytest.mark.parametrize(('file', 'name', 'messages'), [
    ('2020_rn18_single_head1x1', 'ss_r18', [
        "backbone.tap must be 'post' for these weights, the config has 'pre'",
        'data_preprocessor.mean must be [73.15, 82.9, 72.3] for these weights, the config has '
        '[123.675, 116.28, 103.53]',
        'data_preprocessor.std must be [47.67, 48.49, 47.73]']),
    ('2020_rn18_single_head1x1', 'ss-nearest_r18', ["neck.up_mode must be 'bilinear'"]),
    ('2020_rn18_single_head3x3', 'ss-cvpr_r18', ['data_preprocessor.mean must be [73.15']),
    ('2020_rn34_single', 'ss_r34', ["backbone.tap must be 'post'"]),
    ('2020_rn50_single', 'ss_r50', ['backbone.relu_before_sum must be True']),
    ('2020_rn18_pyramid2', 'pyr2_r18', ["backbone.rounding must be 'floor'",
                                        'data_preprocessor.mean must be [73.15']),
    ('2020_rn18_pyramid3', 'pyr3_r18', ["backbone.rounding must be 'floor'"]),
    ('2019_rn18_single', 'ss-2020-k3_r18', ['data_preprocessor.mean must be [123.675']),
    # these do not fit by their entries alone
    ('2019_rn18_pyramid3', 'pyr2-cvpr_r18', ['has, and the config has not, 5 entries, the first is '
                                             'neck.blends.4.conv.weight']),
    ('2019_rn18_single', 'ss-2020_r18', [
        'the classifier: 3x3 and 19 classes in the weights, 1x1 and 19 in the config',
        'the classifier has a bias only in the config']),
    ('2020_rn18_pyramid3', 'ss-2020_r18', ['one of the two is a pyramid']),
    ('2020_rn18_pyramid3', 'pyr2-2020_r18', [
        'norms of 3 level(s) in the weights, of 2 in the config']),
    ('2020_rn18_single_head1x1', 'ss-2020_r34', ['the checkpoint lacks'])])
def test_a_config_of_another_function_is_refused_and_the_right_one_named(
        root, tmp_path, file, name, messages):
    with pytest.raises(SystemExit) as refusal:
        convert(root, tmp_path, blank(file), name)
    messages = [*messages, 'the config of these weights is configs/swiftnet/'
                f'{config(root, CONFIGS[file]).name}']
    assert all(message in str(refusal.value) for message in messages), refusal.value
    assert not (tmp_path / 'ours.pth').exists()


def test_color_statistics_of_nobody_are_refused(root, tmp_path):
    state = blank('2020_rn18_single_head1x1')
    state['backbone.img_mean'] = state['backbone.img_mean'] + 1
    with pytest.raises(SystemExit, match=r'mean must be \[74.15, 83.9, 73.3\] for these weights'):
        convert(root, tmp_path, state, 'ss-2020_r18')
