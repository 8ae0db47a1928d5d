"""Mask files from anywhere: one reader, which takes no class map for a mask; and bad files."""
import io
import json
import re

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from mmsparse.datasets import LoadLowResLogits, LoadMasks
from mmsparse.engine.config import read_config
from mmsparse.masks import check_mask, decode_array, read_mask, write_mask
from mmsparse.rle import decode_mask, decode_patch
from mmsparse.sparse import EntropySelector
from tests.examples import examples

# Few cases in the suite, 10,000 in the nightly run.
NIGHTLY = [200, pytest.param(10_000, marks=pytest.mark.slow)]
settings.register_profile('files', deadline=None, suppress_health_check=list(HealthCheck))
FILES = settings.get_profile('files')

SOFT = np.linspace(0, 1, 60 * 80, dtype=np.float32).reshape(60, 80)

seeds = st.integers(0, 2**32 - 1)


def blob(seed, height=40, width=60):
    """A hard mask of a random shape, uint8 0 and 255."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    return np.where(cv2.GaussianBlur(noise, (0, 0), 4) > 0, 255, 0).astype(np.uint8)


def load(path, shape):
    """What CRM's training and testing read, uint8."""
    return LoadMasks()(dict(img=np.zeros((*shape, 3), np.uint8), img_path='i',
                            gt_mask_path=str(path)))['gt_mask']


# ---- In and out of files -------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['a.png', 'a.npy', 'b/a.json'])
@pytest.mark.parametrize('soft', [False, True])
def test_round_trip(tmp_path, name, soft):
    path = tmp_path / name
    if soft and path.suffix == '.json':
        with pytest.raises(ValueError, match='cannot be soft'):
            write_mask(path, SOFT, soft=True)
        assert not path.exists()
        return
    write_mask(path, SOFT, soft=soft)
    found = read_mask(path)
    assert found.dtype == np.float32 and found.shape == (60, 80)
    if soft:
        np.testing.assert_allclose(found, SOFT, atol=0.5 / 255 + 1e-6)
    else:
        np.testing.assert_array_equal(found, SOFT > 0.5)


def test_run_lengths_of_others(tmp_path):
    """Compressed and plain counts, as in COCO's files."""
    hard = (SOFT > 0.3).astype(np.uint8)
    flat = hard.flatten(order='F')
    runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])).tolist()
    runs = [0, *runs] if flat[0] else runs
    (tmp_path / 'plain.json').write_text(json.dumps(dict(size=[60, 80], counts=runs)))
    code = coco.encode(np.asfortranarray(hard))
    (tmp_path / 'packed.json').write_text(json.dumps(
        dict(size=[60, 80], counts=code['counts'].decode())))
    for name in ('plain', 'packed'):
        np.testing.assert_array_equal(read_mask(tmp_path / f'{name}.json'), hard)


@pytest.mark.parametrize(('mask', 'message'), [
    (np.zeros((4, 5, 3), np.uint8), r'one channel, \[H, W\], got \[4, 5, 3\]'),
    (np.ones((4, 5), np.uint8), r'goes from 1 to 1 \(1\), as numbers .*: an 8-bit mask goes '),
    (np.ones((4, 5), np.int64), 'bool, uint8 or float, got int64'),
    (np.full((4, 5), 2.0), 'from 0 to 1, got 2 to 2'),
    (np.full((4, 5), np.nan), 'from 0 to 1'),
])
def test_no_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        check_mask(mask)


def test_bad_files(tmp_path):
    (tmp_path / 'a.json').write_text('[1]')
    with pytest.raises(ValueError, match='a.json holds no run-length code'):
        read_mask(tmp_path / 'a.json')
    (tmp_path / 'a.png').write_bytes(b'x')
    with pytest.raises(ValueError, match='no image'):
        read_mask(tmp_path / 'a.png')
    with pytest.raises(OSError, match='none.png'):
        read_mask(tmp_path / 'none.png')
    with pytest.raises(ValueError, match='must end in one of'):
        write_mask(tmp_path / 'a.tif', SOFT)


# ---- One reader, and what is no mask -------------------------------------------------------------


