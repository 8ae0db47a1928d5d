"""Memory that is used again as soon as no tensor stands in it."""
from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor

# A free block serves a request that needs at least this part of it.
LEAST_USE = 0.25


class Arena:
    """Blocks of CPU memory for the tensors of one forward pass.

    A large allocation costs a page fault per 4 KB when it is first written to, as much as the
    arithmetic on it; the layers of a U-Net need the same sizes over and over. A block comes back
    when the last tensor in it, views included, is gone: nobody has to say so, and nobody can be
    given memory that somebody still reads.
    """

    def __init__(self) -> None:
        self.free: list[Tensor] = []

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialized: in the smallest free block that fits, else in a new one."""
        size = math.prod(shape) * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        fitting = [i for i, block in enumerate(self.free)
                   if LEAST_USE * len(block) <= size <= len(block)]
        if fitting:
            block = self.free.pop(min(fitting, key=lambda i: len(self.free[i])))
        else:
            smaller = [i for i, block in enumerate(self.free) if len(block) < size]
            if smaller:  # given back to the system before more is asked for
                del self.free[max(smaller, key=lambda i: len(self.free[i]))]
            block = torch.empty(size, dtype=torch.uint8)
        # A tensor made from an array holds it, and so does every view of that tensor. The finalizer
        # does not hold the arena, so that a result which outlives it does not keep its blocks.
        array = block[:size].numpy()
        weakref.finalize(array, give_back, weakref.ref(self), block).atexit = False
        return torch.from_numpy(array).view(dtype).view(shape)


def give_back(owner: weakref.ref[Arena], block: Tensor) -> None:
    """Hand a block back to its arena, if that is still there."""
    arena = owner()
    if arena is not None:
        arena.free.append(block)
