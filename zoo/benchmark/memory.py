"""Bytes that a call allocates: on CUDA as torch's allocator counts them, on the CPU as torch's profiler reports them.

Counted is what torch allocates for tensors, the memory that `ops` keeps for the next call included; what a library
takes for itself, a thread's scratch say, is not.
"""

import os
from collections.abc import Sequence

import torch

from ops._scratch import release
from zoo.benchmark.timing import Task, drain


def peak_memory(task: Task, device: torch.device) -> int:
    """Bytes a call of the task holds at most beyond what was allocated before it, as are caches after a first call."""
    if device.type == 'cuda':
        drain(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        drain(device)
        return torch.cuda.max_memory_allocated(device) - before
    return peak_of(cpu_allocations(task, device))


def held_memory(task: Task, device: torch.device) -> int:
    """Bytes still allocated when a call of the task has returned: its result and what autograd keeps for it."""
    kept: list[object] = []
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        kept.append(task())
        return torch.cuda.memory_allocated(device) - before
    return sum(cpu_allocations(lambda: kept.append(task()), device))


def cpu_allocations(task: Task, device: torch.device) -> list[int]:
    """Bytes of every allocation (positive) and release (negative) of torch during the task, in order."""
    if device.type != 'cpu':
        raise ValueError(f'memory can be measured on cpu and cuda, not on {device}')
    release()
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
