"""The dataset converters, run as a user runs them, on tiny copies of the official downloads."""

import ast
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

TOOLS = 'tools/dataset_converters'
# The organizers' colors, and the class numbers that mmsparse gives them.
COLORS = [(0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255),
          (0, 0, 0)]
NUMBERS = [0, 1, 2, 3, 4, 5, 255]
PARTS = {'train': 'Training', 'val': 'Validation', 'test': 'Test'}


@pytest.fixture
def convert(root, tmp_path):
    """Run a converter into ``tmp_path / 'out'``."""

    def run(name, folder, *arguments):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', str(root / TOOLS / f'{name}.py'), str(folder), '-o',
             str(tmp_path / 'out'), *arguments], capture_output=True, text=True, cwd=tmp_path)

    return run


def impure(rgb, rng):
    """Channels up to 40 away from 0 and 255, and 127 and 128 among them."""
    noisy = np.where(rgb > 127, rgb.astype(int) - rng.integers(0, 41, rgb.shape),
                     rng.integers(0, 41, rgb.shape))
    noisy[0] = np.where(rgb[0] > 127, 128, 127)
    return noisy.astype(np.uint8)


@pytest.fixture
def land(tmp_path):
    """Ten DeepGlobe pictures of 21x42 with all colors; the label each should get."""
    folder = tmp_path / 'land-train'
    folder.mkdir()
    rng = np.random.default_rng(0)
    labels = {}
    for name in range(100, 110):
        which = rng.integers(0, 7, (21, 42))
        which[1, :7] = range(7)
        rgb = np.array(COLORS, np.uint8)[which]
        Image.fromarray(rng.integers(0, 256, rgb.shape, np.uint8)).save(folder / f'{name}_sat.jpg')
        Image.fromarray(impure(rgb, rng)).save(folder / f'{name}_mask.png')
        labels[str(name)] = np.array(NUMBERS, np.uint8)[which]
    return folder, labels


@pytest.fixture
def skin(tmp_path):
    """Two ISIC pictures per part, of different sizes; the label each should get."""
    rng = np.random.default_rng(0)
    labels = {}
    for split, part in PARTS.items():
        images = tmp_path / f'ISIC2018_Task1-2_{part}_Input'
        masks = tmp_path / f'ISIC2018_Task1_{part}_GroundTruth'
        images.mkdir(), masks.mkdir()
        (images / 'LICENSE.txt').touch()
        for number in range(2):
            name = f'ISIC_{len(labels):07d}'
            label = rng.integers(0, 2, (6 + number, 9), np.uint8)
            Image.fromarray(rng.integers(0, 256, (*label.shape, 3), np.uint8)).save(
                images / f'{name}.jpg')
            Image.fromarray(label * 255).save(masks / f'{name}_segmentation.png')
            labels[split, name] = label
    return tmp_path, labels


def files(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob('*') if path.is_file()}


def read(path):
    picture = Image.open(path)
    assert picture.mode == 'L'  # 8-bit class numbers
    return np.asarray(picture)


@pytest.mark.parametrize('arguments', [[], ['--nproc', '2']], ids=['one', 'two'])
def test_deepglobe(convert, land, tmp_path, arguments):
    folder, labels = land
    result = convert('deepglobe', folder, *arguments)
    assert result.returncode == 0, result.stderr
    assert '8 train, 2 val' in result.stdout
    out = files(tmp_path / 'out')
    assert len(out) == 20
    for split, length in dict(train=8, val=2).items():
        assert len(list((tmp_path / f'out/images/{split}').iterdir())) == length
    for target, path in out.items():
        kind, split, name = target.split('/')
        if kind == 'labels':
            assert np.array_equal(read(path), labels[path.stem])
            assert f'images/{split}/{path.stem}.jpg' in out
        else:  # not encoded again: the file itself
            assert os.path.samefile(path, folder / f'{path.stem}_sat.jpg')


def test_deepglobe_colors_are_those_of_the_dataset(root, monkeypatch):
    from mmsparse.datasets import DeepGlobeLandCoverDataset
    monkeypatch.syspath_prepend(str(root / TOOLS))
    import deepglobe
    for number, color in enumerate(DeepGlobeLandCoverDataset.METAINFO['palette']):
        pixel = Image.new('RGB', (1, 1), tuple(color))
        assert deepglobe.to_ids(pixel) == number


