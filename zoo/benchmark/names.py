"""Candidates are named by text, on the command line and in the suites: `na2d(kernel_size=7, bias=True)`."""

import ast
import re
from typing import Any


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
