"""What each level of a Specialize and Fuse model does on its test images.

Recall and precision of every unity map; the share of active cells (those within no coarser unity
cell) and of pixels taken from each level; IoU of every class by each level on its own, minus that
of the fused result (paper, supplement, Fig. C). Prints a table and writes levels.json, levels.png
and, for the first images, a picture of what every level says (Fig. A) into the folder.

A level on its own looks broken where it was not asked to learn: that is the specialization.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line import add_cfg_options, check_config, find_checkpoint, one_line_errors, stop

if TYPE_CHECKING:  # imported late below, so that -h is fast
    from mmseg.structures import SegDataSample
    from torch import Tensor, nn


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a model with SpecializeFuseHead')
    parser.add_argument('checkpoint', nargs='?',
                        help='left out where the config is mmsparse://NAME of the zoo')
    parser.add_argument('--images', type=int, help='look at the first ones only')
    parser.add_argument('--pictures', type=int, default=4, help='how many to draw')
    parser.add_argument('--out', type=Path, help='folder (default: work_dirs/NAME_OF_CONFIG)')
    parser.add_argument('--device', default='cpu')
    add_cfg_options(parser)
    return parser.parse_args()


def unity_targets(samples: list[SegDataSample], inputs: Tensor, head: nn.Module) -> list[Tensor]:
    """Unity targets ``[B, h, w]`` of the images as the network sees them."""
    import torch.nn.functional as F

    from mmsparse.models.specialize_fuse.targets import pyramid_targets
    from mmsparse.preprocessing import Placement, stack_padded

    labels = []
    for sample in samples:
        label = sample.gt_sem_seg.data[None].float()  # float32 holds labels exactly
        labels.append(F.interpolate(label, size=Placement.of(sample.metainfo, inputs).size,
                                    mode='nearest-exact')[0, 0].to(inputs.device))
    return pyramid_targets(stack_padded(labels, inputs, head.ignore_index), head.strides,
                           head.ignore_index)[1]


def class_strides(head: nn.Module) -> list[int]:
    """Strides of the levels that say classes, coarse to fine."""
    return [s for s in head.strides if f's{s}' in head.sem]


def look(model: nn.Module, data: dict) -> tuple[list[SegDataSample], Tensor, dict[int, float]]:
    """One batch: samples with maps of all levels, counts of unity, shares of active cells.

    A sample gets ``pred_sem_seg`` and, for every stride with class maps, ``classes_s32`` ...,
    ``unity_s32`` ... and ``done_s32`` ..., in the geometry of the original image. Counts are ``[L -
    1, 3]``, those of :func:`~mmsparse.models.specialize_fuse.targets.unity_counts`.
    """
    import torch

    from mmsparse.models.specialize_fuse.cells import done_cells, up
    from mmsparse.models.specialize_fuse.targets import unity_counts
    from mmsparse.preprocessing import placements_of, store_maps

    head = model.decode_head
    data = model.data_preprocessor(data, False)
    inputs, samples = data['inputs'], data['data_samples']
    targets = unity_targets(samples, inputs, head)
    sem, unity = outputs = head(model.extract_feat(inputs))
    metas = [s.metainfo for s in samples]
    scores = head.predict_by_feat(outputs, metas)
    model.postprocess_result(scores, samples)
    positive = [head.fusion.claimed(logits).squeeze(1) for logits in unity]
    sizes = [logits.shape[2:] for logits in sem]
    done = [torch.zeros_like(sem[0][:, 0], dtype=torch.bool)]
    if unity:
        done += done_cells(positive, head.ratios, sizes[1:])
    strides = class_strides(head)
    for i, stride in enumerate(strides):
        maps = dict(classes=sem[i].argmax(1))
        if unity:
            maps |= dict(done=done[i]) | (dict(unity=positive[i]) if i < len(positive) else {})
        store_maps(samples, placements_of(metas, inputs), **{
            f'{name}_s{stride}': up(cells, stride, inputs.shape[2:])
            for name, cells in maps.items()})
    counts = torch.stack([unity_counts(p, t) for p, t in zip(positive, targets, strict=True)]) if (
        unity) else torch.zeros(0, 3)
    return samples, counts, {s: float((~cells).float().mean()) for s, cells in zip(
        strides, done, strict=False)} if unity else {}


def level_maps(sample: SegDataSample) -> list[Any]:
    """What is drawn of one sample, coarse to fine."""
    from mmsparse.visualization import LevelMaps
    from mmsparse.visualization.visualizer import pixels

    strides = sorted((int(k.removeprefix('done_s')) for k in sample.keys()
                      if k.startswith('done_s')), reverse=True)
    return [LevelMaps(s, pixels(sample.get(f'classes_s{s}')),
                      pixels(sample.get(f'unity_s{s}')) if f'unity_s{s}' in sample else None,
                      pixels(sample.get(f'done_s{s}'))) for s in strides]


def plot(gains: dict[str, list[float]], classes: list[str], path: Path) -> None:
    """IoU of levels minus fused by class, cut to -15 ... 1 points as in the paper."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot: the user's backend stays as it is

    canvas = FigureCanvasAgg(Figure(figsize=(2 + len(gains), 1 + .2 * len(classes)),
                                    layout='constrained'))
    axes = canvas.figure.add_subplot()
    drawn = axes.imshow(np.array(list(gains.values())).T, vmin=-15, vmax=1, aspect='auto')
    axes.set_xticks(range(len(gains)), gains)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_title('IoU of a level minus fused, points')
    canvas.figure.colorbar(drawn)
    canvas.figure.savefig(path, dpi=100)


