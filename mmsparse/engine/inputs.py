"""Pictures and videos, as a command line names them: found, shared among processes, read ahead."""
from __future__ import annotations

import glob
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from mmsparse.pictures import decode_color

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
VIDEOS = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm')


class Input(NamedTuple):
    """A picture or a video.

    Attributes:
        file: where it lies.
        name: its path below the folder that holds all inputs, with its suffix.
    """

    file: Path
    name: Path

    @property
    def is_video(self) -> bool:
        """By its suffix."""
        return self.file.suffix.lower() in VIDEOS


class Picture(NamedTuple):
    """A picture or a frame, not read yet.

    Attributes:
        file: the picture or the video.
        name: of the picture below the folder of all inputs; of a frame see :func:`frame_name`.
        place: sorts pictures as they are named, in whatever process they are read.
        read: gives uint8 BGR ``[H, W, 3]``; of a frame only until the next one is asked for.
    """

    file: Path
    name: Path
    place: tuple[int, int]
    read: Callable[[], np.ndarray]


# ---- Finding ------------------------------------------------------------------------------------


def find_inputs(named: Sequence[str | Path], out: Path) -> list[Input]:
    """The pictures and videos in files, folders and patterns, in their order, each once.

    Names are paths below the deepest folder that holds all that is named: for one folder below
    itself, for a pattern below its part without wildcards. Folders are gone through to any depth,
    in order; what begins with a dot is left out.

    Args:
        named: files of any suffix; folders; patterns of :mod:`glob`, ``**`` for any depth.
        out: where results go.

    Raises:
        FileNotFoundError: something named does not exist, matches nothing, or holds neither
            picture nor video.
        ValueError: ``out`` lies within a folder that is gone through, or the results of two inputs
            would have one name.
    """
    files: dict[Path, None] = {}
    roots = []
    for text in map(str, named):
        root, found = _expand(text)
        if _goes_through(text, root, out):
            raise ValueError(f'the output folder {out} lies within the input {text}: the results '
                             'would be inputs of the next run')
        roots.append(root if root.is_dir() else root.parent)
        files |= dict.fromkeys(found)
    above = Path(os.path.commonpath(roots))
    inputs = [Input(file, file.relative_to(above)) for file in files]
    taken: dict[Path, Input] = {}
    for one in inputs:
        result = frame_name(one.name, 0) if one.is_video else one.name
        other = taken.setdefault(result.with_suffix(''), one)
        if other is not one:
            raise ValueError(f'the results of {other.file} and {one.file} would have one name: '
                             "take one of them, as in 'FOLDER/**/*.jpg', or rename it")
    return inputs


def _expand(one: str) -> tuple[Path, list[Path]]:
    """A folder or file that holds what is named, and the pictures and videos there; absolute."""
    path = Path(os.path.abspath(Path(one).expanduser()))
    if path.is_dir():
        found = _below(path)
        if not found:
            raise FileNotFoundError(f'the folder {one} holds no picture or video '
                                    f'({", ".join(PICTURES + VIDEOS)})')
        return path, found
    if path.exists():
        return path, [path]
    if not glob.has_magic(one):
        raise FileNotFoundError(f'the input {one} does not exist')
    matched = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
    found = [file for match in matched for file in (_below(match) if match.is_dir() else [match])]
    found = [file for file in found if file.suffix.lower() in PICTURES + VIDEOS]
    if not found:
        raise FileNotFoundError(f'no input matches {one}')
    parts = path.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed]), found


def _goes_through(one: str, root: Path, out: Path) -> bool:
    """Whether the output folder lies where inputs are looked for."""
    out = Path(os.path.abspath(out))
    if root.is_dir() and (Path(one).is_dir() or '**' in one):
        return out.resolve().is_relative_to(root.resolve())
    return any(fnmatch(str(folder), os.path.abspath(one)) for folder in (out, *out.parents))


def _below(folder: Path) -> list[Path]:
    """The pictures and videos of a folder, and of those in it, links followed."""
    names = glob.glob('**', root_dir=folder, recursive=True)
    return [folder / name for name in sorted(names, key=lambda name: Path(name).parts)
            if Path(name).suffix.lower() in PICTURES + VIDEOS and (folder / name).is_file()]


