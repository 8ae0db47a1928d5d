"""Pictures, labels and masks in one geometry, whatever EXIF says; 8 bits; whole files only."""
import io
import re
import struct
import warnings
import zlib
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample
from PIL import Image

from mmsparse.apis import refine_mask
from mmsparse.datasets import LoadMasks
from mmsparse.engine import RefinementVisualizationHook
from mmsparse.engine.config import read_config
from mmsparse.masks import read_mask
from mmsparse.models.crm.refiner import CRMRefiner
from mmsparse.models.crm.wrappers import original_image
from mmsparse.pictures import orientation, read_image
from tests.examples import examples

ALL = range(1, 9)
TAG = 0x0112
STORED = 'color_ignore_orientation'
PIPELINES = [
    'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py',  # stock: our tools see to it
    'configs/swiftnet/swiftnet-ss_r18_1xb8-1k_camvid-360x480.py',
]


def blocks(height=48, width=80):
    """Colors in blocks of 16 pixels, alike under no rotation and no flip."""
    colors = np.random.default_rng(1).integers(0, 256, (height // 16, width // 16, 3))
    return np.kron(colors, np.ones((16, 16, 1))).astype(np.uint8)


def corner(height=48, width=80):
    """A mask of one corner, whose place tells all eight orientations apart."""
    mask = np.zeros((height, width), np.uint8)
    mask[:16, :48] = 255
    return mask


def save(path, pixels, turn=None, **options):
    """Write RGB or gray by Pillow, with an EXIF orientation."""
    exif = Image.Exif()
    if turn is not None:
        exif[TAG] = turn
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def alike(found, stored):
    """Whether two pictures are the same but for what JPEG loses."""
    return found.shape == stored.shape and np.abs(found.astype(int) - stored).mean() < 8


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('turn', ALL)
@pytest.mark.parametrize('gray', [False, True])
def test_pictures_are_read_as_stored(tmp_path, suffix, turn, gray):
    pixels = blocks()[..., 0] if gray else blocks()
    path = save(tmp_path / f'a.{suffix}', pixels, turn)
    stored = np.stack([pixels] * 3, -1) if gray else pixels[..., ::-1]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        assert alike(read_image(path), stored)
    said = [str(w.message) for w in caught]
    assert bool(said) == (turn != 1)
    assert turn == 1 or f'a.{suffix} is read as stored: its EXIF orientation, {turn},' in said[0]


@pytest.mark.parametrize('turn', ALL)
def test_a_tiff_is_turned_in_pictures_and_masks_alike(tmp_path, turn):
    """Its tag is part of the format: OpenCV and Pillow, mmseg's reader of labels, follow it."""
    for name, pixels in (('image', blocks()), ('mask', corner())):
        Image.fromarray(pixels).save(tmp_path / f'{name}.tif', tiffinfo={TAG: turn})
        shown = mmcv.imread(tmp_path / f'{name}.tif', 'unchanged', backend='pillow')
        found = (read_image(tmp_path / 'image.tif') if name == 'image' else
                 255 * read_mask(tmp_path / 'mask.tif'))
        assert np.array_equal(found, shown)
        stored = pixels[..., ::-1] if name == 'image' else pixels
        assert np.array_equal(found, stored) == (turn == 1)


entries = st.lists(st.tuples(st.integers(1, 2**16 - 1).filter(lambda t: t != TAG),
                             st.integers(0, 2**32 - 1)), max_size=5)


@given(st.sampled_from('<>'), entries, st.integers(0, 2**16 - 1), entries, st.integers(0, 40),
       st.sampled_from([b'Exif\0\0', b'eXIf', b'EXIF\0\0\1\0']), st.binary(max_size=30))
@examples(200)
def test_the_orientation_is_found(order, before, value, after, gap, mark, front):
    """In both byte orders, at any place, among other entries; and no cut of it is an error."""
    fields = [struct.pack(f'{order}HHII', tag, 4, 1, number) for tag, number in before]
    fields += [struct.pack(f'{order}HHIHH', TAG, 3, 1, value, 0)]
    fields += [struct.pack(f'{order}HHII', tag, 4, 1, number) for tag, number in after]
    magic = {'<': b'II*\0', '>': b'MM\0*'}[order]
    note = (magic + struct.pack(f'{order}I', 8 + gap) + bytes(gap)
            + struct.pack(f'{order}H', len(fields)) + b''.join(fields))
    content = front + mark + note
    assert orientation(content) == (value if 1 <= value <= 8 else 1)
    for end in range(len(content)):
        assert orientation(content[:end]) in (1, value)


@pytest.mark.parametrize('config', PIPELINES)
@pytest.mark.parametrize('turn', ALL)
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_labels_meet_their_pictures(tmp_path, root, config, turn, suffix):
    """As in training, testing and calibration by our tools; the picture shows its label."""
    cfg = read_config(config if '::' in config else root / config)
    init_default_scope('mmseg')
    mask = corner()
    image = save(tmp_path / f'image.{suffix}', np.stack([mask] * 3, -1), turn)
    label = save(tmp_path / 'label.png', mask // 255, turn)  # some tools copy the note to it
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        steps = [step for step in loader.dataset.pipeline
                 if step.type in ('LoadImageFromFile', 'LoadAnnotations')]
        steps = [dict(step) | (dict(reduce_zero_label=False) if 'reduce_zero_label' in step else {})
                 for step in steps]
        found = Compose(steps)(dict(img_path=str(image), seg_map_path=str(label), seg_fields=[],
                                    reduce_zero_label=False))
        assert np.array_equal(found['gt_seg_map'], mask // 255)
        assert np.array_equal(found['img'][..., 1] > 127, mask > 127)


def test_all_configs_of_ours_read_as_stored(root):
    """Also where mmseg's tools run them. Boxes and polygons, of mmdet, are drawn on the screen."""
    bare = [path for folder in ('configs', 'projects') for path in (root / folder).rglob('*.py')
            if re.search(r"type='LoadImageFromFile'(?!, color_type=)", path.read_text())]
    assert bare and all('mmdet' in p.read_text() or 'with_bbox' in p.read_text() for p in bare)


def test_who_names_a_color_type_keeps_it(tmp_path):
    (tmp_path / 'config.py').write_text(
        'default_scope = "{scope}"\nfrom mmcv.transforms import LoadImageFromFile as Loader\n'
        'pipelines = [dict(type="LoadImageFromFile"), [dict(type="mmseg.LoadImageFromFile")],'
        'dict(a=dict(type=Loader)), dict(type="LoadImageFromFile", color_type="color"),'
        'dict(type="LoadImageFromFile", imdecode_backend="turbojpeg")]')
    text = (tmp_path / 'config.py').read_text()
    for scope, first in (('mmseg', STORED), ('mmdet', None)):
        (tmp_path / 'config.py').write_text(text.replace('{scope}', scope))
        a, (b,), c, d, e = read_config(tmp_path / 'config.py').pipelines
        found = [step.get('color_type') for step in (a, b, c['a'], d, e)]
        assert found == [first, first, first, 'color', None]


class Recorder(CRMRefiner):
    """Stands for a refiner: keeps what it is given."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    def refine(self, image, mask):
        self.image, self.mask = image[0].permute(1, 2, 0).numpy(), mask[0].numpy()
        return SimpleNamespace(mask=mask)


@pytest.mark.filterwarnings('ignore:.*EXIF')
@pytest.mark.parametrize('turn', ALL)
def test_refine_gets_picture_and_mask_alike(tmp_path, turn):
    mask, model = corner(), Recorder()
    image = save(tmp_path / 'a.jpg', np.stack([mask] * 3, -1), turn)
    for suffix in ('png', 'webp'):
        found = refine_mask(image, save(tmp_path / f'm.{suffix}', mask, turn, lossless=True), model)
        assert np.array_equal(model.image[..., 0] > 127, model.mask > 0.5)
        assert np.array_equal(found, mask / 255)
    if turn > 4:
        with pytest.raises(ValueError, match=r'image has \[48, 80\] .* mask \[80, 48\]; .* EXIF'):
            refine_mask(image, save(tmp_path / 'm.png', np.rot90(mask)), model)


@pytest.mark.parametrize('turn', ALL)
def test_masks_in_training_meet_their_pictures(tmp_path, turn):
    mask = corner()
    image = save(tmp_path / 'a.jpg', np.stack([mask] * 3, -1), turn)
    paths = dict(img_path=str(image), gt_mask_path=str(save(tmp_path / 'm.png', mask, turn)),
                 coarse_mask_path=str(save(tmp_path / 'c.png', mask[::2, ::2], turn)))
    load = Compose([LoadImageFromFile(color_type=STORED), LoadMasks(resize_coarse=True)])
    found = load(paths)
    for name in ('gt_mask', 'coarse_mask'):
        assert np.array_equal(found['img'][..., 0] > 127, found[name] > 127)
    for side in (mask, mask[::2, ::2]):  # of the turned picture, in whatever size
        save(tmp_path / 'c.png', np.rot90(side))
        with pytest.raises(ValueError, match=r'mask .*c.png .* without the rotation that EXIF'):
            load(paths)


@pytest.mark.parametrize('turn', ALL)
@pytest.mark.parametrize('color_type', ['color', STORED])
@pytest.mark.parametrize('square', [False, True])
def test_the_original_is_what_the_pipeline_read(tmp_path, turn, color_type, square):
    """Of wrapped models, behind any loader; refused where the sample does not tell."""
    pixels = blocks(48, 48 if square else 80)
    path = save(tmp_path / 'a.png', pixels, turn)
    read = LoadImageFromFile(color_type=color_type)(dict(img_path=str(path)))
    meta = dict(img_path=str(path), ori_shape=read['ori_shape'])
    if turn > 4 and not square or turn == 1:
        assert np.array_equal(original_image(meta).permute(1, 2, 0), read['img'])
    else:
        with pytest.raises(ValueError, match=f'a.png has an EXIF orientation, {turn}, .*KeepOrig'):
            original_image(meta)
    kept = original_image(meta | dict(ori_img=read['img']))
    assert np.array_equal(kept.permute(1, 2, 0), read['img'])


@pytest.mark.parametrize('turn', ALL)
def test_drawn_pictures_lie_as_their_results(tmp_path, turn):
    path = save(tmp_path / 'a.png', blocks(), turn)
    Visualizer.get_instance('pictures')  # which the hook asks for
    hook, drawn = RefinementVisualizationHook(draw=True, interval=1), []
    hook._visualizer = SimpleNamespace(add_datasample=lambda name, image, **_: drawn.append(image))
    for mode in ('train', 'val'):
        hook._after_iter(SimpleNamespace(_train_loop=None), 0, None, [
            SegDataSample(metainfo=dict(img_path=str(path)))], mode=mode)
    assert len(drawn) == 1 and np.array_equal(drawn[0], blocks())


@pytest.mark.parametrize(('dtype', 'shape'), [
    (np.uint16, (20, 30)), (np.uint16, (20, 30, 3)), (np.float32, (20, 30, 3))])
def test_more_than_8_bits_are_refused(tmp_path, dtype, shape):
    """Twelve bits of a camera, in 16, would become values up to 15."""
    path = tmp_path / ('a.png' if dtype == np.uint16 else 'a.tif')
    assert cv2.imwrite(str(path), np.full(shape, 4095, dtype))
    with pytest.raises(ValueError, match=rf'a\.\w+ holds {np.dtype(dtype)} numbers per channel'):
        read_image(path)


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp', 'tif', 'bmp'])
@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.95])
def test_files_that_are_cut_off_are_refused(tmp_path, suffix, share):
    """None is half a picture."""
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, {'jpg': 'jpeg', 'tif': 'tiff'}.get(suffix, suffix))
    content = content.getvalue()
    path = tmp_path / f'a.{suffix}'
    path.write_bytes(content)
    assert alike(read_image(path), noise[..., ::-1]) or suffix in ('jpg', 'webp')
    path.write_bytes(content[:int(share * len(content))])
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=rf'a\.{suffix} is no image .* or is cut off'):
            read(path)


def test_more_pixels_than_opencv_takes(tmp_path):
    """A header suffices: 50,000 x 50,000 pixels, and none of them."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data))
    header = struct.pack('>IIBBBBB', 50_000, 50_000, 8, 0, 0, 0, 0)
    (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
                                     + chunk(b'IDAT', b'') + chunk(b'IEND', b''))
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=r'a\.png'):
            read(tmp_path / 'a.png')


def test_no_path():
    with pytest.raises(TypeError, match='path or a uint8 BGR array'):
        read_image(3)
