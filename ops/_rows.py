"""Layer norms and sums of columns of float32 numbers in C++ (_rows.cpp).

Letters: R rows, C columns; threads have `2 * C` numbers each to work in.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from ops import _native
from ops._eager import is_ordinary
from ops._native import LANES, address, call
from ops._products import is_special
from ops._scratch import scratch

MANY_ROWS = 2048
"""Rows from which on `column_sums` is faster than the sum of torch."""


def fits(x: Tensor | None) -> bool:
    """Whether rows are of whole vectors and lie one behind the other; or there are none."""
    return x is None or (
        is_ordinary(x)
        and x.shape[-1] % LANES == 0
        and x.is_contiguous()
        and not x.is_neg()
        and _native.kernels() is not None
    )


def in_rows(x: Tensor) -> Tensor:
    """The same numbers, rows one behind the other."""
    return x.resolve_neg().contiguous()


def norm_forward(
    x: Tensor,
    branch: Tensor | None,
    factors: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    moments: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The sum x + branch * factors and its layer norm, (..., C); `moments`, (R, 2): means, 1 / deviations."""
    out, columns = torch.empty_like(x), x.shape[-1]
    sums = x if branch is None else torch.empty_like(x)
    places = (*map(address, (x, branch, factors, weight, bias, moments)), sums.data_ptr(), out.data_ptr())
    sizes = (x.numel() // columns, columns, x.shape[0], torch.get_num_threads())
    call('norm_forward', (*places, 0, 0, 0, 0, 0, 0, 0, *sizes), ctypes.c_float(eps))
    return sums, out


def norm_backward(
    grad_sum: Tensor | None,
    grad: Tensor,
    x: Tensor,
    factors: Tensor | None,
    weight: Tensor,
    moments: Tensor,
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of x, branch, weight and bias, as `needed`; `x` is the sum of both."""
    columns, threads = x.shape[-1], torch.get_num_threads()
    (space,) = scratch(x.dtype, (threads * 2 * columns,), use='rows')
    to_x = torch.empty_like(x) if needed[0] or (needed[1] and factors is None) else None
    to_branch = torch.empty_like(x) if needed[1] and factors is not None else None
    to_weight, to_bias = (torch.empty_like(weight) if need else None for need in needed[2:])
    given = (x, None, factors, weight, None, moments, None, None, grad_sum, grad)
    places = map(address, (*given, to_x, to_branch, to_weight, to_bias, space))
    call('norm_backward', (*places, x.numel() // columns, columns, x.shape[0], threads))
    return [to_x if needed[0] else None, to_x if needed[1] and factors is None else to_branch, to_weight, to_bias]


def column_sums(x: Tensor) -> Tensor:
    """(R, C) -> (C)."""
    (rows, columns), threads = x.shape, torch.get_num_threads()
    if rows < MANY_ROWS or is_special(x) or not fits(x):
        return x.sum(0)
    out = x.new_empty(columns)
    (space,) = scratch(x.dtype, (threads * 2 * columns,), use='rows')
    call('column_sums', [x.data_ptr(), out.data_ptr(), space.data_ptr(), rows, columns, threads])
    return out
