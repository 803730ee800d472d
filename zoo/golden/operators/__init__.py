"""Which operator of ours answers to which reference: one file per kind, each with a table `OPERATORS`.

A table leads from a shell pattern of the case's own name to its comparisons: a `ModuleOperator`, or a function that
gives one job per backend.
"""

import fnmatch
import importlib
import pkgutil
from collections.abc import Callable

import torch

from zoo.golden.reference import Jobs, Reference, Unmapped

_modules = [importlib.import_module(f'{__name__}.{info.name}') for info in pkgutil.iter_modules(__path__)]
OPERATORS: dict[str, Callable[[Reference, torch.device], Jobs]] = {
    pattern: make for module in _modules for pattern, make in module.OPERATORS.items()
}


def jobs(reference: Reference, device: torch.device) -> Jobs:
    """The comparisons of an operator.

    Raises:
        Unmapped: nothing describes the case, or no operator of ours answers to it.
    """
    if not reference.config:
        raise Unmapped('no json beside it and no index of its folder describes this case')
    title = reference.config.get('op', reference.title)
    for pattern, make in OPERATORS.items():
        if fnmatch.fnmatch(title, pattern):
            return make(reference, device)
    raise Unmapped(f'no table OPERATORS in zoo/golden/operators matches {title}')
