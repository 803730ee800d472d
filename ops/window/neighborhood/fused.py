"""A small map on the CPU as a whole, by torch's fused attention under a mask. Eager calls in float32.

No gradient of a bias: the kernel has none for its mask. Not under autocast, which would change the type of some maps.

Letters: B batch, P positions of the map, N heads, D channels per head.
"""

from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ops import _attention
from ops._eager import needs_grad
from ops._processor import is_intel
from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.lines import cached_lines, spread
from ops.window.neighborhood.tiles import Call, make_tables

CROWDED, MANY_KEYS = 256, 100  # values 1 KB apart share few places of the nearest cache, unless they are copied
MORE_SCORES, FEW_SCORES = 1.5, 1 << 17  # on Intel's processors: times those of the units, beside few that cost nothing


class Attention(_attention.Attention):
    """Its result is not the one that is kept: the caller may change it in place."""

    @staticmethod
    def forward(ctx: Any, *call: Any) -> Tensor:
        return _attention.Attention.forward(ctx, *call).clone()


def is_worth(query: Tensor, bias: Tensor | None, call: Call) -> bool:
    """Whether it can serve a call, and units are not faster."""
    if query.dtype is not torch.float32 or not _attention.AVAILABLE or max(call.window.dilation) > 1:
        return False
    if (bias is not None and torch.is_grad_enabled()) or torch.is_autocast_enabled('cpu'):
        return False
    tables = call.tables
    if not is_intel():
        return tables.units == 1 and not tables.hides
    heads, positions = query.shape[0] * query.shape[-2], prod(query.shape[1:-2])
    return heads * positions**2 <= MORE_SCORES * heads * tables.units * prod(tables.shape) + FEW_SCORES


@lru_cache(maxsize=64)
def cached_mask(size: tuple[int, ...], window: Window) -> Tensor | None:
    """(1, P, P), of -inf where a query does not see the key; None where every query sees every key."""
    with torch.inference_mode(False):
        return make_tables(size, window, False, torch.float32, torch.device('cpu'), whole=True).mask


def make_mask(query: Tensor, bias: Tensor | None, call: Call) -> Tensor | None:
    """`cached_mask` with the bias, (1, N, P, P), in kept memory."""
    size = tuple(query.shape[1:-2])
    if bias is None:
        mask = call.tables.mask if call.tables.units == 1 else cached_mask(size, call.window)
        return None if mask is None else mask[None]
    lines = cached_lines(size, call.window, query.shape[-2], whole=True)
    return spread(bias.to(query.dtype), lines, float('-inf'))


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    q, k, v = (x.flatten(1, -3).transpose(1, 2) for x in (query, key, value))
    mask = make_mask(query, bias, call)
    if v.stride(2) % CROWDED == 0 and v.shape[2] >= MANY_KEYS:
        v = v.contiguous()
    if needs_grad(query, key, value):
        out = Attention.apply(q, k, v, call.scale, mask)
    else:
        out = F.scaled_dot_product_attention(q, k, v, mask, scale=call.scale)
    return out.transpose(1, 2).reshape(query.shape)