def test_deepglobe_stray_red_is_unknown(root, monkeypatch):
    """One pixel in a thousand at most."""
    monkeypatch.syspath_prepend(str(root / TOOLS))
    import deepglobe
    pixels = np.full((40, 50, 3), (0, 255, 0), np.uint8)
    pixels[3, 4:6] = 255, 0, 0
    ids = deepglobe.to_ids(Image.fromarray(pixels))
    assert (ids[3, 4:6] == 255).all() and (ids == 3).sum() == 40 * 50 - 2
    pixels[3, 6] = 255, 0, 0
    with pytest.raises(ValueError, match='0.1% of the mask is red'):
        deepglobe.to_ids(Image.fromarray(pixels))


def test_deepglobe_split(convert, land, tmp_path):
    """The same every time; another with another seed or share; never in both parts."""
    folder, labels = land

    def split(*arguments):
        assert convert('deepglobe', folder, '--force', *arguments).returncode == 0
        out = files(tmp_path / 'out')
        assert len(out) == 2 * len(labels)  # nothing of an earlier split stays behind
        return {path.stem for name, path in out.items() if name.startswith('labels/val/')}

    first = split()
    assert split() == first
    assert len(split('--val-share', '0.5')) == 5
    assert split('--val-share', '0.5') > first  # it grows
    assert split('--seed', '3') != first


def test_deepglobe_share_is_checked(convert, land):
    for share in ('0', '1', '-1'):
        result = convert('deepglobe', land[0], f'--val-share={share}')
        assert result.returncode == 2 and 'between 0 and 1' in result.stderr


@pytest.mark.parametrize('arguments', [[], ['--nproc', '2']], ids=['one', 'two'])
def test_isic(convert, skin, tmp_path, arguments):
    folder, labels = skin
    result = convert('isic', folder, *arguments)
    assert result.returncode == 0, result.stderr
    assert '2 train, 2 val, 2 test' in result.stdout
    out = files(tmp_path / 'out')
    assert len(out) == 12
    for (split, name), label in labels.items():
        assert np.array_equal(read(out[f'labels/{split}/{name}.png']), label)
        assert os.path.samefile(
            out[f'images/{split}/{name}.jpg'],
            folder / f'ISIC2018_Task1-2_{PARTS[split]}_Input/{name}.jpg')


def test_isic_without_test_part(convert, skin, tmp_path):
    for path in skin[0].glob('ISIC*Test*/*'):
        path.unlink()
    for path in skin[0].glob('ISIC*Test*'):
        path.rmdir()
    result = convert('isic', skin[0])
    assert result.returncode == 0
    assert 'test is left out' in result.stderr
    assert len(files(tmp_path / 'out')) == 8


def test_isic_needs_the_masks_of_each_part(convert, skin):
    (skin[0] / 'ISIC2018_Task1_Training_GroundTruth').rename(skin[0] / 'elsewhere')
    result = convert('isic', skin[0])
    assert result.returncode == 1
    assert result.stderr.count('\n') == 1 and 'ISIC2018_Task1_Training_GroundTruth' in result.stderr


@pytest.mark.parametrize('name', ['deepglobe', 'isic'])
def test_nothing_to_convert_is_one_line(convert, tmp_path, name):
    result = convert(name, tmp_path / 'nowhere')
    assert result.returncode == 1
    assert 'nowhere' in result.stderr.splitlines()[-1]
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'out').exists()


def test_bad_pairs_are_named_and_the_others_converted(convert, land, tmp_path):
    folder, labels = land
    (folder / '100_sat.jpg').write_bytes((folder / '100_sat.jpg').read_bytes()[:-400])
    (folder / '101_mask.png').write_bytes(b'no picture')
    (folder / '102_mask.png').unlink()
    Image.new('RGB', (42, 22)).save(folder / '103_mask.png')
    Image.new('RGB', (42, 21), (200, 20, 20)).save(folder / '104_mask.png')
    (folder / '105_mask.png').write_bytes((folder / '105_mask.png').read_bytes()[:900])
    result = convert('deepglobe', folder, '--nproc', '2')
    assert result.returncode == 1
    assert '6 of 10 pictures were left out' in result.stderr
    lines = dict(line.split(': ', 1) for line in result.stderr.splitlines()[1:])
    assert [name.strip() for name in lines] == [str(number) for number in range(100, 106)]
    reasons = list(lines.values())
    assert reasons[0].startswith('100_sat.jpg cannot be read (image file is truncated')
    assert reasons[1].startswith('101_mask.png cannot be read (')
    assert reasons[2] == 'no 102_mask.png'
    assert reasons[3] == 'image of 42x21, mask of 42x22 pixels'
    assert reasons[4] == '100.0% of the mask is red, which is no class'
    assert reasons[5].startswith('105_mask.png cannot be read (')
    out = files(tmp_path / 'out')
    assert {path.stem for path in out.values()} == {'106', '107', '108', '109'}
    assert len(out) == 8


