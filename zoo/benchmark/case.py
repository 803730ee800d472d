"""One case: candidates that do the same, side by side; measured, a row for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from zoo.benchmark.floor import floor_seconds, machine_rates, moved_bytes
from zoo.benchmark.memory import held_memory, peak_memory
from zoo.benchmark.rows import Row, Target
from zoo.benchmark.timing import Rounds, Spread, Task, interleave, ratio
from zoo.benchmark.work import FORWARD, TRAINING, Setting, Work

CANNOT = (RuntimeError, ValueError, NotImplementedError, TypeError, AssertionError)
"""Errors of a candidate that is not made for a case: it is left out, with the reason in its row."""


@dataclass(frozen=True)
class Case:
    """What is compared.

    Args:
        suite: that it belongs to.
        name: what is computed.
        mode: 'forward' or 'forward+backward'.
        setting: where and how.
        batch: images or maps per call.
        size: height and width of them.
        candidates: by name what makes the work; the first is the baseline.
        baselines: candidates with another baseline, and which.
        memory_baseline: whose peak memory `memory_ratio` is relative to, both beyond that of the row's baseline; the
            baseline itself when None.
        targets: by candidate.
    """

    suite: str
    name: str
    mode: str
    setting: Setting
    batch: int
    size: tuple[int, int]
    candidates: Mapping[str, Callable[[], Work]]
    baselines: Mapping[str, str] = field(default_factory=dict)
    memory_baseline: str | None = None
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)

    def rows(self) -> dict[str, Row]:
        """A row for every candidate, still without figures."""
        first = next(iter(self.candidates))
        return {
            name: Row(
                suite=self.suite,
                case=self.name,
                candidate=name,
                baseline=self.baselines.get(name, first),
                mode=self.mode,
                device=self.setting.device,
                dtype=self.setting.dtype,
                compiled=self.setting.compiled,
                batch=self.batch,
                height=self.size[0],
                width=self.size[1],
            )
            for name in self.candidates
        }


def measure(case: Case, rounds: Rounds) -> list[Row]:
    """The rows of a case. A candidate that cannot run has its reason in `note` and no figures."""
    if case.setting.compiled:
        torch._dynamo.reset()  # what was compiled for other shapes would make this one dynamic, or leave it eager
    rows = case.rows()
    works: dict[str, Work] = {}
    tasks: dict[str, Task] = {}
    for name, make in case.candidates.items():
        try:
            work = make()
            tasks[name] = work.task(case.mode)
            tasks[name]()
            works[name] = work
        except CANNOT as error:
            tasks.pop(name, None)
            rows[name].note = next(iter(str(error).splitlines()), '') or type(error).__name__
    if tasks:
        fill_times(rows, interleave(tasks, case.setting.torch_device, rounds))
    for name, work in works.items():
        fill_memory(rows[name], work, tasks[name], case.setting.torch_device)
        fill_floor(rows[name], work, case.setting)
    for name, row in rows.items():
        row.memory_ratio = memory_ratio(row, rows.get(row.baseline), rows.get(case.memory_baseline or ''))
        row.judge(case.targets.get(name, ()))
    return list(rows.values())


def memory_ratio(row: Row, baseline: Row | None, other: Row | None) -> float | None:
    """Peak memory over the baseline's; with another candidate, what goes beyond the baseline's over what its does."""
    if row.peak_bytes is None or not (baseline and baseline.peak_bytes):
        return None
    if other is None:
        return row.peak_bytes / baseline.peak_bytes
    if other.peak_bytes is None or other.peak_bytes <= baseline.peak_bytes:
        return None
    return max(0, row.peak_bytes - baseline.peak_bytes) / (other.peak_bytes - baseline.peak_bytes)


def fill_times(rows: Mapping[str, Row], samples: Mapping[str, Sequence[float]]) -> None:
    """Seconds, and ratios to the baseline of each row where that was measured."""
    for name, seconds in samples.items():
        row, spread = rows[name], Spread.of(seconds)
        row.seconds, row.seconds_low, row.seconds_high = spread.median, spread.low, spread.high
        row.per_second = (row.batch or 0) / spread.median
        row.rounds = len(seconds)
        if row.baseline in samples:
            relative = ratio(seconds, samples[row.baseline])
            row.ratio, row.ratio_low, row.ratio_high = relative.median, relative.low, relative.high


def fill_memory(row: Row, work: Work, task: Task, device: torch.device) -> None:
    """Bytes of the call, and of what training holds after the forward pass."""
    row.peak_bytes = peak_memory(task, device)
    row.memory_inputs = row.peak_bytes / work.input_bytes
    if row.mode == TRAINING:
        row.held_bytes = held_memory(work.run, device)


def fill_floor(row: Row, work: Work, setting: Setting) -> None:
    """Multiply-adds and bytes of the mathematics, and the least time for them on this machine."""
    if work.macs is None or row.seconds is None:
        return
    written = (work.infer if row.mode == FORWARD else work.run)().nbytes
    row.macs, row.moved_bytes = work.macs, moved_bytes(work.read_bytes, written, row.mode)
    rates = machine_rates(setting.device, setting.dtype, torch.get_num_threads())
    row.floor_seconds = floor_seconds(work.macs, row.moved_bytes, row.mode, rates)
    row.floor_ratio = row.seconds / row.floor_seconds
