"""Memory for intermediate results, kept from one call to the next.

On the CPU, blocks of megabytes come from the system page by page and go back to it: at sizes that fit the cache, that
costs as much as the work done in them.
"""

import threading
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

KEPT_BYTES = 16 << 20  # for each thread, at most: what is larger is made anew


class _Kept(threading.local):
    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.views: dict[tuple[torch.dtype, tuple[tuple[int, ...], ...]], list[Tensor]] = {}


_kept = _Kept()


def scratch(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Uninitialised tensors on the CPU, for the caller alone until its thread asks again: none may be returned."""
    views = _kept.views.get((dtype, shapes))
    if views is not None:
        return views
    sizes = [prod(shape) for shape in shapes]
    needed = sum(sizes) * dtype.itemsize
    memory = _kept.memory
    with torch.inference_mode(False):
        if memory is None or memory.numel() < needed:
            memory = torch.empty(needed, dtype=torch.uint8)
            if needed <= KEPT_BYTES:
                _kept.memory, _kept.views = memory, {}
        numbers, starts = memory[:needed].view(dtype), accumulate(sizes, initial=0)
        views = [numbers[start : start + size].view(shape) for start, size, shape in zip(starts, sizes, shapes)]
    if memory is _kept.memory and len(_kept.views) < 64:
        _kept.views[dtype, shapes] = views
    return views


def release() -> None:
    """Give back what the calling thread keeps."""
    _kept.memory, _kept.views = None, {}
