"""One file per family: a table of variants, a block, key rules. Importing this package registers them all."""

import importlib
import pkgutil

for _family in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{_family.name}')