def frame_name(video: Path, number: int) -> Path:
    """Name of a frame from 0: ``clip/000000.jpg``, as of mmcv's ``VideoReader.cvt2frames``."""
    return video.with_suffix('') / f'{number:06d}.jpg'


# ---- Reading ------------------------------------------------------------------------------------


@dataclass
class InputReader:
    """Reads inputs one after the other; several processes share them by turns.

    Args:
        inputs: of :func:`find_inputs`.
        upright: turn pictures as their EXIF orientation asks for (:mod:`mmsparse.pictures`).
            Videos are always turned, as players do.
        white: which value is white in pictures of more than 8 bits; ``None`` refuses them.
        rank, world_size: which process this is, and of how many.

    Attributes:
        turned: the pictures, read so far, with an EXIF orientation.
    """

    inputs: Sequence[Input]
    upright: bool = False
    white: float | None = None
    rank: int = 0
    world_size: int = 1
    turned: list[Path] = field(default_factory=list)

    def pictures(self) -> Iterator[Picture]:
        """The share of this process: every ``world_size``-th picture, and frame of each video."""
        for i, one in enumerate(self.inputs):
            if one.is_video:
                yield from self._frames(one, i)
            elif i % self.world_size == self.rank:
                yield Picture(one.file, one.name, (i, 0), partial(self._read, one.file))

    def announced(self) -> int:
        """How many pictures this process has, as far as videos say how many frames are theirs."""
        frames = [int(cv2.VideoCapture(str(one.file)).get(cv2.CAP_PROP_FRAME_COUNT))
                  for one in self.inputs if one.is_video]
        pictures = [i for i, one in enumerate(self.inputs) if not one.is_video]
        return sum(i % self.world_size == self.rank for i in pictures) + sum(
            len(range(self.rank, count, self.world_size)) for count in frames)

    def read_ahead(self, wanted: Callable[[Picture], bool]
                   ) -> Generator[tuple[Picture, np.ndarray | Exception | None], None, None]:
        """Pictures with what was read, or the error, or ``None`` for one that is not wanted.

        A thread reads the next one while the caller works on this one.
        """
        pictures = self.pictures()

        def step() -> tuple[Picture, np.ndarray | Exception | None] | None:
            picture = next(pictures, None)
            if picture is None:
                return None
            if not wanted(picture):
                return picture, None
            try:
                return picture, picture.read()
            except (OSError, ValueError, MemoryError) as error:
                return picture, error

        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(step)
            while (found := ahead.result()) is not None:
                ahead = reader.submit(step)
                yield found

    def _read(self, file: Path) -> np.ndarray:
        image, turn = decode_color(file.read_bytes(), str(file), upright=self.upright,
                                   white=self.white)
        if turn != 1:
            self.turned.append(file)
        return image

    def _frames(self, video: Input, place: int) -> Iterator[Picture]:
        """The share of this process in a video; a last one that fails if the video is broken."""
        capture = cv2.VideoCapture(str(video.file))
        count = 0
        while capture.grab():
            if count % self.world_size == self.rank:
                yield Picture(video.file, frame_name(video.name, count), (place, count),
                              partial(_retrieve, capture, video.file, count))
            count += 1
        announced, rate = (capture.get(key) for key in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        broken = ''
        if not count:
            broken = f'{video.file} is no video that OpenCV can decode, or is cut off'
        elif count + max(rate, 1) < announced:  # by more than a second: some only estimate
            broken = (f'{video.file} says that it has {announced:.0f} frames, but {count} can be '
                      'decoded: is it cut off?')
        if broken and self.rank == 0:
            yield Picture(video.file, video.name, (place, count), partial(_fail, broken))


def _retrieve(capture: cv2.VideoCapture, video: Path, number: int) -> np.ndarray:
    decoded, image = capture.retrieve()
    if not decoded:
        raise ValueError(f'frame {number} of {video} cannot be decoded')
    return image


def _fail(message: str) -> np.ndarray:
    raise ValueError(message)
