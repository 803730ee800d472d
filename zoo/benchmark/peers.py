"""What operators on queries, keys and values are compared with, by name, all (B, H, W, N, D) x 3 -> (B, H, W, N, D).

Letters: B batch, H W height and width in positions, N heads, D channels per head, P = H * W, K kernel size.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ops.routed.bilevel_routing.functional import find_routes, routed_attention
from ops.window.neighborhood import na2d
from ops.window.neighborhood.geometry import slot_windows

Attention = Callable[..., Tensor]


def sdpa() -> Attention:
    """Global attention by torch: every position attends to all P."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query, key, value = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(q.shape)

    return run


def neighborhood(kernel_size: int = 7, dilation: int = 1, bias: bool = False, backend: str | None = None) -> Attention:
    """Ours; with `bias` a fourth input is the table of relative positions."""

    def run(q: Tensor, k: Tensor, v: Tensor, table: Tensor | None = None) -> Tensor:
        return na2d(q, k, v, kernel_size, dilation=dilation, rel_pos_bias=table, backend=backend)

    return run


def gather(kernel_size: int = 7, dilation: int = 1, bias: bool = False) -> Attention:
    """The keys and values of every query gathered, as the formula is written."""
    return neighborhood(kernel_size, dilation, bias, backend='reference')


def routed(topk: int = 4, n_win: int = 7, backend: str | None = None) -> Attention:
    """Ours: attention to the `topk` regions that fit best, of `n_win` x `n_win`.

    A region is a run of positions here, not a rectangle: the cost is the same.
    """

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        query, key, value = (x.reshape(len(x), n_win**2, -1, *x.shape[3:]) for x in (q, k, v))
        _, routes = find_routes(query.detach().mean(2).flatten(2), key.detach().mean(2).flatten(2), topk)
        return routed_attention(query, key, value, routes, backend=backend).reshape(q.shape)

    return run


def natten(kernel_size: int = 7, dilation: int = 1, backend: str | None = None) -> Attention:
    """The natten package, by the backend it chooses or the named one; it has no bias."""
    try:
        import natten as package
    except ImportError as error:
        raise ValueError('natten is not installed') from error

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return package.na2d(q, k, v, kernel_size, dilation=dilation, backend=backend)

    return run


def flex(kernel_size: int = 7, dilation: int = 1) -> Attention:
    """FlexAttention as torch ships it, compiled: positions row by row, the neighborhood as a block mask, no bias."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = block_mask(q.shape[1], q.shape[2], kernel_size, dilation, q.device)
        query, key, value = (x.flatten(1, 2).transpose(1, 2) for x in (q, k, v))
        return compiled_flex()(query, key, value, block_mask=mask).transpose(1, 2).reshape(q.shape)

    return run


@lru_cache(maxsize=1)
def compiled_flex() -> Any:
    """FlexAttention compiled once per shape."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


@lru_cache(maxsize=8)
def block_mask(height: int, width: int, kernel_size: int, dilation: int, device: torch.device) -> Any:
    """The neighborhoods of an H x W map in FlexAttention's form."""
    from torch.nn.attention.flex_attention import create_block_mask

    with torch.inference_mode(False):
        axes = [axis(length, kernel_size, dilation, device) for length in (height, width)]

        def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            inside = query >= 0
            places = ((query // width, key // width), (query % width, key % width))
            for (group, slot, start, end), (q, k) in zip(axes, places):
                inside = inside & (group[q] == group[k]) & (slot[k] >= start[q]) & (slot[k] < end[q])
            return inside

        return create_block_mask(seen, None, None, height * width, height * width, device=str(device))


def axis(length: int, kernel_size: int, dilation: int, device: torch.device) -> tuple[Tensor, ...]:
    """Of each position of an axis: its group and slot, first and end slot (exclusive) of its neighborhood."""
    position = torch.arange(length, device=device)
    group, slot = position % dilation, position // dilation
    return group, slot, *slot_windows(slot, (length - 1 - group) // dilation + 1, kernel_size, 1, False)


PEERS: dict[str, Callable[..., Attention]] = {
    'sdpa': sdpa,
    'na2d': neighborhood,
    'gather': gather,
    'routed': routed,
    'natten': natten,
    'flex': flex,
}
"""Name -> what makes the call from its options."""

KERNELS = ('natten', 'flex')
"""Peers with kernels of their own, compiled or not, which are called as they are where the rest is compiled."""
