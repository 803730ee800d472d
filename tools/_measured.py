"""Tables of what `attnzoo benchmark` has measured, from the csv files in docs/benchmarks."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from tools._figures import digits
from tools.benchmark import SUITES
from zoo.benchmark.rows import Record, is_compared, read_records
from zoo.benchmark.suites import AUTHORS
from zoo.benchmark.work import FORWARD, MODES

FOLDER = Path(__file__).parents[1] / 'docs' / 'benchmarks'
OURS = 'na2d(kernel_size=7)'
PEERS = {
    '`sdpa`': 'sdpa',
    '`na2d`': OURS,
    'with bias': 'na2d(kernel_size=7, bias=True)',
    'FlexAttention': 'flex(kernel_size=7)',
    'natten': 'natten(kernel_size=7)',
}

MACHINES = ('', 'epyc')
"""Folders with the files of the suites, one for each machine; what is no suite lies in the first."""

Table = tuple[Sequence[str], Iterable[Sequence[object]]]


def records(name: str, folder: str = '') -> list[Record]:
    """The rows of one file."""
    return read_records(FOLDER / folder / f'{name}.csv')


def on_machines(suite: str) -> list[list[Record]]:
    """The rows of a suite on each machine, none where it was not measured."""
    paths = (FOLDER / folder / f'{suite}.csv' for folder in MACHINES)
    return [read_records(path) if path.exists() else [] for path in paths]


def speed() -> Table:
    """Each model of the suite: its time relative to Swin-T, and how many times as fast as the authors' code it is."""
    beside_swin, beside_authors = (
        {(row['candidate'], row['mode']): float(row['ratio']) for row in records(name) if row['ratio']}
        for name in ('models', 'authors')
    )
    rows = []
    for name in AUTHORS:
        cells = [f'{beside_swin[name, mode]:.2f}' for mode in MODES]
        rows.append([f'`{name}`', *cells, *(f'{1 / beside_authors[name, mode]:.2f}' for mode in MODES)])
    return ('model', 'inference', 'training', "times the authors' speed", 'training'), rows


def mixers() -> Table:
    """Milliseconds of the authors' mixers and of ours, and how many times as fast that makes ours, in both modes."""
    found = records('authors')
    seconds = {(row['case'], row['mode'], row['candidate']): row['seconds'] for row in found}
    rows: dict[str, list[str]] = {}
    for row in filter(is_compared, found):
        if row['candidate'] not in AUTHORS:
            theirs = float(seconds[row['case'], row['mode'], row['baseline']])
            size, _, _ = row['case'].partition(': ')
            cells = rows.setdefault(row['case'], [size, f'`{row["candidate"]}`'])
            cells += [digits(theirs, 1e3), digits(float(row['seconds']), 1e3), f'{1 / float(row["ratio"]):.2f}']
    columns = ("authors', ms", 'ours', 'times as fast')
    return ('map', 'mixer', *columns, *(f'training: {columns[0]}', *columns[1:])), rows.values()


def missed() -> Table:
    """The targets that were not reached."""
    rows: list[list[object]] = []
    for row in (row for suite in SUITES for found in on_machines(suite) for row in found):
        for target in filter(None, row['target'].split('; ')):
            column, _, bound = target.partition(' ')
            if column not in row['missed'].split('; '):
                continue
            theirs = '1' if row['suite'] == 'authors' else None
            if row['suite'] == 'models':
                theirs = f'{AUTHORS[row["candidate"]][row["mode"] != FORWARD]:.2f}'
            case = row['case'] if row['suite'] == 'na' else ''
            figure = ', '.join(filter(None, (f'`{row["candidate"]}`', case, row['mode'])))
            measured, floor = (f'{float(row[name]):.3f}' if row[name] else None for name in (column, 'floor_ratio'))
            rows.append([row['suite'], row['machine'], figure, measured, bound, theirs, floor])
    return ('suite', 'machine', 'figure', 'measured', 'target', "authors'", 'time / floor'), rows


def reached() -> Table:
    """How many of its targets each suite reached on each machine."""
    found = {suite: on_machines(suite) for suite in SUITES}
    names = [
        ', '.join(dict.fromkeys(row['machine'] for rows in on_one for row in rows)) for on_one in zip(*found.values())
    ]
    cells = (
        [f'`{suite}`', *(share_of(suite, folder, rows) for folder, rows in zip(MACHINES, measured))]
        for suite, measured in found.items()
        if any(measured)
    )
    return ('suite', *names), cells


def share_of(suite: str, folder: str, found: Sequence[Record]) -> str | None:
    """`48 of 48` with a link to the file, and how it was measured."""
    if not found:
        return None
    aims = [row for row in found if row['target']]
    total = sum(len(row['target'].split('; ')) for row in aims)
    short = sum(len(row['missed'].split('; ')) for row in aims if row['missed'] not in ('', '-'))
    options = re.search(r'--seconds \S+ --rounds \d+ \d+', found[0]['command'])
    link = f'[{total - short} of {total}]({Path(folder, suite).as_posix()}.csv)'
    return f'{link}, `{options[0]}`' if options else link


def ratios(name: str) -> Table:
    """Images a second and the time relative to the first candidate, in each mode of one file."""
    found = [row for row in records(name) if row['seconds']]
    modes = list(dict.fromkeys(row['mode'] for row in found))
    rows: dict[str, list[str]] = defaultdict(list)
    for row in found:
        rows[row['candidate']].append(f'{digits(float(row["per_second"]))}, {float(row["ratio"]):.2f}')
    return ('model', *modes), [[f'`{candidate}`', *cells] for candidate, cells in rows.items()]


def sizes() -> Table:
    """Images a second and the time relative to Swin-T over the sides of images, with the exponent in pixels."""
    found = records('sizes')
    sides = sorted({int(row['height']) for row in found if row['height']})
    rows = []
    for name in dict.fromkeys(row['candidate'] for row in found):
        timed = {int(row['height']): row for row in found if row['candidate'] == name and row['height']}
        cells = [f'{digits(float(timed[side]["per_second"]))}, {float(timed[side]["ratio"]):.2f}' for side in sides]
        (exponent,) = (row['value'] for row in found if row['candidate'] == name and row['value'])
        rows.append([f'`{name}`', *cells, f'{float(exponent):.2f}'])
    return ('model', *map(str, sides), 'exponent'), rows


def peers() -> Table:
    """Milliseconds of neighborhood attention by others, and how many times those of `na2d`."""
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    for row in records('peers'):
        seconds[row['case']][row['candidate']] = float(row['seconds'])
    rows = []
    for case, timed in seconds.items():
        cells = [digits(timed[name], 1e3) for name in PEERS.values()]
        for i, name in enumerate(PEERS.values()):
            if name.startswith(('flex', 'natten')):
                cells[i] += f', {timed[name] / timed[OURS]:.1f}'
        rows.append([case, *cells])
    return ('map', *PEERS), rows


TABLES: dict[str, Callable[[], Table]] = {
    'speed': speed,
    'missed': missed,
    'reached': reached,
    'sizes': sizes,
    'peers': peers,
    'mixers': mixers,
    'bfloat16': partial(ratios, 'bfloat16'),
    'compiled': partial(ratios, 'compiled'),
}
"""By the name of their marker."""
