"""Run by test_sps_kernel.py with TRITON_INTERPRET=1: the kernel on CPU tensors."""
import sys

import torch

from mmsparse.sparse import sum_of_convolutions
from mmsparse.sparse.sps_triton import fits, fused_sum


def case(rows, active, c, d, taps, branches, rectify, dtype):
    bank = torch.randn(rows + 1, c).to(dtype)
    bank[-1] = 0
    tables = [torch.randint(0, rows + 1, (active, taps), dtype=torch.int32)
              for _ in range(branches)]
    weights = [torch.randn(d, taps * c).to(dtype) / 10 for _ in range(branches)]
    biases = [torch.randn(d).to(dtype) for _ in range(branches)]
    assert fits(bank, d)
    mine = fused_sum(bank, tables, weights, biases, rectify).float()
    true = sum_of_convolutions(bank.double(), tables, [w.double() for w in weights],
                               [b.double() for b in biases], rectify).float()
    close = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(mine, true, atol=close, rtol=close)


if __name__ == '__main__':
    torch.manual_seed(0)
    case(200, 150, 32, 32, 9, 3, True, torch.float32)  # a tile and a bit more
    case(70, 64, 64, 32, 9, 3, True, torch.float32)  # exactly a tile
    case(40, 5, 128, 128, 9, 1, False, torch.float32)
    case(100, 65, 16, 48, 25, 2, True, torch.float32)
    # Triton's interpreter cannot multiply bfloat16; a GPU's test does
    case(100, 65, 32, 32, 9, 3, True, torch.float16)
    case(100, 0, 32, 32, 9, 3, True, torch.float32)
    assert not fits(torch.zeros(1, 24), 32) and not fits(torch.zeros(1, 32).double(), 32)
    sys.stdout.write('done\n')
