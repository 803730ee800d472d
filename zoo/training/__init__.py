"""Training and evaluation of image classifiers on mmengine's Runner.

Importing this package puts its data sets, model wrapper, optimisers, loops, hooks and metrics into mmengine's root
registries, where config files find them by class name. Needs the extra `train`.
"""

from zoo.training import arrays, augment, classifier, folders, hooks, log, loops, metrics, optim, preprocessor

__all__ = [
    'arrays',
    'augment',
    'classifier',
    'folders',
    'hooks',
    'log',
    'loops',
    'metrics',
    'optim',
    'preprocessor',
]