def test_isic_mask_with_other_values(convert, skin, tmp_path):
    mask = skin[0] / 'ISIC2018_Task1_Test_GroundTruth/ISIC_0000004_segmentation.png'
    Image.fromarray(np.full((6, 9), 254, np.uint8)).save(mask)
    result = convert('isic', skin[0])
    assert result.returncode == 1
    assert 'ISIC_0000004: the mask has values other than 0 and 255, such as 254' in result.stderr
    assert len(files(tmp_path / 'out')) == 10


def test_nothing_is_overwritten_without_force(convert, land, tmp_path):
    folder, labels = land
    assert convert('deepglobe', folder).returncode == 0
    label = next((tmp_path / 'out/labels/train').iterdir())
    before = {name: path.stat().st_mtime_ns for name, path in files(tmp_path / 'out').items()}
    # Also where another share would put the pictures elsewhere.
    for arguments in ([], ['--val-share', '0.5']):
        result = convert('deepglobe', folder, *arguments)
        assert result.returncode == 1
        assert '20 files are there already' in result.stderr and '--force' in result.stderr
        assert before == {name: path.stat().st_mtime_ns
                          for name, path in files(tmp_path / 'out').items()}
    label.write_bytes(b'old')
    original = (folder / f'{label.stem}_sat.jpg').read_bytes()
    assert convert('deepglobe', folder, '--force').returncode == 0
    assert np.array_equal(read(label), labels[label.stem])
    assert (folder / f'{label.stem}_sat.jpg').read_bytes() == original


def test_images_are_copied_where_links_are_impossible(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(root / TOOLS))
    import pairs

    def refuse(*_):
        raise OSError('another file system')

    monkeypatch.setattr(pairs.os, 'link', refuse)
    (tmp_path / 'a').write_bytes(b'picture')
    pairs.link(tmp_path / 'a', tmp_path / 'b')
    assert (tmp_path / 'b').read_bytes() == b'picture'
    assert not os.path.samefile(tmp_path / 'a', tmp_path / 'b')


def test_default_folder_is_that_of_the_configs(root, tmp_path, land):
    command = [sys.executable, str(root / TOOLS / 'deepglobe.py'), str(land[0])]
    data = tmp_path / 'all'
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path,
                   env={**os.environ, 'MMSPARSE_DATA': str(data)})
    assert (data / 'deepglobe/images/train').is_dir()
    unset = {name: value for name, value in os.environ.items() if name != 'MMSPARSE_DATA'}
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path, env=unset)
    assert (tmp_path / 'data/deepglobe/images/train').is_dir()


def test_converted_data_loads(convert, land, skin, tmp_path):
    from mmsparse.datasets import DeepGlobeLandCoverDataset, ISICDataset
    for name, folder, dataset, lengths in (
            ('deepglobe', land[0], DeepGlobeLandCoverDataset, dict(train=8, val=2)),
            ('isic', skin[0], ISICDataset, dict(train=2, val=2, test=2))):
        out = tmp_path / name
        assert convert(name, folder, '--out-dir', str(out)).returncode == 0
        for split, length in lengths.items():
            prefix = dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}')
            assert len(dataset(data_root=str(out), data_prefix=prefix)) == length


@pytest.mark.parametrize('name', ['deepglobe', 'isic'])
def test_help(root, name):
    """For mim: fast, and without the word that it takes for a sign of an old tool."""
    result = subprocess.run([sys.executable, str(root / TOOLS / f'{name}.py'), '-h'],
                            capture_output=True, text=True)
    assert result.returncode == 0
    assert '--gpus' not in result.stdout
    for argument in ('--out-dir', '--nproc', '--force'):
        assert argument in result.stdout


@pytest.mark.parametrize('name', ['deepglobe', 'isic', 'pairs'])
def test_help_imports_nothing_heavy(root, name):
    tree = ast.parse((root / TOOLS / f'{name}.py').read_text())
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name if isinstance(node, ast.Import) else node.module
             for node in top for alias in node.names}
    assert names <= sys.stdlib_module_names | {'collections.abc', 'pairs'}
