"""Honest timing: candidates take turns in one process (A B A B ...), so that a drift of the machine hits all alike.

Seconds are wall time per call, from before the first to after the last of enough calls to fill a sample, the device's
queue drained. A ratio is taken round by round, then summarised.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import median, quantiles

import torch

Task = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> 'Spread':
        """Of at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, _, high = quantiles(samples, n=4, method='inclusive')
        return cls(median(samples), low, high)


@dataclass(frozen=True)
class Rounds:
    """How many rounds: until every ratio is known well enough, or the time is up.

    Args:
        at_least: rounds that are always measured.
        at_most: rounds that are never exceeded.
        precision: a ratio is known when the distance of its quartiles over the root of the number of rounds, about the
            error of its median, is below this share of it.
        seconds: no round begins later than this.
        sample_seconds: calls are repeated within a sample until it lasts about this long.

    Raises:
        ValueError: a number is out of range.
    """

    at_least: int = 7
    at_most: int = 60
    precision: float = 0.01
    seconds: float = 60.0
    sample_seconds: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.at_least <= self.at_most:
            raise ValueError(f'rounds must be 1 or more and at most {self.at_most}, got {self.at_least}')
        for name in ('precision', 'seconds', 'sample_seconds'):
            if getattr(self, name) < 0:
                raise ValueError(f'{name} must not be negative, got {getattr(self, name)}')

    def enough(self, samples: Mapping[str, Sequence[float]], seconds: float) -> bool:
        """Whether to stop, the samples so far having taken `seconds`; the first task is the baseline."""
        baseline, *others = samples.values()
        done = len(baseline)
        if done < self.at_least:
            return False
        known = done > 1 and all(error_of(ratio(mine, baseline), done) <= self.precision for mine in others)
        return done >= self.at_most or seconds >= self.seconds or known


def error_of(spread: Spread, samples: int) -> float:
    """About the relative error of a median."""
    return (spread.high - spread.low) / sqrt(samples) / spread.median


def ratio(samples: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Time relative to a baseline measured in the same rounds."""
    return Spread.of([mine / theirs for mine, theirs in zip(samples, baseline, strict=True)])


def interleave(
    tasks: Mapping[str, Task],
    device: torch.device,
    rounds: Rounds | None = None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds per call of every task, one sample per round, all tasks in turn within a round.

    Args:
        tasks: what to time by name; the first is the baseline. Each is called twice before, to compile and to warm up.
        device: where the tasks compute.
        rounds: when to stop.
        clock: seconds since some moment.
    """
    rounds = Rounds() if rounds is None else rounds
    repeats = {}
    for name, task in tasks.items():
        task()
        once = seconds_per_call(task, 1, device, clock)
        repeats[name] = max(1, round(rounds.sample_seconds / once)) if once else 1
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    start = clock()
    while not rounds.enough(samples, clock() - start):
        for name, task in tasks.items():
            samples[name].append(seconds_per_call(task, repeats[name], device, clock))
    return samples


def seconds_per_call(task: Task, repeats: int, device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Mean seconds of `repeats` calls in a row."""
    drain(device)
    start = clock()
    for _ in range(repeats):
        task()
    drain(device)
    return (clock() - start) / repeats


def drain(device: torch.device) -> None:
    """Waits until the device has computed all it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
