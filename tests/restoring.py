"""What a test, or a tool in its process, changes for the whole process, put back."""
import os
from contextlib import contextmanager
from unittest import mock

import torch


@contextmanager
def loading_restored():
    """What was set for loading checkpoints, variables included, ends with the block."""
    from mmengine.runner.checkpoint import CheckpointLoader

    kinds, schemes = torch.serialization.get_safe_globals(), CheckpointLoader._schemes.copy()
    try:
        with mock.patch.dict(os.environ):
            yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(kinds)
        CheckpointLoader._schemes = schemes
