"""Times models or operators side by side, or runs a suite and says what is reached: `attnzoo benchmark --suite na`.

All candidates of a case take turns in one process; reported are medians with quartiles, the time relative to the
baseline round by round, peak memory, and the time over the floor of the machine.
"""

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools import _console

if TYPE_CHECKING:
    from zoo.benchmark.case import Case
    from zoo.benchmark.rows import Record, Row, Table
    from zoo.benchmark.timing import Rounds
    from zoo.benchmark.work import Setting

SUITES = ('na', 'models', 'authors', 'timm', 'routing', 'hilo', 'agent', 'startup', 'growth', 'choice', 'gpu')
DTYPES = ('float32', 'bfloat16', 'float16')
MODES = ('forward', 'forward+backward')
NAT_MAPS = ('56x56x2', '28x28x4', '14x14x8', '7x7x16')  # of NAT's four stages at 224 pixels


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the tool."""
    parser = argparse.ArgumentParser(
        prog='attnzoo benchmark',
        description='Time candidates in turns in one process: models, operators, or a suite with its targets.',
        epilog="a candidate is NAME or 'NAME(option=value, ...)'; docs/benchmarks/README.md names them",
    )
    add = parser.add_argument
    add('kind', nargs='?', choices=('model', 'op'), help='what the names are')
    add('names', nargs='*', metavar='NAME', help='candidates; the first model is the baseline, for operators sdpa')
    add('--suite', choices=SUITES, help='instead: the comparisons and targets of this project')
    add('--with', nargs='+', default=[], metavar='NAME', dest='more', help='candidates in every case')
    add('--maps', nargs='+', default=NAT_MAPS, metavar='HxWxN', help=f'N heads ({" ".join(NAT_MAPS)})')
    add('--img-size', type=int, nargs='+', metavar='N', help="pixels per side (the first model's own)")
    add('--batch-size', type=int, default=4, metavar='B', help='images or maps per call (4)')
    add('--mode', choices=(*MODES, 'both'), default='both', help='backward: with forward')
    add('--dtype', choices=DTYPES, default='float32', help='of parameters and inputs (float32)')
    add('--device', default='cpu', help='cpu or cuda (cpu)')
    add('--threads', type=int, metavar='N', help="of the CPU (torch's choice)")
    add('--compile', action='store_true', help='run everything through torch.compile')
    add('--rounds', type=int, nargs=2, default=(7, 60), metavar=('MIN', 'MAX'), help='of a case (7 60)')
    add('--precision', type=float, default=0.01, metavar='R', help='stop when the ratios are known to R (0.01)')
    add('--seconds', type=float, default=60, metavar='S', help='or after S seconds of a case (60)')
    add('--sample-seconds', type=float, default=0.1, metavar='S', help='length of one sample (0.1)')
    add('--csv', type=Path, metavar='FILE', help='write a row per case and candidate')
    add('--resume', action='store_true', help='keep what is in the file and measure the rest')
    add('--plots', type=Path, metavar='FOLDER', help='draw what was measured')
    return parser


def benchmark(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Measures every case, prints a table for each, writes its rows, and says at the end which targets are reached."""
    import torch

    from tools import _figures
    from zoo.benchmark.machine import origin
    from zoo.benchmark.rows import Table
    from zoo.benchmark.timing import Rounds
    from zoo.benchmark.work import Setting
    from zoo.kept_memory import keep_freed_memory

    if args.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1, got {args.batch_size}')
    if (args.kind is None) == (args.suite is None) or bool(args.names) != bool(args.kind):
        raise ValueError('name a --suite, or what to time: model NAME... or op NAME...')
    if args.resume and not args.csv:
        raise ValueError('--resume needs the --csv FILE to go on with')
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    setting = Setting(args.device, args.dtype, args.compile)
    rounds = Rounds(args.rounds[0], args.rounds[1], args.precision, args.seconds, args.sample_seconds)
    table = Table(args.csv, args.resume)
    source = origin(setting.torch_device, shlex.join(['attnzoo', 'benchmark', *argv]))
    if args.suite == 'startup':
        from zoo.benchmark.startup import startup

        results: Iterable[list[Row]] = startup(rounds)
    else:
        results = measured(cases(args, setting), rounds, table)
    for rows in results:
        _figures.print_rows(rows)
        sys.stdout.flush()  # a run is long, and its output often a pipe
        table.add(rows, source)
    if summary := summed_up(args, table.records, setting):
        table.add(summary, source)
    _figures.print_targets(table.records)
    if args.csv:
        print(f'{len(table.records)} rows in {args.csv}')
    if args.plots:
        from zoo.benchmark.plots import draw_all

        for path in draw_all(table.records, args.plots):
            print(path)


def cases(args: argparse.Namespace, setting: 'Setting') -> 'Iterable[Case]':
    """What was asked for."""
    from zoo.benchmark import choice, suites
    from zoo.benchmark.models import own_side
    from zoo.benchmark.run import cases_of
    from zoo.benchmark.suites import Comparison

    modes = MODES if args.mode == 'both' else (args.mode,)
    if args.suite == 'choice':
        return choice.choices(setting, modes)
    if args.suite == 'growth':
        comparisons = [Comparison(size, 1, suites.LINEAR) for size in suites.GROWTH_MAPS]
    elif args.suite:
        comparisons = suites.SUITES[args.suite]
    elif args.kind == 'op':
        names = tuple(dict.fromkeys(('sdpa', *args.names)))
        comparisons = [Comparison(size, args.batch_size, names) for size in args.maps]
    else:
        for name in args.names:
            if not name.startswith('authors:'):
                _console.known_model(name.removeprefix('timm:').partition('(')[0])
        sides = args.img_size or [own_side(args.names[0])]
        comparisons = [Comparison(side, args.batch_size, tuple(args.names)) for side in sides]
    return cases_of(args.suite or args.kind, comparisons, setting, modes, args.more)


def measured(cases: 'Iterable[Case]', rounds: 'Rounds', table: 'Table') -> 'Iterable[list[Row]]':
    """The rows of each case that is not in the table yet."""
    import torch

    from zoo.benchmark.case import measure

    for case in cases:
        if not all(table.has(row, torch.get_num_threads()) for row in case.rows().values()):
            yield measure(case, rounds)


def summed_up(args: argparse.Namespace, records: 'Sequence[Record]', setting: 'Setting') -> 'list[Row]':
    """What only many cases together tell."""
    from zoo.benchmark import choice, run, suites

    if args.suite == 'choice':
        return choice.share_of_right(records)
    if args.suite == 'authors':
        return run.faster_than_authors(records, setting)
    return run.growth(records, args.suite or args.kind, suites.GROWTH_BOUND if args.suite == 'growth' else None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    return _console.run(build_parser(), lambda args: benchmark(args, arguments), arguments)


if __name__ == '__main__':
    raise SystemExit(main())
