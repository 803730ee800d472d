"""Attention over few keys in float32 on the CPU in C++ (_attention.cpp).

Letters: B batch, N heads, L queries, S keys, D channels of a head.
"""

import ctypes
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import Tensor

from ops import _native
from ops._eager import is_ordinary, is_watched, needs_grad
from ops._native import WIDTHS, call, rounded
from ops._products import is_special, plain_gradients, written_out
from ops._scratch import scratch

MOST_KEYS = 256  # as in _attention.cpp


def takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attention` may be called."""
    return (
        not is_watched()
        and q.dtype is torch.float32
        and q.ndim == 4
        and k.shape == v.shape
        and q.shape[:2] == k.shape[:2]
        and q.shape[3] == k.shape[3]
        and q.shape[3] in WIDTHS
        and k.shape[2] <= MOST_KEYS
        and _native.kernels() is not None
        and all(is_ordinary(x) for x in (q, k, v))
    )


def run(name: str, scale: float, parts: int, q: Tensor, k: Tensor, *others: Tensor | None) -> None:
    """Call a function of _attention.cpp, with what its `AttentionCall` holds of (B, N, L or S, D)."""
    (B, N, L, D), S, threads = q.shape, k.shape[2], torch.get_num_threads()
    (space,) = scratch(torch.float32, (threads * 4 * D * rounded(S),), use='attention')
    numbers = [space.data_ptr(), B, N, L, S, parts, threads]
    kept = []  # until the call is over
    for x in (q, k, *others):
        if x is not None:
            x = x.resolve_neg() if x.stride(3) == 1 else x.contiguous()
        kept.append(x)
        numbers += (0, 0, 0, 0) if x is None else (x.data_ptr(), x.stride(0), x.stride(2), x.stride(1))
    call(name, numbers, D, ctypes.c_float(scale))


def empty_heads(like: Tensor) -> Tensor:
    """(B, N, L, D), heads side by side in memory."""
    B, N, L, D = like.shape
    return torch.empty_strided((B, N, L, D), (L * N * D, D, N * D, 1), device='cpu')  # no view: it may be changed


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, N, L, D), twice (B, N, S, D) -> (B, N, L, D)."""
    out, threads, units = empty_heads(q), torch.get_num_threads(), q.shape[0] * q.shape[1]
    parts = threads // gcd(units, threads) if units < 4 * threads else 1
    run('attention_forward', scale, parts, q, k, v, out, None, None, None)
    return out


class NativeAttention(torch.autograd.Function):
    """`attend` for autograd; nothing is kept but its inputs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return attend(q, k, v, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if is_special(grad):
            plain = partial(written_out, ctx.scale, None)
            return *plain_gradients(plain, ctx.saved_tensors, ctx.needs_input_grad[:3], grad), None
        q, k, v = ctx.saved_tensors
        grads = [empty_heads(x) for x in (q, k, v)]
        run('attention_backward', ctx.scale, 1, q, k, v, grad, *grads)
        return *grads, None


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, N, L, D), twice (B, N, S, D) -> (B, N, L, D)."""
    return NativeAttention.apply(q, k, v, scale) if needs_grad(q, k, v) else attend(q, k, v, scale)
