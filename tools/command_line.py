"""What the tools share: common arguments, and the config and the checkpoint that they name.

Nothing heavy is imported at the top: ``mim train`` runs ``train.py -h`` before each training.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmengine.config import Config, ConfigDict
    from mmengine.runner import Runner

ZOO = 'mmsparse://'
CHECKPOINT = re.compile(r'(?i)\.(pth|pt|ckpt|bin)$|://')
PATIENCE = 7 * 24 * 3600  # seconds for which processes wait for each other


def stop(message: str) -> None:
    """End with one line on stderr and exit code 1."""
    sys.exit(f'{Path(sys.argv[0]).name}: {message}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that training and testing share, named as in mmseg's and mmdet's tools."""
    parser.add_argument('config', help='a config file, or mmsparse://NAME of the zoo')
    parser.add_argument('--work-dir', help='where logs and checkpoints go '
                                           '(default: work_dirs/NAME_OF_CONFIG)')
    add_cfg_options(parser)
    add_launcher_option(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Settings of the command line, read as in mmseg's and mmdet's tools."""
    from mmengine.config import DictAction

    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings that override those of the config; lists as key="[a,b]"')


def add_launcher_option(parser: argparse.ArgumentParser) -> None:
    """How the processes of a distributed run are started, named as in mmseg's and mmdet's tools."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed run are started')
    # torch.distributed.launch passes one spelling or the other, depending on its version.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)


def join_processes(args: argparse.Namespace) -> None:
    """Make this process one of those of ``--launcher``, each with its own GPU if there are any.

    What they tell each other is small and travels over gloo. They wait for each other for days:
    shares are not equally hard.
    """
    import torch
    from mmengine.device import get_device
    from mmengine.dist import init_dist

    if args.launcher == 'none':
        return
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if get_device() != 'cpu':
        init_dist(args.launcher, backend='gloo', timeout=PATIENCE)
        return
    # mmengine's function calls torch.cuda.set_device, whatever the backend
    names = dict(slurm=('SLURM_PROCID', 'SLURM_NTASKS'),
                 mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'))
    for ours, theirs in zip(('RANK', 'WORLD_SIZE'), names.get(args.launcher, ()), strict=False):
        os.environ[ours] = os.environ[theirs]
    if args.launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        hosts = subprocess.run(['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']],
                               check=True, capture_output=True, text=True)
        os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=PATIENCE))


def leave(failed: bool = False) -> None:
    """End together with all processes, with exit code 1 if something failed in any of them.

    torchrun ends the others as soon as one has failed, even while they still say what was wrong.
    """
    from mmengine import dist

    dist.barrier()
    if dist.is_distributed():
        import torch
        torch.distributed.destroy_process_group()
    if failed:
        sys.exit(1)


def load_config(args: argparse.Namespace) -> Config:
    """The config with the command line merged in.

    ``--cfg-options`` comes first, then the launcher, then the work folder: the command line, else
    the config, else ``work_dirs/NAME_OF_CONFIG``.
    """
    check_config(args.config)
    from mmsparse.engine.config import read_config

    load_as_data()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


def load_as_data() -> None:
    """Have whatever this process loads read as data, mmengine's checkpoints and URLs included.

    The two variables are torch's; ``TORCH_FORCE_WEIGHTS_ONLY_LOAD=0`` leaves the choice to each
    call, as it is outside these tools.
    """
    from mmsparse.checkpoint import allow_mmengine

    os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
    os.environ.setdefault('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    allow_mmengine()


def parse_inputs(parser: argparse.ArgumentParser, kinds: str) -> argparse.Namespace:
    """The command line of a tool with the positionals ``CONFIG [CHECKPOINT] INPUT...``.

    Args:
        parser: its ``inputs`` takes the checkpoint too, which is told by its name.
        kinds: what an input may be, for the error.
    """
    args = parser.parse_intermixed_args()  # options may stand between the positionals
    args.checkpoint = args.inputs.pop(0) if CHECKPOINT.search(args.inputs[0]) else None
    if not args.inputs:
        parser.error(f'name an INPUT after the checkpoint: {kinds}')
    return args


def add_backend_options(parser: argparse.ArgumentParser) -> None:
    """How a tool computes: arguments of :func:`mmsparse.engine.fusion.fuse_for_inference`."""
    parser.add_argument('--backend', choices=('torch', 'openvino'), default='torch',
                        help='what computes the dense networks, the low-resolution pass for one; '
                             'openvino is for CPUs')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32',
                        help='what is computed in: bfloat16 for CPUs that can')


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Stop where a checkpoint cannot be used."""
    from mmsparse.checkpoint import CheckpointError

    try:
        yield
    except CheckpointError as error:
        stop(str(error))


def build_runner(cfg: Config, strict: bool) -> Runner:
    """mmengine's runner, which loads as :class:`mmsparse.engine.loading_hook.LoadingHook` says.

    mmengine starts several processes on accelerators alone; here they also start on a CPU.
    """
    import torch
    from mmengine.device import get_device
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from mmsparse.engine.loading_hook import LoadingHook

    if cfg.launcher == 'pytorch' and get_device() == 'cpu':
        torch.distributed.init_process_group('gloo')
        if cfg.get('model_wrapper_cfg') is None:
            cfg.model_wrapper_cfg = dict(
                type='MMDistributedDataParallel', broadcast_buffers=False,
                find_unused_parameters=cfg.get('find_unused_parameters', False))
        cfg.model_wrapper_cfg.device_ids = None
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(LoadingHook(cfg.get('load_from') or 'the latest checkpoint', strict))
    return runner


def check_config(config: str) -> None:
    """Stop where a config file is missing; ``package::name`` is looked up when it is read."""
    if config.startswith(ZOO):
        check_name(config)
    elif '::' not in config and not Path(config).is_file():
        stop(f'config {config} does not exist')


def check_checkpoint(path: str) -> None:
    """Stop where a local checkpoint is missing, before a model is built for it."""
    if path.startswith(ZOO):
        check_name(path)
    elif '://' not in path and not Path(path).expanduser().is_file():
        stop(f'checkpoint {path} does not exist')


def check_name(address: str) -> None:
    """Stop where the zoo has no such ``mmsparse://NAME``."""
    from mmsparse import zoo

    try:
        zoo.find(address)
    except FileNotFoundError as error:
        stop(str(error))


def names_weights(model: ConfigDict) -> bool:
    """Whether a model's config names weights of all its parts, as those of CRM's wrappers may."""
    return bool(model.get('refiner_checkpoint') and (
        model.get('segmentor_checkpoint') or model.get('detector_checkpoint')))


def find_checkpoint(config: str, checkpoint: str | None, required: bool = True,
                    cfg_options: dict | None = None) -> str | None:
    """The checkpoint, which exists; where none is given, that of a config ``mmsparse://NAME``.

    ``None`` if the config names weights of all its parts itself, or none is required.

    Raises:
        FileNotFoundError, ValueError: as :func:`mmsparse.engine.config.read_config`.
    """
    from mmsparse import zoo

    checkpoint = zoo.checkpoint_of(config, checkpoint)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    elif required:
        from mmsparse.engine.config import read_config

        if not names_weights(read_config(config, cfg_options).model):
            stop(f'{config} needs a checkpoint')
    return checkpoint
