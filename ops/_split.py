"""Parts of the channels whose gradients need not be put together where they already lie side by side."""

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ops._eager import is_ordinary, is_watched, needs_grad


def empty_alike(*tensors: Tensor) -> list[Tensor]:
    """Uninitialised memory like `tensors`, side by side for parts of one tensor."""
    alike: list[Tensor] = []
    for _, parts in groupby(tensors, lambda x: x.untyped_storage().data_ptr()):
        first, *others = parts
        shape = (*first.shape[:-1], first.shape[-1] * (1 + len(others)))
        alike += first.new_empty(shape).chunk(1 + len(others), -1)
    return alike


def whole(parts: tuple[Tensor, ...]) -> Tensor | None:
    """Return the tensor that equal `parts` of its last axis are views of, None where there is none."""
    first, (*_, width) = parts[0], parts[0].shape
    for i, part in enumerate(parts):
        if (
            part.shape != first.shape
            or part.stride() != first.stride()
            or part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or part.storage_offset() != first.storage_offset() + i * width
        ):
            return None
    shape = (*first.shape[:-1], width * len(parts))
    return first.as_strided(shape, first.stride()) if first.stride(-1) == 1 else None


class Split(torch.autograd.Function):
    """`chunk` along the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return x.chunk(parts, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ordinary = not torch.is_grad_enabled() and all(map(is_ordinary, grads))
        together = whole(grads) if ordinary else None
        return torch.cat(grads, -1) if together is None else together, None


def split(x: Tensor, parts: int) -> tuple[Tensor, ...]:
    """(..., parts * C) -> `parts` tensors (..., C)."""
    if is_watched() or not is_ordinary(x) or not needs_grad(x):
        return x.chunk(parts, -1)
    return Split.apply(x, parts)
