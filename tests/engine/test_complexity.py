"""The counts of the SwiftNet paper, exactly; on meta tensors."""
import json

import pytest

from mmsparse.engine.complexity import complexity
from tests.tools.in_process import run_tool

CITYSCAPES, CAMVID = '1xb14-53k_cityscapes-768x768', '1xb12-24k_camvid-720x960'
# config: random parameters, convolution multiply-accumulates at the paper's size
TABLES = {
    f'swiftnet-ss-group8-k3_r18_{CITYSCAPES}': (252_924, 83_920_013_312),
    f'swiftnet-ss-dwsep-k3_r18_{CITYSCAPES}': (250_236, 83_765_872_640),
    f'swiftnet-ss-invres-k3_r18_{CITYSCAPES}': (404_988, 92_419_770_368),
    f'swiftnet-ss-conv1-k3_r18_{CITYSCAPES}': (246_780, 83_567_691_776),
    f'swiftnet-ss-conv3-k3_r18_{CITYSCAPES}': (639_996, 106_116_270_080),
    f'swiftnet-ss-group8-k3_mnv2_{CAMVID}': (180_268, 5_721_098_496),
    f'swiftnet-ss-dwsep-k3_mnv2_{CAMVID}': (177_580, 5_670_295_296),
    f'swiftnet-ss-invres-k3_mnv2_{CAMVID}': (332_332, 8_522_532_096),
    f'swiftnet-ss-conv1-k3_mnv2_{CAMVID}': (174_124, 5_604_976_896),
    f'swiftnet-ss-conv3-k3_mnv2_{CAMVID}': (567_340, 13_036_759_296),
}
# config: all parameters, random ones, multiply-accumulates at 1024x2048
TOTALS = {
    f'swiftnet-ss_r18_{CITYSCAPES}': (11_797_071, 620_559, 103_566_133_248),
    f'swiftnet-ss-cvpr_r18_{CITYSCAPES}': (11_816_508, 639_996, 106_116_270_080),
    f'swiftnet-ss_mnv2_{CITYSCAPES}': (2_368_831, 2_368_831 - 1_811_712, 38_153_603_072),
    f'swiftnet-pyr2_r18_{CITYSCAPES}': (11_900_755, 716_435, 123_253_817_344),
    f'swiftnet-pyr3_r18_{CITYSCAPES}': (12_056_275, 864_147, 128_192_610_304),
}


def config(root, name):
    return str(root / 'configs' / 'swiftnet' / f'{name}.py')


@pytest.mark.parametrize('name', TABLES)
def test_the_ten_rows_of_tables_1_and_2(root, name):
    shape = (720, 960) if 'camvid' in name else (1024, 2048)
    found = complexity(config(root, name), shape)
    assert (found['random'], found['MACs']) == TABLES[name]
    assert found['pretrained'] == (1_811_712 if 'mnv2' in name else 11_176_512)


@pytest.mark.parametrize('name', TOTALS)
def test_totals(root, name):
    found = complexity(config(root, name), (1024, 2048))
    assert (found['parameters'], found['random'], found['MACs']) == TOTALS[name]
    assert found['FLOPs (2 x MACs)'] == 2 * found['MACs']


@pytest.mark.parametrize(('name', 'parameters', 'macs'), [
    (f'swiftnet-ss_r34_{CITYSCAPES}', 21_905_231, 180.88),
    (f'swiftnet-ss_r50_{CITYSCAPES}', 24_502_991, 204.63),
    (f'swiftnet-pyr2-cvpr_r18_{CITYSCAPES}', 12_897_344, 145.94),
    # a level, 1/16 of the first's 75.8 + 18.12, and one blend of 16 x 32 pixels more
    (f'swiftnet-pyr3-cvpr_r18_{CITYSCAPES}', 13_045_056, 151.88),
    (f'swiftnet-ss-2020_r50_{CITYSCAPES}', 24_502_991, 204.63)])
def test_totals_known_to_hundredths(root, name, parameters, macs):
    found = complexity(config(root, name), (1024, 2048))
    assert found['parameters'] == parameters and round(found['MACs'] / 1e9, 2) == macs


def test_half_resolution(root):
    found = complexity(config(root, 'swiftnet-ss_r18_1xb14-53k_cityscapes-448x448'), (512, 1024))
    assert found['MACs'] == 25_892_210_688


@pytest.mark.parametrize(('part', 'pretrained'), [
    ('stem', 9_408 + 128), ('rb1', 9_536 + 147_968), ('rb3', 11_176_512 - 8_393_728)])
def test_partial_pretraining_is_counted(root, part, pretrained):
    found = complexity(
        config(root, f'swiftnet-ss-pretrained-{part}_r18_{CITYSCAPES}'), (64, 64))
    assert found['pretrained'] == pretrained


def test_the_tool_prints_and_writes(root, tmp_path):
    name = f'swiftnet-ss_r18_{CITYSCAPES}'
    result = run_tool(root / 'tools/complexity.py', config(root, name), '--out', 'c.json',
                      cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert '103,566,133,248' in result.stdout and '620,559' in result.stdout
    assert json.loads((tmp_path / 'c.json').read_text())['parameters'] == 11_797_071


def test_what_needs_values_is_refused(root):
    file = root / 'configs/sparserefine/sparserefine_fcn-hr48_8xb4-46k_cityscapes-1024x2048.py'
    with pytest.raises(NotImplementedError, match='SparseRefineSegmentor .* benchmark'):
        complexity(str(file), (64, 64))