def main() -> None:
    """Look at the images, print, write."""
    args = parse_args()
    check_config(args.config)
    args.checkpoint = find_checkpoint(args.config, args.checkpoint)
    import mmcv
    import torch
    from mmengine.runner import Runner
    from mmseg.evaluation import IoUMetric
    from mmseg.utils import register_all_modules
    from rich.console import Console
    from rich.table import Table

    from mmsparse.engine.config import read_config
    from mmsparse.engine.loading import load_model
    from mmsparse.models.specialize_fuse import SpecializeFuseHead
    from mmsparse.visualization import pyramid_panels

    register_all_modules()
    cfg = read_config(args.config, args.cfg_options)
    with one_line_errors():
        model = load_model(args.config, args.checkpoint, torch.device(args.device),
                           args.cfg_options)
    if not isinstance(model.decode_head, SpecializeFuseHead):
        stop(f'{args.config} has a {type(model.decode_head).__name__}, no SpecializeFuseHead')
    out = args.out or Path('work_dirs', Path(args.config).stem)
    out.mkdir(parents=True, exist_ok=True)
    loader = Runner.build_dataloader(dict(cfg.test_dataloader, num_workers=0,
                                          persistent_workers=False))
    meta, ignore = loader.dataset.metainfo, model.decode_head.ignore_index
    areas: dict[str, Any] = {}
    counts, active, drawn = 0, [], 0
    with torch.no_grad():
        for number, data in enumerate(loader):
            if number == args.images:
                break
            samples, batch_counts, shares = look(model, data)
            counts = counts + batch_counts.cpu()
            active.append(shares)
            for sample in samples:
                label = sample.gt_sem_seg.data.squeeze(0).to(args.device)
                names = {'fused': 'pred_sem_seg'} | {
                    f's{s}': f'classes_s{s}' for s in class_strides(model.decode_head)}
                for name, key in names.items():
                    intersection, union, *_ = IoUMetric.intersect_and_union(
                        sample.get(key).data.squeeze(0), label, len(meta['classes']), ignore)
                    areas[name] = areas.get(name, 0) + torch.stack([intersection, union]).double()
                if drawn < args.pictures and shares:
                    image = mmcv.imread(sample.img_path, flag='color_ignore_orientation')
                    mmcv.imwrite(pyramid_panels(
                        image, level_maps(sample), sample.pred_sem_seg.data[0].cpu().numpy(),
                        label.cpu().numpy(), classes=meta['classes'], palette=meta['palette']),
                        str(out / f'{Path(sample.img_path).stem}_levels.jpg'))
                    drawn += 1
    iou = {name: 100 * a[0] / a[1] for name, a in areas.items()}
    gains = {name: (x - iou['fused']).tolist() for name, x in iou.items() if name != 'fused'}
    table = Table('', *iou, title=f'{Path(args.config).stem}, {len(active)} batches')
    table.add_row('mIoU', *(f'{x.nanmean():.2f}' for x in iou.values()))
    unity = {}
    if len(counts):
        hit, true, claimed = counts.double().T
        for name, values in dict(recall=hit / true, precision=hit / claimed).items():
            unity[name] = (100 * values).tolist()
            table.add_row(f'unity {name} %', '', *(f'{v:.1f}' for v in unity[name]), '')
        unity['active'] = {s: 100 * sum(a[s] for a in active) / len(active) for s in active[0]}
        table.add_row('active cells %', '', *(f'{v:.1f}' for v in unity['active'].values()))
    for c, name in enumerate(meta['classes']):
        table.add_row(name, f'{iou["fused"][c]:.1f}', *(f'{g[c]:+.1f}' for g in gains.values()))
    Console(width=None if Console().is_terminal else 120).print(table)
    (out / 'levels.json').write_text(json.dumps(dict(
        miou={n: float(x.nanmean()) for n, x in iou.items()}, unity=unity,
        iou_fused=iou['fused'].tolist(), iou_minus_fused=gains), indent=2) + '\n')
    plot(gains, meta['classes'], out / 'levels.png')
    print(f'written to {out}: levels.json, levels.png and {drawn} pictures')


if __name__ == '__main__':
    main()
