"""Compares models and operators with reference numbers of the authors' code: one row per case, as it is finished."""

import argparse
import dataclasses
import fnmatch
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import _console

if TYPE_CHECKING:
    from zoo.golden import Row

COLUMNS = (
    '{name:<{width}}  {kind:<9}  {worst:<12.12}  {error:>9}  {tolerance:>9}  {parameters:>11}  {seconds:>7}  {status}'
)
HEADER = ('name', 'kind', 'worst', 'error', 'tolerance', 'parameters', 'seconds', 'status')


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser(
        prog='attnzoo check-golden',
        description=__doc__,
        epilog='Exit status: 0 if all agree, 1 if one disagrees or nothing of ours answers to it, 2 on bad input.',
    )
    parser.add_argument('folders', nargs='+', metavar='DIR', help='folder with references, searched to its ground')
    parser.add_argument('--filter', metavar='GLOB', help='only the cases whose path or last part of it matches')
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write the rows to this file')
    parser.add_argument('--threads', type=int, metavar='N', help='threads of PyTorch on the CPU')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda, ...')
    return parser


def check(args: argparse.Namespace) -> int:
    """Runs the references that `args` chooses; the exit status."""
    import torch

    from zoo import golden

    if args.threads is not None and args.threads < 1:
        raise ValueError(f'--threads is {args.threads}: give at least 1')
    references = golden.find(args.folders)
    if args.filter:
        references = [r for r in references if any(fnmatch.fnmatch(name, args.filter) for name in (r.name, r.title))]
        if not references:
            raise ValueError(f'--filter {args.filter} matches none of the references')
    if args.threads:
        torch.set_num_threads(args.threads)
    # The authors' numbers are float32 throughout.
    torch.backends.cudnn.allow_tf32 = False
    rows = run(references, args.device)
    if args.json:
        write(rows, args.json)
    agreed = sum(row.status == 'agrees' for row in rows)
    print(f'{agreed} of {len(rows)} comparisons agree')
    return 0 if agreed == len(rows) else _console.FAILED


def run(references: Sequence[Any], device: str) -> 'list[Row]':
    """Prints the row of each reference as it is finished, below a progress bar where a terminal shows it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from zoo import golden

    width = max(len(reference.name) for reference in references)
    console = Console(highlight=False, markup=False, emoji=False)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(line: str) -> None:
            progress.console.print(line, soft_wrap=True)

        show(COLUMNS.format(width=width, **{name: name for name in HEADER}))
        task = progress.add_task('', total=len(references))
        for reference in references:
            progress.update(task, description=reference.title)
            for row in golden.run(reference, device):
                rows.append(row)
                show(line_of(row, width))
                if row.note:
                    show(f'    {row.note}')
            progress.advance(task)
    return rows


def line_of(row: 'Row', width: int) -> str:
    """One row of the table."""
    values = dataclasses.asdict(row)
    for name in ('error', 'tolerance'):
        values[name] = '-' if values[name] is None else f'{values[name]:.2e}'
    values['parameters'] = f'{row.parameters:,}' if row.parameters else '-'
    values['seconds'] = f'{row.seconds:.2f}'
    return COLUMNS.format(width=width, **values)


def write(rows: 'Sequence[Row]', path: Path) -> None:
    """The rows as a list of objects, all or nothing; a difference that is no number becomes null."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    content = [{name: finite(value) for name, value in dataclasses.asdict(row).items()} for row in rows]
    unfinished = path.with_name(f'{path.name}.part')
    unfinished.write_text(json.dumps(content, indent=1) + '\n')
    os.replace(unfinished, path)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    return _console.run(build_parser(), check, argv)


if __name__ == '__main__':
    raise SystemExit(main())
