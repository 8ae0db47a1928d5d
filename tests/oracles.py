"""Slow, obviously right references. Nothing here uses mmsparse's own arithmetic.

Loops run over Python dictionaries of pixels; the U-Net oracle uses float64 dense convolutions and
reads only the parameters of the model under test.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F

TAPS = [(r, c) for r in range(3) for c in range(3)]


def as_pixels(rows, indices):
    """``{(b, y, x): float64 vector}`` of rows ``[N, C]`` and indices ``[N, 3]``."""
    return {tuple(i): f for i, f in zip(indices.tolist(), rows.detach().double(), strict=True)}


def loop_subm(pixels, weight):
    """Submanifold 3x3 convolution by looping over pixels and taps; weight [D, 3, 3, C]."""
    weight = weight.detach().double()
    return {(b, y, x): sum(
        (weight[:, r, c] @ pixels[b, y + r - 1, x + c - 1] for r, c in TAPS
         if (b, y + r - 1, x + c - 1) in pixels))
        for b, y, x in pixels}


def loop_down(pixels, weight, size, padding):
    """Strided 3x3 convolution: every cell of the coarse grid that reads an active pixel."""
    weight = weight.detach().double()
    height, width = ((n + 2 * padding - 3) // 2 + 1 for n in size)
    out = {}
    for b in {b for b, _, _ in pixels}:
        for i in range(height):
            for j in range(width):
                seen = [weight[:, r, c] @ pixels[b, 2 * i - padding + r, 2 * j - padding + c]
                        for r, c in TAPS
                        if (b, 2 * i - padding + r, 2 * j - padding + c) in pixels]
                if seen:
                    out[b, i, j] = sum(seen)
    return out


def loop_up(coarse, weight, fine_pixels, padding):
    """Inverse of loop_down: every fine pixel sums what the cells that read it send back."""
    weight = weight.detach().double()
    out = {}
    for b, y, x in fine_pixels:
        total = torch.zeros(len(weight), dtype=torch.float64)
        for r, c in TAPS:
            if (y + padding - r) % 2 == 0 and (x + padding - c) % 2 == 0:
                cell = (b, (y + padding - r) // 2, (x + padding - c) // 2)
                if cell in coarse:
                    total = total + weight[:, r, c] @ coarse[cell]
        out[b, y, x] = total
    return out


class DenseUNet:
    """The whole sparse U-Net as float64 dense convolutions, written from the paper's listing.

    ``DenseUNet(state, depth, padding)(image, mask)`` reads a SparseUNet's state dict (its tensors
    may require gradients) and returns the features ``[N, channels[0]]`` of the active pixels.
    Batch statistics are taken over the active pixels when ``training``.
    """

    def __init__(self, state, depth, padding, training):
        self.state, self.depth, self.padding, self.training = state, depth, padding, training

    def __call__(self, image, mask):
        x = self.conv(image * mask, 'stem', mask)
        x = self.level(x, mask, 'levels', 0)
        x = self.norm_relu(x, mask, 'norm')
        return x.permute(0, 2, 3, 1)[mask[:, 0] > 0]

    def conv(self, x, name, mask):
        weight = self.state[f'{name}.weight'].permute(0, 3, 1, 2)
        return F.conv2d(x, weight, padding=1) * mask

    def norm_relu(self, x, mask, name):
        s = self.state
        if self.training:
            count = mask.sum()
            mean = (x * mask).sum((0, 2, 3), keepdim=True) / count
            var = ((x - mean).square() * mask).sum((0, 2, 3), keepdim=True) / count
        else:
            mean = s[f'{name}.running_mean'][None, :, None, None]
            var = s[f'{name}.running_var'][None, :, None, None]
        x = (x - mean) / (var + 1e-5).sqrt()
        x = x * s[f'{name}.weight'][:, None, None] + s[f'{name}.bias'][:, None, None]
        return x.clamp(min=0) * mask

    def block(self, x, mask, name):
        y = self.conv(self.norm_relu(x, mask, f'{name}.norm1'), f'{name}.conv1', mask)
        y = self.conv(self.norm_relu(y, mask, f'{name}.norm2'), f'{name}.conv2', mask)
        if f'{name}.shortcut.weight' in self.state:
            x = torch.einsum('dc,bchw->bdhw', self.state[f'{name}.shortcut.weight'], x)
        return x + y

    def level(self, x, mask, name, level):
        for i in range(2):
            x = self.block(x, mask, f'{name}.encoder.{i}')
        if level == self.depth - 1:
            return x
        p = self.padding
        coarse_mask = F.max_pool2d(mask.double(), 3, 2, p)
        y = self.norm_relu(x, mask, f'{name}.down_norm')
        y = F.conv2d(y, self.state[f'{name}.down.weight'].permute(0, 3, 1, 2), stride=2, padding=p)
        y = self.level(y * coarse_mask, coarse_mask, f'{name}.below', level + 1)
        y = self.norm_relu(y, coarse_mask, f'{name}.up_norm')
        y = self.scatter_up(y, self.state[f'{name}.up.weight'], x.shape[2:]) * mask
        x = torch.cat([x, y], 1)
        for i in range(2):
            x = self.block(x, mask, f'{name}.decoder.{i}')
        return x

    def scatter_up(self, y, weight, size):
        """Each tap adds its share to every second pixel of a padded canvas."""
        b, _, h, w = y.shape
        canvas = y.new_zeros(b, len(weight), max(size[0], 2 * h) + 3, max(size[1], 2 * w) + 3)
        for r, c in TAPS:
            share = torch.einsum('dc,bchw->bdhw', weight[:, r, c], y)
            canvas[:, :, r:r + 2 * h:2, c:c + 2 * w:2] += share
        p = self.padding
        return canvas[:, :, p:p + size[0], p:p + size[1]]


def loop_entropy(logits):
    """Entropy of one pixel's logits (a list), by the textbook."""
    biggest = max(logits)
    weights = [math.exp(z - biggest) for z in logits]
    return -sum(w / sum(weights) * math.log(max(w / sum(weights), 1e-5)) for w in weights)


def boundary_mask(batch, height, width, seed=0, share=0.12):
    """Thin bands around the edges of random discs: what an entropy selector selects."""
    g = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    for b in range(batch):
        while mask[b].float().mean() < share:
            cy, cx, radius = torch.rand(3, generator=g) * torch.tensor(
                [height, width, min(height, width) / 3])
            distance = ((y - cy) ** 2 + (x - cx) ** 2).sqrt()
            mask[b] |= (distance - radius).abs() < 2
    return mask
