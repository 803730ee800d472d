"""How the benchmark shows its rows: a table per case, and the targets at the end."""

from collections.abc import Sequence

from tools import _console
from zoo.benchmark.rows import Record, Row


def print_rows(rows: Sequence[Row]) -> None:
    """The table of one case; each spread is from the first to the third quartile."""
    first = rows[0]
    form = ', '.join(filter(None, (first.mode, first.dtype, f'on {first.device}', 'compiled' * first.compiled)))
    print(f'\n{first.case}, {form}')
    time = f'time / {short(first.baseline)}'
    columns = ('candidate', 'ms', 'quartiles', 'per second', time, 'quartiles', 'peak MiB', 'time / floor')
    lines = [
        (
            short(row.candidate) if row.baseline == first.baseline else f'{row.candidate} / {row.baseline}',
            digits(row.seconds, 1e3),
            f'{digits(row.seconds_low, 1e3)} - {digits(row.seconds_high, 1e3)}',
            digits(row.per_second or None),
            digits(row.ratio),
            f'{digits(row.ratio_low)} - {digits(row.ratio_high)}',
            digits(row.peak_bytes, 2**-20),
            digits(row.floor_ratio),
        )
        for row in rows
        if row.seconds is not None
    ]
    if lines:
        _console.print_table(columns, lines)
    for row in rows:
        if row.note:
            print(f'{row.candidate} cannot: {row.note}')


def short(candidate: str) -> str:
    """A candidate's name; of the authors' code without where it lies and how it is made."""
    name = candidate.partition('(')[0].rpartition(':')[2]
    return f"authors' {name}" if candidate.startswith('authors:') else candidate


def print_targets(records: Sequence[Record]) -> None:
    """Every summary and every target with its figure, and whether it is reached."""
    lines = []
    for record in records:
        about = (record['case'], record['mode'], record['candidate'])
        missed = record['missed'].split('; ')
        for target in filter(None, record['target'].split('; ')):
            column = target.split()[0]
            verdict = 'reached' if column not in missed else 'missed' if record[column] else 'not measured'
            figure = digits(float(record[column])) if record[column] else '-'
            lines.append((*about, figure, target, verdict))
        if record['value'] and not record['target']:
            lines.append((*about, digits(float(record['value'])), '', ''))
    if lines:
        print()
        _console.print_table(('case', 'mode', 'candidate', 'figure', 'target', 'verdict'), lines)
    verdicts = [line[-1] for line in lines if line[-1]]
    if verdicts:
        print(f'{verdicts.count("reached")} of {len(verdicts)} targets reached')


def digits(value: float | None, factor: float = 1.0) -> str:
    """Three digits or all before the point, without an exponent as far as it goes; '-' for None."""
    if value is None:
        return '-'
    value *= factor
    return f'{value:.0f}' if abs(value) >= 100 else f'{value:.3g}'
