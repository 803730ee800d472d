"""Candidates are named by text, on the command line and in the suites: `na2d(kernel_size=7, bias=True)`."""

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AUTHORS = 'authors:'
OURS = ('ops', 'zoo', 'checkpoints', 'configs', 'tools')


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """``'na2d(kernel_size=7)'`` -> ``('na2d', {'kernel_size': 7})``; without parentheses no options.

    Raises:
        ValueError: not a name with options that are Python literals.
    """
    wanted = f'a candidate is NAME or NAME(option=value, ...), got {text!r}'
    found = re.fullmatch(r'([^()]+)(\(.*\))?', text.strip())
    if found is None:
        raise ValueError(wanted)
    try:
        call = ast.parse(f'f{found[2] or "()"}', mode='eval').body
        assert isinstance(call, ast.Call)
        assert not call.args
        options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        assert len(options) == len(call.keywords)
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ValueError(wanted) from error
    return found[1].strip(), options


def import_authors(name: str) -> Any:
    """What `authors:FOLDER:MODULE:NAME` names: an object of the authors' code in a checkout at FOLDER.

    Their packages may be called as ours, `ops` say: ours are out of sight during the import.

    Raises:
        ValueError: the name has another form, or there is no such folder, module or object.
    """
    parts = name.removeprefix(AUTHORS).rsplit(':', 2)
    if len(parts) != 3:
        raise ValueError(f"{AUTHORS}FOLDER:MODULE:NAME names a class or function of the authors' code, got {name!r}")
    folder = Path(parts[0]).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f'{name}: there is no folder {folder}')
    with only_from(folder):
        try:
            return getattr(importlib.import_module(parts[1]), parts[2])
        except (ImportError, AttributeError) as error:
            raise ValueError(f'{name}: {error}') from error


@contextmanager
def only_from(folder: Path) -> Iterator[None]:
    """Imports search `folder` first and do not find the packages of this project that are loaded already."""

    def of_ours() -> dict[str, Any]:
        return {name: module for name, module in sys.modules.items() if name.partition('.')[0] in OURS}

    hidden = of_ours()
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in of_ours():
            del sys.modules[name]
        sys.modules.update(hidden)
