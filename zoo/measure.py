"""Honest timing: candidates take turns in one process (A B A B ...), so that a drift of the machine hits all alike.

Seconds are wall time per call, from before the first to after the last of enough calls to fill `min_seconds`, the
device's queue drained. A ratio is taken round by round, then summarised.
"""

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch

Task = Callable[[], object]


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


def interleave(
    tasks: Mapping[str, Task], device: torch.device, rounds: int = 15, min_seconds: float = 0.1
) -> dict[str, list[float]]:
    """Seconds per call of every task, one sample per round, all tasks in turn within a round.

    Args:
        tasks: what to time by name; each is called twice before, to compile and to warm up.
        device: where the tasks compute.
        rounds: samples of each task.
        min_seconds: calls are repeated within a sample until it lasts about this long.
    """
    if rounds < 1:
        raise ValueError(f'rounds must be at least 1, got {rounds}')
    repeats = {}
    for name, task in tasks.items():
        task()
        repeats[name] = max(1, round(min_seconds / seconds_per_call(task, 1, device)))
    samples: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            samples[name].append(seconds_per_call(task, repeats[name], device))
    return samples


def seconds_per_call(task: Task, repeats: int, device: torch.device) -> float:
    """Mean seconds of `repeats` calls in a row."""
    drain(device)
    start = time.perf_counter()
    for _ in range(repeats):
        task()
    drain(device)
    return (time.perf_counter() - start) / repeats


def ratio(samples: Sequence[float], baseline: Sequence[float]) -> Spread:
    """Time relative to a baseline measured in the same rounds."""
    return Spread.of([mine / theirs for mine, theirs in zip(samples, baseline, strict=True)])


def peak_memory(task: Task, device: torch.device) -> int:
    """Bytes a second call of the task holds at most beyond what was allocated before it."""
    task()
    if device.type == 'cuda':
        drain(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        drain(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != 'cpu':
        raise ValueError(f'peak memory can be measured on cpu and cuda, not on {device}')
    return peak_of(cpu_allocations(task))


def cpu_allocations(task: Task) -> list[int]:
    """Bytes of every allocation (positive) and release (negative) of torch during the task, in order."""
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')  # the profiler writes about its start and stop to stderr
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorder:
        task()
    results = recorder.profiler and recorder.profiler.kineto_results
    events = [event for event in results.events() if event.name() == '[memory]'] if results else []
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def peak_of(changes: Sequence[int]) -> int:
    """Highest running sum, 0 for none."""
    held = peak = 0
    for change in changes:
        held += change
        peak = max(peak, held)
    return peak


def device_name(device: torch.device) -> str:
    """What the maker calls the device, as far as the system tells."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.+)$', info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def drain(device: torch.device) -> None:
    """Waits until the device has computed all it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
