"""Dense layers in float32 on CPU by oneDNN, whose products are faster than those of MKL that torch takes.

They round differently, by about 1e-6 of the values. A product is left to torch where it is not in float32 on CPU, too
small to gain, or watched: compiled, exported, traced, transformed, under autocast or a mode. Graphs hold `F.linear`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST_WORK = 2**24
"""Multiply-adds from which on oneDNN is faster, about 0.2 ms; below, its start costs more than it saves."""
AVAILABLE = (
    torch.backends.mkldnn.is_available()
    and torch.backends.mkl.is_available()
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
)
PLAIN = (Tensor, nn.Parameter)


def is_watched() -> bool:
    """Whether something beyond autograd looks at the operators that are called."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.is_autocast_enabled('cpu')
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def is_plain(x: Tensor | None) -> bool:
    """Whether a tensor is an ordinary one in float32 on CPU, or none."""
    return x is None or (type(x) in PLAIN and x.dtype is torch.float32 and x.is_cpu and x.layout is torch.strided)


def is_faster(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether `product` takes (..., C) and gains by it."""
    return (
        AVAILABLE
        and not is_watched()
        and is_plain(x)
        and x.numel() * weight.size(0) >= LEAST_WORK
        and is_plain(weight)
        and is_plain(bias)
        and x.ndim > 1
        and x.size(-1) == weight.size(1)
        and 1 in weight.stride()
        and bool(torch.backends.mkldnn.enabled)
    )


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd is to follow what comes of the tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = 'none', form: str = '') -> Tensor:
    """(..., C) x (D, C) -> (..., D) by oneDNN, behind autograd's back."""
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation, [], form)


class Product(torch.autograd.Function):
    """`product` for autograd. The gradient of the weight stays with MKL, which is as fast there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        for_x, for_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if for_weight else None, weight if for_x else None)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            linear(gradient, weight.t()) if for_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


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
