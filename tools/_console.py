"""What the command-line tools share: one error line instead of a traceback, model names, tables and numbers."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

FAILED = 1  # the work was done and its result is bad: parity broken, a table out of date
REFUSED = 2  # the work could not be done as asked: unknown model, missing file, damaged checkpoint

Action = Callable[[argparse.Namespace], int | None]


def run(parser: argparse.ArgumentParser, action: Action, argv: Sequence[str] | None) -> int:
    """Parses `argv`, runs `action` and returns the exit status; an expected error is one line on stderr.

    Expected are ValueError (checkpoints.CheckpointError is one), OSError and ImportError (an extra is not installed).
    Anything else is a fault of ours and keeps its traceback, as every error does with `--debug`.
    """
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error')
    args = parser.parse_args(argv)
    try:
        return action(args) or 0
    except BrokenPipeError:  # the reader of a pipe (`| head`) is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        if args.debug:
            raise
        print(f'attnzoo: error: {error}', file=sys.stderr)
        return REFUSED


def known_model(name: str) -> str:
    """The name itself when timm or this project has such a model, with or without a weight tag.

    Raises:
        ValueError: unknown model or tag; names the nearest ones.
    """
    import timm

    import zoo

    if name.startswith(('hf-hub:', 'hf_hub:', 'local-dir:')):
        return name
    architecture, _, tag = name.partition('.')
    if not timm.is_model(architecture):
        near = nearest(architecture, {*zoo.list_models(), *timm.list_models()})
        raise ValueError(f'unknown model {name!r}{did_you_mean(near)}; `attnzoo list` names the models of the zoo')
    tagged = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and name not in tagged:
        raise ValueError(f'{architecture} has no weights {tag!r}; known are: {", ".join(tagged) or "none"}')
    return name


def image_size(pixels: Sequence[int] | None) -> tuple[int, int] | None:
    """``[224]`` -> ``(224, 224)``, ``[480, 640]`` -> ``(480, 640)`` (H, W); None stays None.

    Raises:
        ValueError: not one or two positive numbers.
    """
    if pixels is None:
        return None
    if len(pixels) not in (1, 2) or min(pixels) < 1:
        raise ValueError(f'--img-size takes one or two positive numbers of pixels, got {" ".join(map(str, pixels))}')
    return pixels[0], pixels[-1]


def nearest(word: str, words: Iterable[str]) -> list[str]:
    """At most three of `words`, the most similar first."""
    return difflib.get_close_matches(word, list(words), n=3, cutoff=0.6)


def did_you_mean(names: Sequence[str]) -> str:
    """``['a', 'b']`` -> ``', did you mean a or b?'``; nothing for no names."""
    return f', did you mean {" or ".join(names)}?' if names else ''


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Prints one table; numbers are right-aligned, None is a dash, and a pipe gets lines of any length."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [tuple(row) for row in rows]
    table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = any(is_number(row[index]) for row in rows)
        table.add_column(column, justify='right' if numeric else 'left', overflow='fold')
    for row in rows:
        table.add_row(*('-' if cell is None else str(cell) for cell in row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 10_000
    console.print(table)


def is_number(cell: Any) -> bool:
    """Whether a table cell holds a number, as such or as text."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def millions(count: float) -> str:
    """``19984174`` -> ``'20.0'``: three digits, for parameters."""
    return scaled(count / 1e6)


def billions(count: float) -> str:
    """``2741000000`` -> ``'2.74'``: three digits, for multiply-adds."""
    return scaled(count / 1e9)


def scaled(value: float) -> str:
    """Three significant digits without an exponent, at most two decimals."""
    return f'{value:.2f}' if value < 10 else f'{value:.1f}' if value < 100 else f'{value:.0f}'
