"""What is found of the inputs that are named, and how processes read them by turns."""
import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from mmsparse.engine.inputs import PICTURES, VIDEOS, InputReader, find_inputs
from tests.engine.videos import video
from tests.examples import examples

OUT = Path('/elsewhere')


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(inputs):
    return [one.name.as_posix() for one in inputs]


# ---- Finding ----


@given(st.lists(st.lists(st.sampled_from(
    ['a', 'b', '.c', 'd.jpg', 'e.PNG', 'f.txt', '[g].tif', 'h.mp4', 'i.jp2']),
    min_size=1, max_size=4).map('/'.join), min_size=1, max_size=8))
@examples(60, suppress_health_check=list(HealthCheck))
def test_a_folder_is_gone_through(tmp_path_factory, paths):
    """By hand: every file of the right suffix, but for what begins with a dot, in order."""
    root = tmp_path_factory.mktemp('tree')
    for path in paths:
        try:
            touch(root, path)
        except (FileExistsError, NotADirectoryError):  # a file there, or a folder
            continue
        except IsADirectoryError:
            continue
    expected = [Path(folder, file).relative_to(root) for folder, _, files in os.walk(root)
                for file in files if Path(file).suffix.lower() in PICTURES + VIDEOS]
    expected = sorted((p for p in expected if not any(x.startswith('.') for x in p.parts)),
                      key=lambda p: p.parts)
    if not expected:
        with pytest.raises(FileNotFoundError, match='holds no picture or video'):
            find_inputs([root], OUT)
        return
    found = find_inputs([str(root)], OUT)
    assert [one.name for one in found] == expected
    assert all(one.file == root / one.name for one in found)


def test_names_are_below_the_folder_of_all_inputs(tmp_path, monkeypatch):
    touch(tmp_path, 'city/1.jpg', 'city/deep/2.png', 'rural/1.jpg', 'rural/clip.mp4', 'notes.txt')
    monkeypatch.chdir(tmp_path)
    cases = {
        ('city',): ['1.jpg', 'deep/2.png'],
        ('city/deep',): ['2.png'],
        ('rural', 'city'): ['rural/1.jpg', 'rural/clip.mp4', 'city/1.jpg', 'city/deep/2.png'],
        ('city/1.jpg',): ['1.jpg'],
        ('city/1.jpg', 'city/deep/2.png'): ['1.jpg', 'deep/2.png'],
        ('city/1.jpg', 'city', './city/../city/1.jpg'): ['1.jpg', 'deep/2.png'],  # each once
        ('notes.txt',): ['notes.txt'],  # who names a file means it
        ('**/*.jpg',): ['city/1.jpg', 'rural/1.jpg'],
        ('*/1.*',): ['city/1.jpg', 'rural/1.jpg'],
        ('city/**/*.png',): ['deep/2.png'],
        ('[cr]*',): ['city/1.jpg', 'city/deep/2.png', 'rural/1.jpg', 'rural/clip.mp4'],
        ('*',): ['city/1.jpg', 'city/deep/2.png', 'rural/1.jpg', 'rural/clip.mp4'],
        (str(tmp_path / 'rural' / '*'),): ['1.jpg', 'clip.mp4'],
    }
    for named, expected in cases.items():
        found = find_inputs(named, OUT)
        assert names(found) == expected, named
        assert all(one.file.is_absolute() and one.file.is_file() for one in found)


def test_links_are_followed(tmp_path):
    touch(tmp_path, 'store/1.jpg', 'data/2.jpg')
    (tmp_path / 'data' / 'more').symlink_to(tmp_path / 'store')
    assert names(find_inputs([tmp_path / 'data'], OUT)) == ['2.jpg', 'more/1.jpg']


@pytest.mark.parametrize(('named', 'error', 'message'), [
    ('nothing', FileNotFoundError, 'the input nothing does not exist'),
    ('nothing/*.jpg', FileNotFoundError, r'no input matches nothing/\*\.jpg'),
    ('a/*.txt', FileNotFoundError, r'no input matches a/\*\.txt'),
    ('empty', FileNotFoundError, r'the folder empty holds no picture or video \(\.jpg, '),
    ('twice', ValueError, r'twice/1\.jpg and .*twice/1\.png would have one name'),
    ('videos', ValueError, r'videos/1\.avi and .*videos/1\.mp4 would have one name'),
    ('a', ValueError, 'output folder a/out lies within the input a:'),
    ('a/**/*.jpg', ValueError, 'output folder a/out lies within'),
    ('a/../a/', ValueError, 'output folder a/out lies within'),
    ('a/*', ValueError, 'output folder a/out lies within'),
    ('[a]', ValueError, 'output folder a/out lies within'),
])
def test_what_is_refused(tmp_path, monkeypatch, named, error, message):
    touch(tmp_path, 'a/1.jpg', 'a/x.txt', 'twice/1.jpg', 'twice/1.png', 'videos/1.mp4',
          'videos/1.avi', 'videos/1.jpg')
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        find_inputs(['a/1.jpg', named] if named != 'a' else [named], Path('a/out'))


