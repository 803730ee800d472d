"""The one schema of every file in docs/benchmarks: a row per case, mode and candidate."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from checkpoints.files import replacing
from zoo.benchmark.machine import Origin


@dataclass(frozen=True)
class Target:
    """A bound of one column of a row.

    Args:
        column: of `Row`.
        bound: what it shall not exceed.
        at_least: it shall not fall below the bound instead.
    """

    column: str
    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        return f'{self.column} {">=" if self.at_least else "<="} {self.bound:.4g}'

    def reached_by(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


@dataclass
class Row:
    """What was measured of one candidate in one case; None where it was not.

    Args:
        suite: named suite, or what was asked for.
        case: what was computed, the same for all candidates.
        candidate: by what.
        baseline: the candidate that `ratio` and `memory_ratio` are relative to.
        mode: 'forward' or 'forward+backward'.
        device: 'cpu' or 'cuda'.
        dtype: of parameters and inputs.
        compiled: through torch.compile.
        batch: images or maps per call.
        height: of the image or map, in pixels or positions.
        width: likewise.
        seconds: of a call, median over rounds.
        seconds_low: first quartile.
        seconds_high: third quartile.
        per_second: images or maps.
        ratio: time over the baseline's, median of the ratios of the rounds.
        ratio_low: first quartile.
        ratio_high: third quartile.
        rounds: measured.
        peak_bytes: allocated at most during a call, beyond what was before.
        held_bytes: still allocated after the forward pass of training: output and what autograd keeps.
        memory_inputs: `peak_bytes` over the bytes of the inputs.
        memory_ratio: `peak_bytes` over the baseline's; where the case names another candidate, what goes beyond the
            baseline's over what that one's does.
        macs: multiply-adds of the forward pass, by the mathematics.
        moved_bytes: that cannot but be read and written.
        floor_seconds: least time on this machine, see `zoo.benchmark.floor`.
        floor_ratio: `seconds` over it.
        value: of a summary, which `case` names: an exponent, a share, a speed-up, seconds.
        target: bounds, separated by '; '.
        missed: columns that are out of their bounds, separated by '; '; '-' where all bounds are kept.
        note: why a candidate could not run, or what a summary is of.
    """

    suite: str
    case: str
    candidate: str
    baseline: str = ''
    mode: str = ''
    device: str = ''
    dtype: str = ''
    compiled: bool = False
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    per_second: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    rounds: int | None = None
    peak_bytes: int | None = None
    held_bytes: int | None = None
    memory_inputs: float | None = None
    memory_ratio: float | None = None
    macs: int | None = None
    moved_bytes: int | None = None
    floor_seconds: float | None = None
    floor_ratio: float | None = None
    value: float | None = None
    target: str = ''
    missed: str = ''
    note: str = ''

    def judge(self, targets: Sequence[Target]) -> None:
        """Fills `target` and `missed`; a figure that was not measured is missed."""
        values = {target.column: getattr(self, target.column) for target in targets}
        missed = [t.column for t in targets if values[t.column] is None or not t.reached_by(values[t.column])]
        self.target = '; '.join(map(str, targets))
        self.missed = ('; '.join(missed) or '-') if targets else ''


COLUMNS = tuple(field.name for kind in (Row, Origin) for field in fields(kind))
KEY = ('suite', 'case', 'candidate', 'mode', 'device', 'dtype', 'compiled', 'threads')
"""Columns by which a row is known to be measured already."""

Record = dict[str, str]
"""A row with its origin, as it stands in a file."""


def record_of(row: Row, origin: Origin) -> Record:
    """The row as text: floats of six digits, None empty."""
    return {name: text_of(value) for name, value in {**asdict(row), **asdict(origin)}.items()}


def text_of(value: object) -> str:
    """``0.123456789`` -> ``'0.123457'``, None -> ``''``."""
    return '' if value is None else f'{value:.6g}' if isinstance(value, float) else str(value)


def is_compared(record: Record) -> bool:
    """Whether a row is of a candidate that was measured with its baseline."""
    return bool(record['ratio']) and record['candidate'] != record['baseline']


def key_of(record: Record) -> tuple[str, ...]:
    """The values of `KEY`."""
    return tuple(record[name] for name in KEY)


def read_records(path: Path) -> list[Record]:
    """The rows of a file.

    Raises:
        ValueError: the columns are not `COLUMNS`.
        OSError: there is no such file.
    """
    with path.open(newline='', encoding='utf-8') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f'{path} is no benchmark of this version: its columns are {reader.fieldnames}')
        return list(reader)


class Table:
    """Rows that are written after every finished case, so that a run which is cut off loses one case.

    Args:
        path: the csv file; None to write none.
        resume: keep the rows that are in the file already; otherwise it is replaced by the first new row.
    """

    def __init__(self, path: Path | None = None, resume: bool = False) -> None:
        self.path = path
        self.records = read_records(path) if path and resume and path.exists() else []

    def has(self, row: Row, threads: int) -> bool:
        """Whether a row of the same key is there."""
        wanted = key_of({**{name: text_of(value) for name, value in asdict(row).items()}, 'threads': str(threads)})
        return any(key_of(record) == wanted for record in self.records)

    def add(self, rows: Iterable[Row], origin: Origin) -> None:
        """Adds the rows of a case, in place of those of the same key, and writes the file, whole or not at all."""
        new = [record_of(row, origin) for row in rows]
        replaced = {key_of(record) for record in new}
        self.records = [record for record in self.records if key_of(record) not in replaced] + new
        if self.path is None:
            return
        with replacing(self.path) as temporary, temporary.open('w', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
            writer.writeheader()
            writer.writerows(self.records)
