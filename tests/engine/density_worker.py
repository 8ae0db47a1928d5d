"""One rank of test_refinement_hook.py, started by torchrun: saves what it told the visualizer."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import torch.distributed as dist
from mmengine.runner import BaseLoop

from mmsparse.registry import HOOKS, VISUALIZERS
from tests.engine.samples import result

SHARES = [[.5, .3], [.1, .5]]  # by rank; three images, the first one twice


def main(out):
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    told = []
    runner = SimpleNamespace(
        iter=7, _train_loop=Mock(spec=BaseLoop), test_dataloader=SimpleNamespace(dataset=range(3)),
        visualizer=SimpleNamespace(
            add_scalars=lambda values, step: told.append((values, step)),
            add_image=lambda name, image, step: told.append((name, image.shape, step))))
    VISUALIZERS.build(dict(type='mmsparse.RefinementVisualizer', name='density'))
    hook = HOOKS.build(dict(type='mmsparse.RefinementVisualizationHook', draw=True, interval=100))
    hook.before_test_epoch(runner)
    for index, share in enumerate(SHARES[rank]):
        hook.after_test_iter(runner, index, {}, [result(share)])
    hook.after_test_epoch(runner, {})
    (Path(out) / f'{rank}.json').write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == '__main__':
    main(*sys.argv[1:])
