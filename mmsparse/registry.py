"""Registries of the scope ``mmsparse``, each a child of mmengine's root of the same name.

``type='mmsparse.X'`` works in any stock mmseg or mmdet config with no ``custom_imports``:
mmengine sees the prefix, imports ``mmsparse.registry`` and looks the name up here. Only then is
the module of that name imported, with what it needs itself: the packages in ``locations`` know
which it is (see :mod:`mmsparse.lazy`), and list all names in ``__all__``. mmengine swallows an
``ImportError`` raised while it imports this file and then reports an unknown name instead, so
nothing here may import a component.
"""

from importlib import import_module

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


class LazyRegistry(Registry):
    """A registry that imports the module of the name asked for, not all modules.

    ``len``, ``repr`` and ``module_dict`` know what is imported so far, as any registry's do;
    ``from mmsparse.models import *`` imports all of a package.
    """

    def get(self, key: str) -> type | None:
        """The class registered as ``X`` or ``mmsparse.X``; otherwise as mmengine's."""
        name = str(key).removeprefix(f'{self.scope}.')
        for location in self._locations:
            package = import_module(location)
            if name in package.__all__:
                getattr(package, name)  # imports its module, which registers it
        return super().get(key)


# A package enters `locations` in the change that creates it: a missing one breaks every look-up.
MODELS = LazyRegistry(
    'model', parent=ROOT_MODELS, scope='mmsparse', locations=['mmsparse.models', 'mmsparse.sparse'])
TASK_UTILS = LazyRegistry(
    'task util', parent=ROOT_TASK_UTILS, scope='mmsparse', locations=['mmsparse.models'])
DATASETS = LazyRegistry(
    'dataset', parent=ROOT_DATASETS, scope='mmsparse', locations=['mmsparse.datasets'])
TRANSFORMS = LazyRegistry(
    'transform', parent=ROOT_TRANSFORMS, scope='mmsparse', locations=['mmsparse.datasets'])
METRICS = LazyRegistry(
    'metric', parent=ROOT_METRICS, scope='mmsparse', locations=['mmsparse.evaluation'])
HOOKS = LazyRegistry('hook', parent=ROOT_HOOKS, scope='mmsparse', locations=['mmsparse.engine'])
OPTIM_WRAPPERS = LazyRegistry(
    'optimizer wrapper', parent=ROOT_OPTIM_WRAPPERS, scope='mmsparse',
    locations=['mmsparse.engine'])
VISUALIZERS = LazyRegistry(
    'visualizer', parent=ROOT_VISUALIZERS, scope='mmsparse', locations=['mmsparse.visualization'])
