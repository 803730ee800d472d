"""A small map on the CPU: a single unit, whose few weights are kept for the backward pass.

Where every query sees every key, and in inference with a bias, it is torch's fused attention.

Letters: B batch, N heads, D channels per head, G = B * N, P positions of the map.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ops import _attention
from ops._eager import as_own, needs_grad
from ops._products import is_special
from ops.window.neighborhood.reference import special_gradients
from ops.window.neighborhood.tiles import Call, bias_table, make_mask, make_mask_backward


def to_heads(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, *size, N, D) -> (G, P, D)."""
    x = x.flatten(1, -3).transpose(1, 2)
    return (x[0] if x.shape[0] == 1 else x.flatten(0, 1)).to(dtype)


def from_heads(x: Tensor, like: Tensor) -> Tensor:
    """(G, P, D) -> (B, *size, N, D), of the shape and type of `like`."""
    x = x.view(like.shape[0], like.shape[-2], *x.shape[1:])
    return x.transpose(1, 2).reshape(like.shape).to(like.dtype)


def run_forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> tuple[Tensor, Tensor]:
    """(B, *size, N, D) x 3 -> (B, *size, N, D) and the weights, (G, P, P). 16-bit inputs are computed in float32."""
    tables, scale = call.tables, call.scale
    images, work = query.shape[0], torch.promote_types(query.dtype, torch.float32)
    q, k, v = to_heads(query, work), to_heads(key, work), to_heads(value, work)
    if bias is not None and tables.entries is not None:
        mask = bias_table(tables, bias, work).index_select(1, tables.entries.flatten()).view(-1, *tables.shape)
        weights = (mask if images == 1 else mask.repeat(images, 1, 1)).baddbmm_(q, k.mT, alpha=scale)
    elif tables.mask is not None:
        weights = torch.baddbmm(tables.mask, q, k.mT, alpha=scale)
    else:
        weights = q.new_empty(q.shape[0], *tables.shape).baddbmm_(q, k.mT, beta=0, alpha=scale)
    torch.softmax(weights, -1, out=weights)
    return from_heads(weights @ v, query), weights


class WholeAttention(torch.autograd.Function):
    """`run_forward` for autograd."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        out, weights = run_forward(query, key, value, bias, call)
        ctx.save_for_backward(query, key, value, bias, weights)
        ctx.call = call
        return as_own(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if is_special(grad):
            return special_gradients(ctx, grad)
        query, key, value, bias, weights = ctx.saved_tensors
        tables = ctx.call.tables
        work = weights.dtype
        q, k, v, g = to_heads(query, work), to_heads(key, work), to_heads(value, work), to_heads(grad, work)
        scores = g @ v.mT
        torch._softmax_backward_data(scores, weights, -1, work, grad_input=scores)
        grad_bias = None
        if ctx.needs_input_grad[3]:
            of_mask = scores.view(query.shape[0], 1, bias.shape[0], *tables.shape)
            grad_bias = make_mask_backward(of_mask[0] if query.shape[0] == 1 else of_mask.sum(0), tables, bias)
        scores *= ctx.call.scale
        grads = from_heads(scores @ k, query), from_heads(scores.mT @ q, key), from_heads(weights.mT @ g, value)
        return *grads, grad_bias, None


def is_global(query: Tensor, bias: Tensor | None, call: Call) -> bool:
    """Whether all that is done is done by torch's fused attention, which sees no gradient of a bias."""
    tables = call.tables
    return (
        query.dtype is torch.float32
        and _attention.AVAILABLE
        and tables.units == 1
        and tables.mask is None
        and (bias is None or not torch.is_grad_enabled())
    )


def attend_globally(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in (query, key, value))
    if needs_grad(query, key, value):
        out = _attention.Attention.apply(q, k, v, call.scale)
    else:
        mask = make_mask(call.tables, bias, query.dtype)
        out = F.scaled_dot_product_attention(q, k, v, mask, scale=call.scale)
    return out.transpose(1, 2).reshape(query.shape)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    if torch.is_grad_enabled():
        return WholeAttention.apply(query, key, value, bias, call)
    return run_forward(query, key, value, bias, call)[0]
