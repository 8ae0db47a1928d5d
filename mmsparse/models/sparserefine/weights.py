"""Checkpoints of other models, refused by name."""
from __future__ import annotations

from typing import Any

from mmsparse.checkpoint import CheckpointError


def is_refiner(state_dict: dict[str, Any], prefix: str = '') -> bool:
    """Whether these are weights of a whole model, not of a segmentor alone."""
    return any(k.startswith(f'{prefix}decode_head.extractor.') for k in state_dict)


def refuse_foreign_weights(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """State-dict hook: a checkpoint without a refiner is not one of this model.

    mmengine loads with ``strict=False`` and would only warn, leaving the refiner untrained.

    Raises:
        CheckpointError: ``state_dict`` has no weight of the refining head.
    """
    if is_refiner(state_dict, prefix):
        return
    parts = sorted({k[len(prefix):].split('.')[0] for k in state_dict if k.startswith(prefix)})
    hint = ''
    if 'backbone' in parts:
        hint = ('; it looks like one of a plain segmentor: to refine that segmentor, name it as '
                'model.segmentor_checkpoint and train')
    raise CheckpointError('the checkpoint is not one of SparseRefineSegmentor: no weight starts '
                          f'with "{prefix}decode_head.extractor.", only {parts}{hint}')
