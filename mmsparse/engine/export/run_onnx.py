"""Label pictures by an ONNX file of mmsparse's: class numbers, NAME.png, and NAME_overlay.jpg.

    python run_onnx.py model.onnx PICTURE_OR_FOLDER ... --out results

Needs numpy, onnxruntime and opencv, nothing else. Pictures are read as stored, without the rotation
that EXIF asks for, so that every result lies on its picture.
"""
from __future__ import annotations

import argparse
import json
import sys
import timeit
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort

SUFFIXES = {'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'}
AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


class PictureError(ValueError):
    """A picture that cannot be labeled; the others can."""


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path, help='ONNX file that export_onnx wrote')
    parser.add_argument('inputs', nargs='+', type=Path, help='pictures, or folders of them')
    parser.add_argument('--out', type=Path, default='results', help='folder (default: results)')
    parser.add_argument('--masks', type=Path,
                        help='for a refiner: folder of the coarse masks, NAME.png each, 0 to 255')
    parser.add_argument('--resize', action='store_true', help='take pictures of other sizes too')
    parser.add_argument('--provider', default='CPUExecutionProvider', help="onnxruntime's")
    parser.add_argument('--threads', type=int, default=0, help='default: one a core')
    parser.add_argument('--repeat', type=int, default=0, metavar='N',
                        help='run every picture N times more, and print the median time of a run')
    return parser.parse_args()


def find_pictures(inputs: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Every picture, and the path of its result in the output folder, without a suffix."""
    for path in inputs:
        if path.is_dir():
            found = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES)
            yield from ((p, p.relative_to(path).with_suffix('')) for p in found)
        else:
            yield path, Path(path.stem)


def read(path: Path, flag: int) -> np.ndarray:
    """A picture file, uint8."""
    picture = cv2.imread(str(path), flag)
    if picture is None:
        raise PictureError(f'{path} is no picture that OpenCV can read')
    return picture


class Model:
    """An ONNX file and what stands in it: size, channel order, classes, colors."""

    def __init__(self, path: Path, provider: str, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(path), options, providers=[provider])
        self.facts: dict[str, Any] = json.loads(
            self.session.get_modelmeta().custom_metadata_map['mmsparse'])
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self.height, self.width = self.session.get_inputs()[0].shape[2:]

    def feed(self, picture: np.ndarray, mask: np.ndarray | None) -> dict[str, np.ndarray]:
        """Inputs of the file from a BGR picture, and for a refiner a mask, both uint8."""
        size = self.width, self.height
        picture = cv2.resize(picture, size)[..., ::-1 if self.facts['rgb'] else 1]
        feed = dict(image=picture.transpose(2, 0, 1)[None])
        if mask is not None:
            feed['mask'] = cv2.resize(mask, size)[None] / 255
        return {name: value.astype(np.float32) for name, value in feed.items()}

    def classes(self, result: np.ndarray) -> np.ndarray:
        """Class numbers ``[H, W]`` from the first output."""
        if self.outputs[0] == 'logits' and result.shape[1] > 1:
            result = result.argmax(1)
        elif self.outputs[0] != 'classes':
            result = result > self.facts['threshold']
        return result.reshape(self.height, self.width).astype(np.uint16)


def label(model: Model, path: Path, name: Path, args: argparse.Namespace) -> None:
    """Read, run, write one picture, and print what it took."""
    picture = read(path, AS_STORED)
    height, width = picture.shape[:2]
    if (height, width) != (model.height, model.width) and not args.resize:
        raise PictureError(f'{path} has {height}x{width} pixels, the file takes '
                           f'{model.height}x{model.width}; --resize takes it nevertheless')
    mask = args.masks and read(args.masks / f'{name}.png', cv2.IMREAD_GRAYSCALE)
    feed = model.feed(picture, mask)
    results = model.session.run(None, feed)
    classes = model.classes(results[0])
    classes = cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST)
    colors = np.asarray(model.facts['palette'], np.uint8)[:, ::-1]
    classes = classes if len(colors) > 256 else classes.astype(np.uint8)
    (target := args.out / name).parent.mkdir(parents=True, exist_ok=True)
    overlay = cv2.addWeighted(picture, 0.5, colors[classes], 0.5, 0)
    for file, content in ((f'{target}.png', classes), (f'{target}_overlay.jpg', overlay)):
        if not cv2.imwrite(file, content):
            raise OSError(f'{file} cannot be written')
    shares = np.bincount(classes.ravel(), minlength=len(colors)) / classes.size
    names, most = model.facts['classes'], (-shares).argsort()[:3]
    note = ', '.join(f'{names[k]} {shares[k]:.1%}' for k in most if shares[k])
    if 'selected' in model.outputs:
        note += f'; refined {results[1].mean():.1%} of the pixels'
    if args.repeat:
        times = timeit.repeat(lambda: model.session.run(None, feed), number=1, repeat=args.repeat)
        note += f'; {np.median(times) * 1e3:.1f} ms'
    print(f'{path}: {note}')


def main() -> None:
    """Label all pictures; which ones cannot be is said at the end."""
    args = parse_args()
    model = Model(args.model, args.provider, args.threads)
    if ('mask' in model.inputs) == (args.masks is None):
        sys.exit('--masks are for a file that refines masks, which needs them')
    pictures, failed = list(find_pictures(args.inputs)), []
    if len({name for _, name in pictures}) < len(pictures) or not pictures:
        sys.exit('no picture in the inputs, or two of the same name')
    sources = [path.parent for path, _ in pictures] + [args.masks] * bool(args.masks)
    targets = {(args.out / name).parent.resolve() for _, name in pictures}
    if not targets.isdisjoint(folder.resolve() for folder in sources):
        sys.exit(f'--out {args.out} would write over pictures or masks')
    for path, name in pictures:
        try:
            label(model, path, name, args)
        except PictureError as error:
            failed.append(str(error))
    if failed:
        sys.exit('\n'.join(failed))


if __name__ == '__main__':
    main()
