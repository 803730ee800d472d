"""Memory for intermediate results, kept from one call to the next.

On the CPU, blocks of megabytes come from the system page by page and go back to it: at sizes that fit the cache, that
costs as much as the work done in them.
"""

import threading
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

KEPT_BYTES = 32 << 20  # for each thread and use, at most: what is larger is made anew


class Kept:
    """A block of memory, and the tensors that were made of it."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8, device='cpu')
        self.views: dict[tuple[torch.dtype, tuple[tuple[int, ...], ...]], list[Tensor]] = {}


_kept = threading.local()


def scratch(dtype: torch.dtype, *shapes: tuple[int, ...], use: str = '') -> list[Tensor]:
    """Uninitialised tensors on the CPU, the caller's alone until its thread asks again for that `use`.

    None of them may be returned.
    """
    kept = vars(_kept).get(use) or Kept()
    views = kept.views.get((dtype, shapes))
    if views is not None:
        return views
    sizes = [prod(shape) for shape in shapes]
    needed = sum(sizes) * dtype.itemsize
    memory = kept.memory
    with torch.inference_mode(False):
        if memory.numel() < needed:
            memory = torch.empty(needed, dtype=torch.uint8, device='cpu')
            if needed <= KEPT_BYTES:
                kept.memory, kept.views = memory, {}
                vars(_kept)[use] = kept
        numbers, starts = memory[:needed].view(dtype), accumulate(sizes, initial=0)
        views = [numbers[start : start + size].view(shape) for start, size, shape in zip(starts, sizes, shapes)]
    if memory is kept.memory and len(kept.views) < 64:
        kept.views[dtype, shapes] = views
    return views


def release() -> None:
    """Give back what the calling thread keeps."""
    vars(_kept).clear()
