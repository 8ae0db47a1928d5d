r"""ImageNet weights of MobileNetV2 by torchvision's names, as mmseg's backbone wants them.

    python projects/camvid/mobilenetv2.py mobilenet_v2.pth --out work_dirs/mobilenetv2.pth

Weights whose batch norms were folded into the convolutions (variance 1, mean 0) cannot be trained
on: with --recalibrate FOLDER the norms get the statistics that their inputs have on images from
there, and scale and shift to undo them, so that the function computed stays the same.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import mmcv
import torch
from mmseg.models.backbones import MobileNetV2
from torch import Tensor, nn

import mmsparse  # noqa: F401  safe loading of checkpoints


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('weights', type=Path)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--recalibrate', type=Path, metavar='FOLDER', help='of JPEG images')
    parser.add_argument('--mean', type=float, default=127.5, help='of the images, 0 to 255')
    parser.add_argument('--std', type=float, default=127.5)
    return parser.parse_args()


def rename(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Both networks name the same layers in the same order; the last one, 1280 channels, is out.

    Raises:
        ValueError: a shape or the number of tensors differs.
    """
    theirs = [key for key in state if key.startswith('features.') and
              not key.startswith('features.18.') and not key.endswith('num_batches_tracked')]
    ours = [key for key in net.state_dict() if not key.endswith('num_batches_tracked')]
    if len(theirs) != len(ours):
        raise ValueError(
            f'features.0 to features.17: {len(theirs)} tensors, MobileNetV2 has {len(ours)}')
    for source, target in zip(theirs, ours, strict=True):
        if state[source].shape != net.state_dict()[target].shape:
            raise ValueError(f'{source} {tuple(state[source].shape)} does not fit {target} '
                             f'{tuple(net.state_dict()[target].shape)}')
    return {target: state[source] for source, target in zip(theirs, ours, strict=True)}


@torch.no_grad()
def recalibrate(net: nn.Module, images: Tensor) -> None:
    """Give every norm the statistics of its input on ``[B, 3, H, W]``, and undo them.

    What the norms compute does not change, so one pass serves all of them.
    """
    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor], _) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias.copy_(norm.bias + (mean - norm.running_mean) * scale)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [norm.register_forward_hook(measure) for norm in norms]
    net.eval()
    before = net(images)
    for hook in hooks:
        hook.remove()
    change = max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(
        before, net(images), strict=True))
    print(f'{len(norms)} norms on {len(images)} images; largest relative change {change:.1e}')


def main() -> None:
    """Rename, recalibrate, write."""
    args = parse_args()
    state = torch.load(args.weights, map_location='cpu', weights_only=True)
    net = MobileNetV2(out_indices=(1, 2, 4, 6))
    net.load_state_dict(rename(state, net), strict=False)
    if args.recalibrate is not None:
        files = sorted(args.recalibrate.glob('*.jpg'))[::6]
        images = [mmcv.imresize(mmcv.imread(file, channel_order='rgb'), (480, 360))
                  for file in files]
        pixels = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images])
        recalibrate(net, (pixels - args.mean) / args.std)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=net.state_dict()), args.out)


if __name__ == '__main__':
    main()
