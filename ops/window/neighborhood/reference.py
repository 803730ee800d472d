"""Neighborhood attention by gathering the keys and values of every query: the oracle of all other backends.

Letters: B batch, L positions of all axes together, K keys of one query, N heads, D channels per head.
"""

from typing import Any

import torch
from torch import Tensor

from ops._products import plain_gradients
from ops.window.neighborhood.geometry import Window, slot_windows


def gather_indices(
    size: list[int],
    kernel_size: list[int],
    stride: list[int],
    dilation: list[int],
    is_causal: list[bool],
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Key positions, whether each is seen, and the entry of the flattened bias table: three (L, K) tensors."""
    keys = torch.zeros(1, 1, dtype=torch.long, device=device)
    entries = torch.zeros(1, 1, dtype=torch.long, device=device)
    seen = torch.ones(1, 1, dtype=torch.bool, device=device)
    for i, length in enumerate(size):
        position = torch.arange(length, device=device)
        group, slot = position % dilation[i], position // dilation[i]
        slots = (length - 1 - group) // dilation[i] + 1
        start, end = slot_windows(slot, slots, kernel_size[i], stride[i], is_causal[i])
        key = start[:, None] + torch.arange(kernel_size[i], device=device)
        inside = key < end[:, None]
        key = torch.minimum(key, end[:, None] - 1)
        entry = key - slot[:, None] + kernel_size[i] - 1
        key = key * dilation[i] + group[:, None]
        keys = (keys[:, None, :, None] * length + key[:, None, :]).flatten(2, 3).flatten(0, 1)
        entries = (entries[:, None, :, None] * (2 * kernel_size[i] - 1) + entry[:, None, :]).flatten(2, 3).flatten(0, 1)
        seen = (seen[:, None, :, None] & inside[:, None, :]).flatten(2, 3).flatten(0, 1)
    return keys, seen, entries


def gather_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: list[int],
    stride: list[int],
    dilation: list[int],
    is_causal: list[bool],
    scale: float,
    bias: Tensor | None,
    dropout_p: float,
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D), any number of axes. Memory and work: B * L * K * N * D.

    16-bit inputs are computed in float32. Scriptable.
    """
    size = list(query.shape[1:-2])
    keys, seen, entries = gather_indices(size, kernel_size, stride, dilation, is_causal, query.device)
    q, k, v = query.flatten(1, -3), key.flatten(1, -3)[:, keys], value.flatten(1, -3)[:, keys]
    if query.dtype == torch.float16 or query.dtype == torch.bfloat16:
        q, k, v = q.float(), k.float(), v.float()
    scores = torch.einsum('blnd,blknd->bnlk', q * scale, k)
    if bias is not None:
        scores = scores + bias.flatten(1)[:, entries].to(scores.dtype)
    weights = scores.masked_fill(~seen, float('-inf')).softmax(dim=-1)
    weights = torch.dropout(weights, dropout_p, dropout_p > 0.0)
    return torch.einsum('bnlk,blknd->blnd', weights, v).to(query.dtype).reshape(query.shape)


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """Run `gather_attention` on a `Window`."""
    steps = (list(window.kernel_size), list(window.stride), list(window.dilation))
    return gather_attention(query, key, value, *steps, list(window.is_causal), scale, bias, dropout_p)


def special_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Those of a function of (query, key, value, bias, call) that `is_special` finds."""
    gradients = plain_gradients(
        lambda query, key, value, bias: attend(query, key, value, ctx.call.window, ctx.call.scale, bias, 0.0),
        ctx.saved_tensors[:4],
        ctx.needs_input_grad,
        grad,
    )
    return *gradients, None


def why_not(*_: object) -> None:
    """Return None: the reference runs everywhere."""
