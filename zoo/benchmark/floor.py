"""The floor: no code for the same mathematics can be faster on this machine.

A forward pass has to do its multiply-adds and to read its inputs and parameters and write its output once. A training
step does three times the multiply-adds (those of the gradients of both factors of each product), reads inputs,
parameters and the output's gradient once more and writes as many gradients as there are inputs and parameters.
Multiply-adds take at least what the fastest square matrix product of the same type takes for as many, bytes what a
copy of a large tensor takes; the floor is the larger of the two. It is generous: softmax, norms and activations are
free, and a network is taken as one pass that keeps all activations in registers.
"""

from dataclasses import dataclass
from functools import cache

import torch

from zoo.benchmark.timing import Task, seconds_per_call
from zoo.benchmark.work import TRAINING


@dataclass(frozen=True)
class Rates:
    """What the machine reaches: multiply-adds of a matrix product and copied bytes (read and written), per second."""

    macs: float
    bytes: float


@cache
def machine_rates(device: str, dtype: str, threads: int) -> Rates:
    """The best of some rounds, measured once; `threads` are those that torch is set to."""
    where = torch.device(device)
    side, length = (8192, 1 << 30) if where.type == 'cuda' else (2048, 1 << 28)
    a, b = (torch.ones(side, side, device=where, dtype=getattr(torch, dtype)) for _ in range(2))
    x = torch.ones(length, dtype=torch.uint8, device=where)
    y = torch.empty_like(x)
    product = best_of(lambda: torch.mm(a, b), where)
    copied = best_of(lambda: y.copy_(x), where)
    return Rates(side**3 / product, 2 * length / copied)


def best_of(task: Task, device: torch.device, rounds: int = 5) -> float:
    """Least seconds of a call."""
    task()
    return min(seconds_per_call(task, 1, device) for _ in range(rounds))


def moved_bytes(read: int, written: int, mode: str) -> int:
    """Bytes that cannot but be moved, from those that a forward pass reads and writes."""
    return 3 * read + 2 * written if mode == TRAINING else read + written


def floor_seconds(macs: int, moved: int, mode: str, rates: Rates) -> float:
    """Least seconds for the multiply-adds of a forward pass, in this mode, and for `moved` bytes."""
    return max((3 if mode == TRAINING else 1) * macs / rates.macs, moved / rates.bytes)
