"""`scaled_dot_product_attention` without a mask, faster over few keys on CPU.

In float32 it is that of _attention.cpp, where that was built. In bfloat16 the backward pass of torch's kernel takes 2
to 7 times as long as in float32, so it is done in float32 there. What is kept for it stays in bfloat16.

Letters: B batch, N heads, L queries, S keys, D channels of a head.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ops import _attention_native as native
from ops._eager import is_ordinary, is_watched, needs_grad
from ops._products import is_special, plain_gradients, written_out

FEW_KEYS = 128
"""Keys up to which float32 is faster."""

NAME = '_scaled_dot_product_flash_attention_for_cpu'
AVAILABLE = hasattr(torch.ops.aten, NAME) and hasattr(torch.ops.aten, f'{NAME}_backward')


def attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, scale: float | None = None) -> Tensor:
    """(B, N, L, D), twice (B, N, S, D) -> (B, N, L, D), as `F.scaled_dot_product_attention`."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if dropout_p == 0 and native.takes(q, k, v):
        return native.attention(q, k, v, factor)
    if dropout_p == 0 and gains(q, k, v):
        return Attention.apply(q, k, v, factor)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=scale)


def gains(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch would call its kernel, and the backward pass is faster in float32."""
    return (
        q.dtype is torch.bfloat16
        and needs_grad(q, k, v)
        and AVAILABLE
        and torch.backends.cuda.flash_sdp_enabled()
        and not is_watched()
        and all(is_ordinary(x, torch.bfloat16) and x.ndim == 4 for x in (q, k, v))
        and k.shape == v.shape
        and q.shape[:2] == k.shape[:2]
        and q.shape[-1] == k.shape[-1]
        and k.shape[2] <= FEW_KEYS
    )


class Attention(torch.autograd.Function):
    """(B, N, L, D), twice (B, N, S, D) -> (B, N, L, D), all of one type, by torch's kernel; gradients in float32."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
        # the kernel does not look, unlike what calls it in torch, whether channels lie side by side
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        out, logsumexp = getattr(torch.ops.aten, NAME)(q, k, v, attn_mask=mask, scale=scale)
        ctx.save_for_backward(q, k, v, out, logsumexp, mask)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, logsumexp, mask = ctx.saved_tensors
        if is_special(grad):
            plain = partial(written_out, ctx.scale, mask)
            return *plain_gradients(plain, (q, k, v), ctx.needs_input_grad[:3], grad), None, None
        exact = (x.float() for x in (grad, q, k, v, out))
        run = getattr(torch.ops.aten, f'{NAME}_backward')
        found = run(*exact, logsumexp, 0.0, False, attn_mask=mask, scale=ctx.scale)
        return *(x.to(q.dtype) for x in found), None, None
