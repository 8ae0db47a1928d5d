"""One rank of tests/test_ddp.py, started by torchrun: saves the gradients DDP gives it."""
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mmsparse.sparse import Selection
from tests.models.effseg import builders, fqdet_builders
from tests.models.tiny import batch, build_refine

SHARES = {'uneven': (0.4, 0.01), 'one empty': (0.3, 0.0), 'all empty': (0.0, 0.0)}


class FixedSelector(torch.nn.Module):
    """Selects given pixels, in place of the model's selector."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, image, logits, valid=None):
        return Selection(self.mask)


def mask_of(case):
    """Pixels of a batch of two, a share of each image: bool [2, 96, 101]."""
    scores = torch.rand(2, 96, 101, generator=torch.Generator().manual_seed(5))
    return scores < torch.tensor(SHARES[case])[:, None, None]


def prepare(mask, norm_training):
    """The model in training, batch norms of the refiner with or without batch statistics."""
    model = build_refine(seed=7).train()
    model.selector = FixedSelector(mask)
    for module in model.decode_head.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.train(norm_training)
    return model


def total(losses):
    return sum(v for k, v in losses.items() if 'loss' in k)


def sparserefine(rank):
    """Gradients by case and by whether batch norm used batch statistics."""
    images = batch(build_refine(), batch_size=2)
    mine = dict(inputs=images['inputs'][rank:rank + 1],
                data_samples=images['data_samples'][rank:rank + 1])
    result = {}
    for case in SHARES:
        for norm_training in (False, True):
            model = prepare(mask_of(case)[rank:rank + 1], norm_training)
            # kept until after backward: its reducer dies with it
            ddp = DistributedDataParallel(model)
            total(ddp(**mine, mode='loss')).backward()
            result[case, norm_training] = {
                n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return result


def detector(rank, model):
    """Gradients of the second step of EffSeg, the second rank without any object."""
    ddp = DistributedDataParallel(model)  # finds no unused parameters: there must be none
    data = model.data_preprocessor(builders.batch(((2,), (0,))[rank]), True)
    for _ in range(2):  # the second step raises if the first left a parameter out
        losses = ddp(data['inputs'], data['data_samples'], mode='loss')
        ddp.zero_grad()
        sum(sum(v) if isinstance(v, list) else v
            for k, v in losses.items() if 'loss' in k).backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def mask_rcnn(rank):
    return detector(rank, builders.thin(builders.HOSTS[0]))


def fqdet(rank):
    # so many queries that some are matched although nothing is learned
    return detector(rank, fqdet_builders.thin('fqdet-effseg_r50_fpn_1x_coco', queries=2000))


def main(out):
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    for job in (sparserefine, mask_rcnn, fqdet):
        torch.save(job(rank), Path(out) / f'{job.__name__}_{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