def softened(mask, how):
    """Soft masks as they come about; each has values on both sides of one half."""
    height, width = mask.shape
    if how == 'jpeg':
        return cv2.imdecode(cv2.imencode('.jpg', mask)[1], cv2.IMREAD_UNCHANGED)
    if how == 'blur':
        return cv2.GaussianBlur(mask, (3, 3), 0)
    flag = dict(linear=cv2.INTER_LINEAR, cubic=cv2.INTER_CUBIC, area=cv2.INTER_AREA)[how]
    size = (width // 2, height // 2) if how == 'area' else (2 * width, 2 * height)
    return cv2.resize(mask, size, interpolation=flag)


@given(seeds, st.sampled_from(['hard', 'jpeg', 'blur', 'linear', 'cubic', 'area']))
@examples(100, parent=FILES)
def test_masks_are_read_alike_everywhere(tmp_path_factory, seed, how):
    mask = blob(seed) if how == 'hard' else softened(blob(seed), how)
    path = tmp_path_factory.mktemp('masks') / 'm'
    cv2.imwrite(f'{path}.png', mask)
    cv2.imwrite(f'{path}_color.png', np.stack([mask] * 3, -1))
    cv2.imwrite(f'{path}_alpha.png', np.stack([*[mask] * 3, np.full_like(mask, 255)], -1))
    Image.fromarray(mask).quantize(256).save(f'{path}_palette.png')  # a palette of grays
    np.save(f'{path}.npy', mask)
    for name in ('.png', '_color.png', '_alpha.png', '.npy'):
        assert np.array_equal(read_mask(f'{path}{name}'), mask.astype(np.float32) / 255)
        assert np.array_equal(load(f'{path}{name}', mask.shape), mask)
    if how == 'hard':
        assert np.array_equal(load(f'{path}_palette.png', mask.shape), mask)


@given(seeds, st.sets(st.integers(1, 127), min_size=1, max_size=5), st.booleans(), st.booleans())
@examples(100, parent=FILES)
@example(0, {1}, False, False)
@example(0, {2}, True, False)
@example(0, {1}, True, True)
def test_class_maps_are_no_masks(tmp_path_factory, seed, classes, background, ignored):
    """With and without an ignored band; as pictures of one or three channels, and arrays."""
    values = [*classes, *([0] if background else []), *([255] if ignored else [])]
    labels = np.random.default_rng(seed).choice(np.uint8(values), (20, 30))
    labels[0, 0] = min(classes)
    path = tmp_path_factory.mktemp('labels') / 'm'
    cv2.imwrite(f'{path}.png', labels)
    cv2.imwrite(f'{path}_color.png', np.stack([labels] * 3, -1))
    np.save(f'{path}.npy', labels)
    with pytest.raises(ValueError, match=r'the mask goes from .* numbers of classes'):
        check_mask(labels)
    for name in ('.png', '_color.png', '.npy'):
        for read in (read_mask, lambda p: load(p, labels.shape)):
            with pytest.raises(ValueError, match=re.escape(f'm{name} goes from')):
                read(f'{path}{name}')


@pytest.mark.parametrize('ignored', [False, True])
def test_a_palette_of_colors_is_named(tmp_path, root, ignored):
    """Class 1 of Pascal VOC is a gray of 38: no foreground at all."""
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:20] = 1
    labels[4, 5:20] = 255 if ignored else 0
    picture = Image.fromarray(labels)
    colors = np.zeros((256, 3), np.uint8)
    colors[1], colors[255] = (128, 0, 0), (224, 224, 192)
    picture.putpalette(colors.tobytes())
    picture.save(tmp_path / 'm.png')
    picture.convert('RGB').save(tmp_path / 'rgb.png')
    for read in (read_mask, lambda p: load(p, labels.shape)):
        with pytest.raises(ValueError, match=r'm\.png has a palette, as class maps of Pascal VOC'):
            read(tmp_path / 'm.png')
        with pytest.raises(ValueError, match=r'rgb\.png is colored'):
            read(tmp_path / 'rgb.png')


def test_16_bits_and_transparency_are_no_masks(tmp_path):
    mask = blob(0)
    cv2.imwrite(str(tmp_path / 'deep.png'), mask.astype(np.uint16) * 257)
    cv2.imwrite(str(tmp_path / 'clear.png'), np.stack([*[mask] * 3, mask], -1))
    for name, message in (('deep', 'bool, uint8 or float, got uint16'), ('clear', 'transparent')):
        with pytest.raises(ValueError, match=rf'{name}\.png .*{message}'):
            read_mask(tmp_path / f'{name}.png')


# ---- Run-length codes ----------------------------------------------------------------------------