def test_an_output_folder_beside_the_pictures_that_are_named(tmp_path):
    touch(tmp_path, '1.jpg')
    assert find_inputs([tmp_path / '1.jpg'], tmp_path)
    assert find_inputs([str(tmp_path / '*.jpg')], tmp_path / 'out')


# ---- Reading ----


def pictures(folder, *names):
    for k, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((8, 9, 3), 10 * k, np.uint8))


@pytest.mark.parametrize('world_size', [1, 2, 3, 20])
def test_processes_share_pictures_and_frames(tmp_path, world_size):
    """Every one is read in one process, with the right pixels, and no process has much more."""
    pictures(tmp_path, 'a.png', 'b.png', 'd.png')
    frames = video(tmp_path / 'c.avi')
    inputs = find_inputs([tmp_path], OUT)
    expected = ['a.png', 'b.png', *(f'c/{k:06d}.jpg' for k in range(7)), 'd.png']
    seen = {}
    for rank in range(world_size):
        reader = InputReader(inputs, rank=rank, world_size=world_size)
        mine = [(p, image) for p, image in reader.read_ahead(lambda _: True)]
        assert len(mine) == reader.announced()
        assert [p.place for p, _ in mine] == sorted(p.place for p, _ in mine)
        seen |= {p.name.as_posix(): (p.place, image) for p, image in mine}
    assert sorted(seen, key=lambda name: seen[name][0]) == expected
    assert [seen[name][1][0, 0, 0] for name in ('a.png', 'b.png', 'd.png')] == [0, 10, 20]
    for k, frame in enumerate(frames):
        assert np.abs(seen[f'c/{k:06d}.jpg'][1].astype(int) - frame).mean() < 8


def test_what_is_not_wanted_is_not_read(tmp_path, monkeypatch):
    """Pictures and frames; a frame keeps its number."""
    pictures(tmp_path, 'a.png', 'b.png')
    frames = video(tmp_path / 'c.avi')
    (tmp_path / 'a.png').write_bytes(b'broken')
    reader = InputReader(find_inputs([tmp_path], OUT))
    wanted = ('b.png', '000005.jpg')
    found = list(reader.read_ahead(lambda picture: picture.name.name in wanted))
    assert [p.name.name for p, image in found if image is not None] == [*wanted]
    assert np.abs(found[-2][1].astype(int) - frames[5]).mean() < 8


def test_a_broken_file_does_not_stop_the_others(tmp_path):
    pictures(tmp_path, 'a.png', 'cut.png', 'empty.png', 'z.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'z.png').read_bytes()[:-20])
    (tmp_path / 'empty.png').write_bytes(b'')
    (tmp_path / 'no.mp4').write_bytes(b'no video')
    (tmp_path / 'nothing.mp4').write_bytes(b'')
    inputs = find_inputs([tmp_path], OUT)
    found = {p.name.name: image for p, image in InputReader(inputs).read_ahead(lambda _: True)}
    assert list(found) == ['a.png', 'cut.png', 'empty.png', 'no.mp4', 'nothing.mp4', 'z.png']
    assert found['z.png'].shape == (8, 9, 3)
    for name, message in (('cut.png', 'is cut off'), ('empty.png', 'is cut off'),
                          ('no.mp4', 'no video that OpenCV can decode'),
                          ('nothing.mp4', 'no video that OpenCV can decode')):
        assert isinstance(found[name], ValueError) and message in str(found[name])
        assert str(tmp_path / name) in str(found[name])


def test_a_broken_video_is_reported_once(tmp_path):
    (tmp_path / 'no.mp4').write_bytes(b'no video')
    inputs = find_inputs([tmp_path], OUT)
    found = [list(InputReader(inputs, rank=rank, world_size=2).read_ahead(lambda _: True))
             for rank in range(2)]
    assert [len(part) for part in found] == [1, 0]


def test_a_video_that_is_cut_off(tmp_path):
    """Its frames are read, and it is said that some are missing."""
    video(tmp_path / 'c.avi', count=30)
    content = (tmp_path / 'c.avi').read_bytes()
    (tmp_path / 'c.avi').write_bytes(content[:len(content) // 2])
    reader = InputReader(find_inputs([tmp_path], OUT))
    *frames, (_, last) = reader.read_ahead(lambda _: True)
    assert 5 < len(frames) < 25 and all(image.shape == (48, 64, 3) for _, image in frames)
    assert f'says that it has 30 frames, but {len(frames)} can be decoded' in str(last)


def test_the_caller_may_stop(tmp_path):
    pictures(tmp_path, 'a.png', 'b.png', 'c.png')
    ahead = InputReader(find_inputs([tmp_path], OUT)).read_ahead(lambda _: True)
    assert len(list(itertools.islice(ahead, 1))) == 1
    ahead.close()
