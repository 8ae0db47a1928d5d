"""Checkpoints of the frozen segmentor and of the whole model, refused by name when they misfit."""
from __future__ import annotations

from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

AUXILIARY = 'auxiliary_head.'


def load_segmentor(segmentor: nn.Module, checkpoint: str) -> None:
    """Load an mmseg checkpoint into the segmentor, every key and every shape.

    Args:
        segmentor: built without auxiliary heads; their weights in the checkpoint are skipped.
        checkpoint: path or URL.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: keys or shapes differ, the first few of each kind are listed.
    """
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    weights = loaded.get('state_dict', loaded)
    weights = {k: v for k, v in weights.items() if not k.startswith(AUXILIARY)}
    own = segmentor.state_dict()
    problems = {
        'missing': sorted(own.keys() - weights.keys()),
        'unknown': sorted(weights.keys() - own.keys()),
        'of another shape': [k for k in own if k in weights and own[k].shape != weights[k].shape],
    }
    if any(problems.values()):
        listed = '; '.join(f'{len(keys)} {kind} ({", ".join(keys[:3])}{", …" * (len(keys) > 3)})'
                           for kind, keys in problems.items() if keys)
        raise ValueError(f'segmentor_checkpoint {checkpoint} is not one of this segmentor '
                         f'({type(segmentor).__name__}, {type(segmentor.backbone).__name__}), '
                         f'weights are {listed}')
    segmentor.load_state_dict(weights)


def is_refiner(state_dict: dict, prefix: str = '') -> bool:
    """Whether these are weights of a whole model, not of a segmentor alone."""
    return any(k.startswith(f'{prefix}decode_head.extractor.') for k in state_dict)


def refuse_foreign_weights(state_dict: dict, prefix: str, *_) -> None:
    """State-dict hook: a checkpoint without a refiner is not one of this model.

    mmengine loads with ``strict=False`` and would only warn, leaving the refiner untrained.

    Raises:
        ValueError: ``state_dict`` has no weight of the refining head.
    """
    if is_refiner(state_dict, prefix):
        return
    kinds = sorted({k[len(prefix):].split('.')[0] for k in state_dict if k.startswith(prefix)})
    hint = ''
    if 'backbone' in kinds:
        hint = ('; it looks like one of a plain segmentor: to refine that segmentor, name it as '
                'model.segmentor_checkpoint and train')
    raise ValueError('the checkpoint is not one of SparseRefineSegmentor: no weight starts with '
                     f'"{prefix}decode_head.extractor.", only {kinds}{hint}')
