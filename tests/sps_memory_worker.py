"""Memory of EffSeg's fusion module at the paper's sizes, beside the dense map it does without.

    python tests/sps_memory_worker.py

100 RoIs, 10,000 cells split at each stage. Prints for each stage the MiB of the dense map, and of
the rows with the index map; and what a forward pass, one with a backward pass, and a forward pass
of the same layers on the dense map hold above them.
"""
import json

import torch
import torch.nn.functional as F

from mmsparse.engine.machine import peak_memory
from mmsparse.models.effseg import SemanticFusionModule
from mmsparse.sparse import from_dense, keep_best, select, split

MIB = 2**20


def main():
    torch.manual_seed(0)
    device, rows = torch.device('cpu'), []
    x = from_dense(torch.randn(100, 1, 14, 14))
    for channels in (128, 64, 32):
        keep = keep_best(torch.rand(len(x.active)), x.cells[:, 0] * 0, 1, 10_000)
        x = split(select(x, keep), torch.zeros(10_000, 4, 1))
        full = x._replace(active=torch.randn(len(x.active), channels),
                          passive=torch.randn(len(x.passive), channels))
        module = SemanticFusionModule(channels)

        def infer(module=module, full=full):
            with torch.no_grad():
                module(full)

        def train(module=module, full=full):
            active, passive = full.active.requires_grad_(), full.passive.requires_grad_()
            module(full._replace(active=active, passive=passive)).sum().backward()

        dense = torch.zeros(100, channels, *full.index.shape[1:])

        def infer_dense(module=module, x=dense):
            with torch.no_grad():
                x = F.linear(x.permute(0, 2, 3, 1), module.first.weight, module.first.bias)
                x = x.relu_().permute(0, 3, 1, 2)
                total = 0
                for conv, d in zip(module.convs, (1, 3, 5), strict=True):
                    total += F.conv2d(x, conv.weight.permute(0, 3, 1, 2), conv.bias, padding=d,
                                      dilation=d).relu_()
                module.last(total.permute(0, 2, 3, 1))

        infer()  # what torch keeps for good
        rows.append(dict(
            grid=full.index.shape[1], channels=channels,
            dense=full.index.numel() * channels * 4 / MIB,
            rows=(full.active.numel() + full.passive.numel() + full.index.numel()) * 4 / MIB,
            forward=peak_memory(infer, device) / MIB, training=peak_memory(train, device) / MIB,
            forward_dense=peak_memory(infer_dense, device) / MIB))
    print(json.dumps(rows))


if __name__ == '__main__':
    main()
