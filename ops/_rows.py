"""Layer norms and sums of columns of float32 numbers in C++ (_rows.cpp).

Letters: R rows, C columns; threads have `2 * C` numbers each to work in.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ops import _native
from ops._eager import is_ordinary
from ops._native import LANES, address, call
from ops._products import is_special
from ops._scratch import scratch

PLACES = (
    *('branch', 'factors', 'weight', 'bias', 'moments', 'sum', 'out'),
    *('grad_sum', 'grad', 'grad_x', 'grad_branch', 'grad_weight', 'grad_bias', 'space'),
)
"""The tensors of `NormCall` behind the first, in its order."""

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


def run(name: str, x: Tensor, *others: Any, **tensors: Tensor | None) -> None:
    """Call a function of _rows.cpp, with what its `NormCall` holds; `tensors` go by its names."""
    columns = x.shape[-1]
    places = (x.data_ptr(), *(address(tensors.get(place)) for place in PLACES))
    call(name, (*places, x.numel() // columns, columns, x.shape[0], torch.get_num_threads()), *others)


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
    total, out = x if branch is None else torch.empty_like(x), torch.empty_like(x)
    given = dict(branch=branch, factors=factors, weight=weight, bias=bias)
    run('norm_forward', x, ctypes.c_float(eps), **given, moments=moments, sum=total, out=out)
    return total, out


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
    for_x, for_branch, for_weight, for_bias = needed
    (space,) = scratch(x.dtype, (torch.get_num_threads() * 2 * x.shape[-1],), use='rows')
    given = dict(factors=factors, weight=weight, moments=moments, grad_sum=grad_sum, grad=grad, space=space)
    grads = dict(
        grad_x=torch.empty_like(x) if for_x or (for_branch and factors is None) else None,
        grad_branch=torch.empty_like(x) if for_branch and factors is not None else None,
        grad_weight=torch.empty_like(weight) if for_weight else None,
        grad_bias=torch.empty_like(weight) if for_bias else None,
    )
    run('norm_backward', x, **given, **grads)
    to_x, to_branch, to_weight, to_bias = grads.values()
    return [to_x if for_x else None, to_x if for_branch and factors is None else to_branch, to_weight, to_bias]


def column_sums(x: Tensor) -> Tensor:
    """(R, C) -> (C)."""
    (rows, columns), threads = x.shape, torch.get_num_threads()
    if rows < MANY_ROWS or is_special(x) or not fits(x):
        return x.sum(0)
    out = x.new_empty(columns)
    (space,) = scratch(x.dtype, (threads * 2 * columns,), use='rows')
    call('column_sums', [x.data_ptr(), out.data_ptr(), space.data_ptr(), rows, columns, threads])
    return out
