"""Dense layers by oneDNN where its product is faster than that of MKL, which `F.linear` takes.

MKL is faster for gradients where it is at home, on Intel's processors. The two round differently, by about 1e-6 of the
values. What oneDNN may not compute is left to torch, see `ops._eager`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._eager import as_own, has_hooks, is_ordinary, needs_grad
from ops._gelu import gelu_backward, passing_gelu
from ops._onednn import form_of, fused_dtype, product, takes
from ops._processor import is_intel
from ops._rows import column_sums

LEAST_WORK = 2**24
"""Multiply-adds from which on oneDNN is faster, about 0.2 ms; below, its start costs more than it saves."""

MANY_ROWS, PIECES = 8192, 4
"""Rows from which on the gradient of an input is oneDNN's everywhere, and that of a weight a sum of so many pieces'."""


def is_faster(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32) -> bool:
    """Whether `product` takes (..., C) and gains by it."""
    return (
        takes(x, weight, bias, dtype)
        and x.ndim > 1
        and weight.ndim == 2
        and x.numel() * weight.size(0) >= LEAST_WORK
        and x.size(-1) == weight.size(1)
        and 1 in weight.stride()
    )


def input_gradient(gradient: Tensor, weight: Tensor) -> Tensor:
    """(..., D), (D, C) -> (..., C)."""
    if gradient.dtype is torch.float32 and gradient.numel() < MANY_ROWS * gradient.shape[-1] and is_intel():
        return gradient @ weight
    return linear(gradient, weight.t())


def weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """(L, D), (L, C) -> (D, C). Where a layer narrows, or rows are many, there are faster ways than one product of MKL.

    In bfloat16 it is never a sum of pieces, which would round once more.
    """
    rows, ratio = len(x), x.shape[1] / gradient.shape[1]
    if x.dtype is torch.float32 and rows >= MANY_ROWS and rows % PIECES == 0 and ratio >= 1:
        pieces = (PIECES, rows // PIECES)
        return torch.bmm(gradient.unflatten(0, pieces).mT, x.unflatten(0, pieces)).sum(0)
    if rows < MANY_ROWS and ratio >= 2 and not is_intel():
        return linear(gradient.t(), x.t())
    return gradient.t() @ x


def gradients(ctx: Any, x: Any, weight: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of the input, the weight and the bias."""
    for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
    rows = gradient.reshape(-1, gradient.shape[-1])
    return (
        input_gradient(gradient, weight) if for_x else None,
        weight_gradient(rows, x.reshape(-1, x.shape[-1])) if for_weight else None,
        column_sums(rows) if for_bias else None,
    )


class Product(torch.autograd.Function):
    """`product` for autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        for_x, for_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if for_weight else None, weight if for_x else None)
        return as_own(product(x, weight, bias))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        return gradients(ctx, x, weight, gradient)


class GeluProduct(torch.autograd.Function):
    """The product of a GELU, which is computed again in the backward pass instead of kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, form: str) -> Tensor:
        ctx.save_for_backward(x, weight if ctx.needs_input_grad[0] else None)
        ctx.form = form
        return as_own(product(passing_gelu(x, form), weight, bias))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), form = ctx.saved_tensors, ctx.form
        if torch.is_grad_enabled() or not is_ordinary(gradient, x.dtype):
            to_act, *others = gradients(ctx, F.gelu(x, approximate=form), weight, gradient)
            to_x = None if to_act is None else torch.ops.aten.gelu_backward(to_act, x, approximate=form)
            return to_x, *others, None
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        to_x = input_gradient(gradient, weight) if for_x else None
        act = passing_gelu(x, form) if to_x is None else gelu_backward(x, to_x, form)
        to_weight = weight_gradient(rows, act.reshape(-1, act.shape[-1])) if for_weight else None
        return to_x, to_weight, column_sums(rows) if for_bias else None, None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C) x (D, C) -> (..., D): `F.linear` by the faster library."""
    if not is_faster(x, weight, bias):
        return F.linear(x, weight, bias)
    return Product.apply(x, weight, bias) if needs_grad(x, weight, bias) else product(x, weight, bias)


class Linear(nn.Linear):
    """(..., C) -> (..., D): `nn.Linear` by the faster library."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return F.linear(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias)


def linear_act(layer: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """(..., C) -> (..., D): act(layer(x)); in inference a GELU is computed in one pass with the layer."""
    form = form_of(act)
    if form is None or type(layer) is not Linear or has_hooks(layer):
        return act(layer(x))
    weight, bias = layer.weight, layer.bias
    if not is_faster(x, weight, bias, fused_dtype(x)) or needs_grad(x, weight, bias):
        return act(layer(x))
    return product(x, weight, bias, form)


def act_linear(act: nn.Module, layer: nn.Module, x: Tensor) -> Tensor:
    """(..., C) -> (..., D): layer(act(x)); in training a GELU is computed twice, and its result not kept."""
    form = form_of(act)
    if form is None or type(layer) is not Linear or has_hooks(layer):
        return layer(act(x))
    weight, bias = layer.weight, layer.bias
    if not is_faster(x, weight, bias, fused_dtype(x)) or not needs_grad(x, weight, bias):
        return layer(act(x))
    return GeluProduct.apply(x, weight, bias, form)
