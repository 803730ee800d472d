"""A small map on the CPU: a single unit, whose few weights are kept for the backward pass.

Letters: B batch, N heads, D channels per head, G = B * N, P positions of the map.
"""

from typing import Any

import torch
from torch import Tensor

from ops._eager import as_own
from ops._products import is_special
from ops.window.neighborhood.lines import cached_lines, collect
from ops.window.neighborhood.reference import special_gradients
from ops.window.neighborhood.tiles import Call
from ops.window.neighborhood.weights import Weights


def to_heads(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, *size, N, D) -> (G, P, D)."""
    x = x.flatten(1, -3).transpose(1, 2)
    return (x[0] if x.shape[0] == 1 else x.flatten(0, 1)).to(dtype)


def from_heads(x: Tensor, like: Tensor) -> Tensor:
    """(G, P, D) -> (B, *size, N, D), of the shape and type of `like`."""
    x = x.view(like.shape[0], like.shape[-2], *x.shape[1:])
    return x.transpose(1, 2).reshape(like.shape).to(like.dtype)


def run_forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> tuple[Tensor, ...]:
    """(B, *size, N, D) x 3 -> (B, *size, N, D); weights, (G, P, P), and what makes their sums 1, (G, P, 1).

    16-bit inputs are computed in float32.
    """
    work = torch.promote_types(query.dtype, torch.float32)
    q, k, v = to_heads(query, work), to_heads(key, work), to_heads(value, work)
    weights = q.new_empty(q.shape[0], *call.tables.shape)
    shares = Weights(query, bias, call, work).fill(q, k, slice(0, len(q)), weights)
    return from_heads((weights @ v).mul_(shares), query), weights, shares


class WholeAttention(torch.autograd.Function):
    """`run_forward` for autograd."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        out, weights, shares = run_forward(query, key, value, bias, call)
        ctx.save_for_backward(query, key, value, bias, weights.mul_(shares))
        ctx.call = call
        return as_own(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if is_special(grad):
            return special_gradients(ctx, grad)
        query, key, value, bias, weights = ctx.saved_tensors
        work = weights.dtype
        q, k, v, g = to_heads(query, work), to_heads(key, work), to_heads(value, work), to_heads(grad, work)
        scores = g @ v.mT
        torch._softmax_backward_data(scores, weights, -1, work, grad_input=scores)
        grad_bias = None
        if ctx.needs_input_grad[3]:
            of_images = scores.view(query.shape[0], -1, *scores.shape[1:])
            lines = cached_lines(tuple(query.shape[1:-2]), ctx.call.window, query.shape[-2])
            grad_bias = collect(of_images[0] if len(of_images) == 1 else of_images.sum(0), lines, bias)
        scores *= ctx.call.scale
        grads = from_heads(scores @ k, query), from_heads(scores.mT @ q, key), from_heads(weights.mT @ g, value)
        return *grads, grad_bias, None


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    if torch.is_grad_enabled():
        return WholeAttention.apply(query, key, value, bias, call)
    return run_forward(query, key, value, bias, call)[0]
