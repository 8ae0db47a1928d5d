"""Registries of the scope ``mmsparse``, each a child of mmengine's root of the same name.

``type='mmsparse.X'`` works in any stock mmseg or mmdet config with no ``custom_imports``:
mmengine sees the prefix, imports ``mmsparse.registry`` and looks the name up here; the
``locations`` are imported at the first look-up. mmengine swallows an ``ImportError`` raised
while it imports this file and then reports an unknown name instead, so nothing here may
import a component.
"""

from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import METRICS as ROOT_METRICS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import OPTIM_WRAPPERS as ROOT_OPTIM_WRAPPERS
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import VISUALIZERS as ROOT_VISUALIZERS
from mmengine.registry import Registry

from mmsparse.compat import installed_stack

installed_stack()  # its error is no ImportError, so mmengine lets it through

# A package enters `locations` in the change that creates it: a missing one breaks every look-up.
MODELS = Registry('model', parent=ROOT_MODELS, scope='mmsparse', locations=['mmsparse.models'])
TASK_UTILS = Registry(
    'task util', parent=ROOT_TASK_UTILS, scope='mmsparse', locations=['mmsparse.models'])
DATASETS = Registry(
    'dataset', parent=ROOT_DATASETS, scope='mmsparse', locations=['mmsparse.datasets'])
TRANSFORMS = Registry(
    'transform', parent=ROOT_TRANSFORMS, scope='mmsparse', locations=['mmsparse.datasets'])
METRICS = Registry(
    'metric', parent=ROOT_METRICS, scope='mmsparse', locations=['mmsparse.evaluation'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mmsparse', locations=['mmsparse.engine'])
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=ROOT_OPTIM_WRAPPERS, scope='mmsparse',
    locations=['mmsparse.engine'])
VISUALIZERS = Registry(
    'visualizer', parent=ROOT_VISUALIZERS, scope='mmsparse', locations=['mmsparse.visualization'])
