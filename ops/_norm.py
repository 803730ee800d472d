"""Layer norms over the last axis, of a sum too, in float32 on the CPU in C++ where that was built; else by torch.

Of the sum x + branch of a residual network both go on, the sum and its norm: computed together, as their gradients are,
they take half the passes over memory.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops import _rows
from ops._eager import has_hooks, is_ordinary, is_watched, needs_grad
from ops._products import plain_gradients

LEAST_NUMBERS = 2**18
"""Numbers from which on it is faster."""


def takes(norm: nn.LayerNorm, x: Tensor, branch: Tensor | None = None) -> bool:
    """Whether a call is one for the C++, and gains by it."""
    return (
        not is_watched()
        and _rows.fits(x)
        and x.numel() >= LEAST_NUMBERS
        and x.shape[-1:] == norm.normalized_shape
        and norm.weight is not None
        and all(map(_rows.fits, (norm.weight, norm.bias, branch)))
        and (branch is None or branch.shape == x.shape)
    )


class NativeNorm(torch.autograd.Function):
    """x + branch * factors and its layer norm. Kept for the backward pass: the sum and two numbers of each row."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        branch: Tensor | None,
        factors: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        moments = x.new_empty(x.numel() // x.shape[-1], 2)
        total, out = _rows.norm_forward(x, branch, factors, weight, bias, eps, moments)
        ctx.save_for_backward(total, factors, weight, bias, moments)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor | None, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        total, factors, weight, bias, moments = ctx.saved_tensors
        for_x, for_branch, _, for_weight, for_bias, _ = ctx.needs_input_grad
        if grad is not None and not torch.is_grad_enabled() and is_ordinary(grad) and is_ordinary(grad_sum):
            needed = (for_x, for_branch, for_weight, for_bias)
            carried = None if grad_sum is None else _rows.in_rows(grad_sum)
            to_x, to_branch, *others = _rows.norm_backward(
                carried, _rows.in_rows(grad), total, factors, weight, moments, needed
            )
            return to_x, to_branch, None, *others, None
        to_x, others = grad_sum, [None, None]
        if grad is not None:
            norm, wanted = partial(plain, ctx.eps), (for_x or for_branch, for_weight, for_bias)
            of_norm, *others = plain_gradients(norm, (total, weight, bias), wanted, grad)
            to_x = of_norm if grad_sum is None or of_norm is None else grad_sum + of_norm
        to_branch = to_x if to_x is None or factors is None else to_x * factors
        return to_x, to_branch if for_branch else None, None, *others, None


def plain(eps: float, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The norm by torch, which knows derivatives of every kind."""
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


class LayerNorm(nn.LayerNorm):
    """(..., C) -> (..., C): `nn.LayerNorm` of the last axis, by the faster way."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return layer_norm(self, x)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """(..., C) -> (..., C)."""
    if takes(norm, x):
        return together(norm, x)[1]
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


def together(
    norm: nn.LayerNorm, x: Tensor, branch: Tensor | None = None, factors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`add_norm` where `takes` is true."""
    if needs_grad(x, branch, norm.weight, norm.bias):
        return NativeNorm.apply(x, branch, factors, norm.weight, norm.bias, norm.eps)
    return _rows.norm_forward(x, branch, factors, norm.weight, norm.bias, norm.eps)


def add_norm(
    norm: nn.Module, x: Tensor, branch: Tensor | None = None, factors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(B, ..., C) -> x + branch * factors, and what a module makes of it, each (B, ..., C).

    The first, which is `x` itself where there is no branch, is not to be changed in place.

    Args:
        norm: together with the sum and its gradient where it is a `LayerNorm`, else it is called.
        x: what goes on beside the branches of a residual network.
        branch: what is added to it first, (B, ..., C); nothing when None.
        factors: of each image of the branch, (B, 1, ...), which gets no gradient; 1 when None.
    """
    if type(norm) is LayerNorm and not has_hooks(norm) and takes(norm, x, branch):
        return together(norm, x, branch, factors)
    if branch is not None:
        x = x + (branch if factors is None else branch * factors)
    return x, norm(x)
