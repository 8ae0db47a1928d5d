"""One rank of tests/test_ddp.py: EffSeg on Mask R-CNN, the second rank without any object."""
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tests.models.effseg.builders import HOSTS, batch, thin


def main(out):
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    model = thin(HOSTS[0])
    ddp = DistributedDataParallel(model)  # finds no unused parameters: there must be none
    data = model.data_preprocessor(batch(((2,), (0,))[rank]), True)
    for _ in range(2):  # the second step raises if the first left a parameter out
        losses = ddp(data['inputs'], data['data_samples'], mode='loss')
        ddp.zero_grad()
        sum(sum(v) if isinstance(v, list) else v
            for k, v in losses.items() if 'loss' in k).backward()
    torch.save({n: p.grad for n, p in model.named_parameters() if p.requires_grad},
               out / f'{rank}.pt')
    dist.destroy_process_group()


if __name__ == '__main__':
    main(Path(sys.argv[1]))