@given(seeds, st.integers(1, 40), st.integers(1, 40), st.floats(0, 1))
@examples(200)
def test_codes_are_read_as_by_pycocotools(seed, height, width, density):
    mask = np.random.default_rng(seed).random((height, width)) < density
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    runs = np.flatnonzero(np.diff(np.r_[False, mask.T.ravel()]))  # where they change
    lengths = np.diff(np.r_[0, runs, mask.size]).tolist()
    plain = dict(size=[height, width], counts=lengths)
    assert coco.frPyObjects(plain, height, width) == code or lengths[-1] == 0
    for same in (code, dict(code, counts=code['counts'].decode()), plain):
        assert np.array_equal(decode_mask(same), mask)


@pytest.mark.parametrize(('code', 'message'), [
    ({}, 'expected'), ([], 'expected'), ({'size': [2, 3], 'counts': None}, 'counts must be text'),
    ({'size': [2, 3], 'counts': [1, 2]}, 'sum is H \\* W = 6, got 3'),
    ({'size': [2, 3], 'counts': [-1, 7]}, 'the shortest -1'),
    ({'size': [2, 3], 'counts': [10**30]}, 'counts must be text or lengths'),
    ({'size': [2, 3], 'counts': [6.0]}, 'counts must be text or lengths'),
    ({'size': [2, 3], 'counts': [True, 5]}, 'counts must be text or lengths'),
    ({'size': [2, 3], 'counts': []}, 'counts must be text or lengths'),
    ({'size': [2, 3], 'counts': ''}, 'counts must be digits'),
    ({'size': [2, 3], 'counts': '6é'}, 'counts must be digits'),
    ({'size': [2, 3], 'counts': 'oooooooo0'}, 'more than 7 digits'),
    ({'size': [2, 3], 'counts': 'o'}, 'counts must be digits'),
    ({'size': [2, 3], 'counts': '07'}, 'sum is H \\* W = 6, got 7'),
    ({'size': [2, 3, 1], 'counts': '6'}, 'size must be'), ({'size': 6, 'counts': '6'}, 'size must'),
    ({'size': [2.0, 3], 'counts': '6'}, 'size must be'), ({'size': [0, 3], 'counts': '0'}, 'size'),
    ({'size': [10**6, 10**6], 'counts': [10**12]}, 'at most 1073741824 pixels'),
])
def test_what_is_no_code(tmp_path, code, message):
    (tmp_path / 'm.json').write_text(json.dumps(code))
    with pytest.raises(ValueError, match=f'm.json holds no run-length code: .*{message}'):
        read_mask(tmp_path / 'm.json')


@pytest.mark.parametrize('text', ['', '{', '[' * 100_000, '\ufeff{}', '{"size": [1,1]}' * 2])
def test_what_is_no_json(tmp_path, text):
    (tmp_path / 'm.json').write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match='m.json holds no run-length code'):
        read_mask(tmp_path / 'm.json')


# ---- Any bytes at all ----------------------------------------------------------------------------


def real_files(folder):
    """A real mask file of every kind that is read, by suffix."""
    mask, soft = blob(3), softened(blob(3), 'blur')
    for suffix in ('png', 'jpg', 'bmp', 'tif', 'webp'):
        cv2.imwrite(str(folder / f'soft.{suffix}'), soft)
    Image.fromarray(mask).quantize(4).save(folder / 'palette.png')
    write_mask(folder / 'm.npy', mask / 255)
    write_mask(folder / 'm.json', mask / 255)
    runs = np.diff(np.r_[0, np.flatnonzero(np.diff(mask.T.ravel())) + 1, mask.size]).tolist()
    (folder / 'plain.json').write_text(json.dumps(dict(size=[40, 60], counts=runs)))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@st.composite
def damage(draw):
    """What happens to files: a cut, bytes replaced, inserted, taken out; often near the start."""
    place = st.one_of(st.floats(0, 0.1), st.floats(0, 1))
    edits = st.tuples(place, st.sampled_from(['replace', 'insert', 'delete']),
                      st.binary(min_size=1, max_size=4))
    return draw(st.one_of(st.just(1.0), place)), draw(st.lists(edits, max_size=6))


def damaged(content, case):
    share, edits = case
    content = bytearray(content[:round(share * len(content))])
    for place, kind, data in edits:
        at = round(place * len(content))
        if kind == 'replace':
            content[at:at + len(data)] = data
        elif kind == 'insert':
            content[at:at] = data
        else:
            del content[at:at + len(data)]
    return bytes(content)


