"""Two processes (gloo, CPU) share what predict, refine and calibrate do: as one process does it."""
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import torch

from mmsparse.engine.loading import load_model
from mmsparse.masks import read_mask, write_mask
from tests.configs import config
from tests.engine.videos import video
from tests.models.tiny import refine_cfg, refined_cfg, segmentor_cfg


def run(root, cwd, tool, *line, processes=1, **variables):
    """Run a tool in this many processes; one is not told of others."""
    start, launcher = [], []
    if processes > 1:
        start = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        launcher = ['--launcher', 'pytorch']
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', **variables)
    return subprocess.run(
        [sys.executable, '-W', 'ignore', *start, str(root / 'tools' / f'{tool}.py'),
         *map(str, line), *launcher], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def written(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob('*')
            if p.is_file()}


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def test_predict(root, tmp_path):
    """Three pictures, one of them broken, and three frames: two and three for each process."""
    names = dict(metainfo=dict(classes=tuple('abcde')))
    config(model=segmentor_cfg(), **names).dump(tmp_path / 'c.py')
    model = load_model(tmp_path / 'c.py', None, 'cpu')
    model.decode_head.conv_seg.weight.data.mul_(400)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
    g = np.random.default_rng(0)
    for name in ('a.png', 'sub/d.png'):
        save(tmp_path / 'in' / name, g.integers(0, 256, (40, 56, 3), dtype=np.uint8))
    (tmp_path / 'in/b.png').write_bytes(b'')  # of the second process
    video(tmp_path / 'in/c.avi', count=3)
    line = ['c.py', 'w.pth', 'in', '--out-format', 'labels', 'coco', '--device', 'cpu', '--out']
    done = {count: run(root, tmp_path, 'predict', *line, f'out{count}', processes=count)
            for count in (1, 2)}
    for result in done.values():
        assert result.returncode == 1, result.stderr[-3000:]
        assert 'pictures labeled: 5;' in result.stdout
        assert result.stderr.count('predict.py: pictures that failed: 1') == 1
        assert 'in/b.png is no image' in result.stderr
    assert written(tmp_path / 'out1') == written(tmp_path / 'out2')
    assert len(written(tmp_path / 'out1')) == 2 * 5 + 1


def test_refine(root, tmp_path):
    """Three masks, one of which does not fit its image."""
    config(model=refined_cfg()['refiner']).dump(tmp_path / 'c.py')
    torch.save(dict(state_dict=load_model(tmp_path / 'c.py', None, 'cpu').state_dict()),
               tmp_path / 'w.pth')
    g = np.random.default_rng(0)
    for name in 'abc':
        save(tmp_path / f'images/{name}.png', g.integers(0, 256, (60, 70, 3), dtype=np.uint8))
        mask = np.zeros((60, 70) if name != 'b' else (50, 50), np.float32)
        mask[20:40, 10:50] = 1
        write_mask(tmp_path / f'masks/{name}.png', mask)
    line = ['images', 'masks', '--config', 'c.py', '--checkpoint', 'w.pth', '--soft', '--format',
            'npy', '--device', 'cpu', '--out']
    for count in (1, 2):
        result = run(root, tmp_path, 'refine', *line, f'out{count}', processes=count)
        assert result.returncode == 1, result.stderr[-3000:]
        assert result.stderr.count('refine.py: 1 of 3 masks are not refined') == 1
        assert 'masks/b.png: the image has [60, 70] pixels, the mask [50, 50]' in result.stderr
    assert written(tmp_path / 'out1') == written(tmp_path / 'out2')
    assert sorted(written(tmp_path / 'out1')) == ['a.npy', 'c.npy']
    assert read_mask(tmp_path / 'out1/a.npy').std() > 0


def test_calibrate(root, tmp_path):
    """Three images: the curve, and with it the threshold, is that of all of them."""
    g = np.random.default_rng(0)
    for name in 'abc':
        coarse = g.integers(0, 256, (12, 12, 3)).astype(np.float32)
        save(tmp_path / f'img/{name}.png', cv2.resize(coarse, (128, 96)).astype(np.uint8))
        save(tmp_path / f'ann/{name}.png', g.integers(0, 5, (96, 128), dtype=np.uint8))
    cfg = config(
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs'),
        model=refine_cfg(), dataset='BaseSegDataset', data_root=str(tmp_path),
        data_prefix=dict(img_path='img', seg_map_path='ann'), img_suffix='.png',
        metainfo=dict(classes=tuple('abcde')))
    cfg.val_dataloader = cfg.train_dataloader = dict(num_workers=0, **cfg.test_dataloader)
    cfg.dump(tmp_path / 'c.py')
    model = load_model(tmp_path / 'c.py', None, 'cpu').segmentor
    model.decode_head.conv_seg.weight.data.mul_(400)  # scores differ from pixel to pixel
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'w.pth')
    for count in (1, 2):
        result = run(root, tmp_path, 'calibrate', 'c.py', 'w.pth', '--density', '0.3',
                     '--device', 'cpu', '--out', f'{count}.json', processes=count)
        assert result.returncode == 0, result.stderr[-3000:]
        assert '3 val images' in ' '.join(result.stdout.split())
    one, two = (json.loads((tmp_path / f'{count}.json').read_text()) for count in (1, 2))
    assert one == two and one['calibration']['images'] == 3
    assert 0 < one['calibration']['density'] <= 0.3 and one['calibration']['recall'] > 0


def test_slurm_without_a_gpu(root, tmp_path):
    """As srun starts them: two tasks that know of each other by slurm's variables."""
    code = ('import sys, argparse; sys.path.insert(0, sys.argv[1]); import command_line\n'
            'command_line.join_processes(argparse.Namespace(launcher="slurm", local_rank=0))\n'
            'from mmengine import dist\n'
            'found = dist.all_gather_object(dist.get_rank())\n'
            'print(found); command_line.leave(failed=dist.get_rank() == 1)')
    tasks = [subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-c', code, str(root / 'tools')], cwd=tmp_path,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES='', SLURM_PROCID=str(rank), SLURM_NTASKS='2',
                 SLURM_NODELIST='here', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(
                     20000 + os.getpid() % 10000)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in range(2)]
    ends = [task.communicate(timeout=300) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 1], ends
    assert [out.strip() for out, _ in ends] == ['[0, 1]'] * 2
