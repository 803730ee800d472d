"""One file per family: a table of variants, a block, key rules. Importing this package registers them all."""

import importlib
import pkgutil

import checkpoints
from zoo.registry import check_catalogue

for _family in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_family.name}')
for _name in checkpoints.families():
    check_catalogue(_name)