@pytest.mark.parametrize('cases', NIGHTLY)
def test_damaged_masks(tmp_path, cases, capfd):
    """A mask, or one of the errors that are promised; never another."""
    (tmp_path / 'real').mkdir()
    files = real_files(tmp_path / 'real')
    read = 0

    @given(st.sampled_from(sorted(files)), damage())
    @settings(FILES, max_examples=cases)
    def check(name, case):
        nonlocal read
        path = tmp_path / name
        path.write_bytes(damaged(files[name], case))
        try:
            mask = read_mask(path)
        except ValueError as error:
            assert name in str(error)
        else:
            read += 1
            assert mask.dtype == np.float32 and mask.ndim == 2
            assert 0 <= mask.min() and mask.max() <= 1

    check()
    assert read  # some are whole: the test reaches the readers' ends


@pytest.mark.parametrize('cases', NIGHTLY)
def test_any_bytes_are_no_mask(tmp_path, cases, capfd):
    magic = st.sampled_from([b'', b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff\xe0', b'BM', b'II*\0',
                             b'RIFF', b'\x93NUMPY\1\0', b'\x93NUMPY\3\0\x76\0\0\0', b'{"size":'])

    @given(st.sampled_from(['.png', '.npy', '.json', '.tif', '']), magic, st.binary(max_size=200))
    @settings(FILES, max_examples=cases)
    def check(suffix, start, rest):
        path = tmp_path / f'm{suffix}'
        path.write_bytes(start + rest)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_mask(path)

    check()


values = st.one_of(st.none(), st.booleans(), st.integers(-2, 50), st.integers(), st.floats(),
                   st.text(alphabet='0123456789:;<=>?@ABCO`o~é', max_size=8), st.just('a' * 9))


@pytest.mark.parametrize('cases', NIGHTLY)
def test_any_code(cases):
    """Decoded exactly if pycocotools writes the result back as a code of the same mask."""
    sizes = st.one_of(values, st.lists(st.integers(-1, 9), min_size=1, max_size=3))
    counts = st.one_of(values, st.lists(st.integers(-1, 20), max_size=6), st.lists(values))

    @given(sizes, counts)
    @settings(FILES, max_examples=cases)
    def check(size, counts):
        code = dict(size=size, counts=counts)
        try:
            mask = decode_mask(code)
        except ValueError:
            return
        assert list(mask.shape) == size and mask.dtype == bool
        theirs = coco.frPyObjects(code, *size) if isinstance(counts, list) else code
        assert np.array_equal(coco.decode(theirs), mask)
        window = decode_patch(theirs)
        whole = np.zeros(size, bool)
        h, w = window.mask.shape
        whole[window.top:window.top + h, window.left:window.left + w] = window.mask
        assert np.array_equal(whole, mask)

    check()


@pytest.mark.parametrize('cases', NIGHTLY)
def test_damaged_arrays(tmp_path, cases):
    """As stored logits are read."""
    np.save(tmp_path / 'a.npy', np.zeros((3, 4, 5), np.float32))
    content = (tmp_path / 'a.npy').read_bytes()

    @given(damage())
    @settings(FILES, max_examples=cases)
    def check(case):
        (tmp_path / 'a.npy').write_bytes(damaged(content, case))
        results = dict(img=np.zeros((8, 10, 3), np.uint8), img_path='x/a.jpg')
        try:
            found = LoadLowResLogits(logits_root=str(tmp_path))(results)
        except ValueError as error:
            assert 'a.npy' in str(error) or 'low resolution' in str(error)
        else:
            assert found['low_res_logits'].ndim == 3

    check()


def test_objects_are_not_unpickled():
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object))
    with pytest.raises(ValueError, match='a.npy is no array'):
        decode_array(stream.getvalue(), 'a.npy')


@pytest.mark.parametrize('cases', NIGHTLY)
def test_damaged_calibration_files(tmp_path, cases):
    """Bases of configs, or configs that are named wrongly: said, or a selector can be built."""
    content = json.dumps(dict(calibration=dict(alpha=0.25, recall=0.9, split='val'))).encode()
    path = tmp_path / 'calibration.json'
    built = 0

    @given(damage())
    @settings(FILES, max_examples=cases)
    def check(case):
        nonlocal built
        path.write_bytes(damaged(content, case))
        try:
            cfg = read_config(path)
        except ValueError as error:
            assert str(path) in str(error)
            return
        alpha = (cfg.get('calibration') or {}).get('alpha')
        try:
            found = EntropySelector(alpha=alpha, num_classes=3).threshold
        except (TypeError, ValueError):
            return
        assert found == json.loads(path.read_bytes())['calibration']['alpha'] >= 0
        built += 1

    check()
    assert built
