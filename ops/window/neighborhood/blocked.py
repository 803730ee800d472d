"""Neighborhood attention on blocks of queries with a shared halo of keys, by `scaled_dot_product_attention`.

Each axis is split into its dilation groups, each group into tiles of queries; a tile sees the run of slots that holds
the windows of all its queries, under a mask. A small map is one tile. Runs on every device, with gradients.

Letters: B batch, N heads, D channels per head, G dilation groups, t tiles per group, T query slots and S key slots of
a tile; a unit is one tile of one group.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ops.window.neighborhood.geometry import Window, slot_windows


class AxisTiles(NamedTuple):
    """How one axis is cut: `tiles` tiles of `tile` query slots, each with `span` key slots, in `groups` groups."""

    length: int
    groups: int
    slots: int
    tiles: int
    tile: int
    span: int
    anchor: int


def cut_axis(length: int, kernel_size: int, stride: int, dilation: int, is_causal: bool, tile: int) -> AxisTiles:
    """Cut an axis into tiles of about `tile` slots, a multiple of the stride."""
    slots, shortest = -(-length // dilation), length // dilation
    tile = min(-(-tile // stride) * stride, slots)
    tiles = -(-slots // tile)
    span = slots if tiles == 1 else min(slots, tile - stride + kernel_size + slots - shortest)
    anchor = stride - kernel_size if is_causal else stride // 2 - kernel_size // 2
    return AxisTiles(length, dilation, slots, tiles, tile, span, anchor)


def first_keys(cut: AxisTiles, kernel_size: int, device: torch.device) -> Tensor:
    """First key slot of each tile: (tiles,)."""
    start = (torch.arange(cut.tiles, device=device) * cut.tile + cut.anchor).clamp(
        0, cut.length // cut.groups - kernel_size
    )
    return start.clamp(max=cut.slots - cut.span)


def axis_tables(
    cut: AxisTiles, kernel_size: int, stride: int, is_causal: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Whether a query sees a key and its entry of the bias table: (t * G, T, S) each."""
    slot = torch.arange(cut.tiles * cut.tile, device=device).view(cut.tiles, 1, cut.tile, 1)
    size = (cut.length - 1 - torch.arange(cut.groups, device=device)).view(-1, 1, 1) // cut.groups + 1
    key = (first_keys(cut, kernel_size, device)[:, None] + torch.arange(cut.span, device=device)).view(
        cut.tiles, 1, 1, -1
    )
    start, end = slot_windows(torch.minimum(slot, size - 1), size, kernel_size, stride, is_causal)
    seen = (key >= start) & (key < end)
    entry = (key - slot + kernel_size - 1).clamp(0, 2 * kernel_size - 2).expand_as(seen)
    return seen.flatten(0, 1), entry.flatten(0, 1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    size, (heads, width) = query.shape[1:-2], query.shape[-2:]
    axes, device = len(size), query.device
    small = True
    for length, dilation in zip(size, window.dilation):
        small = small and -(-length // dilation) <= 20
    cuts = [cut_axis(*args, 64 if small else 7) for args in zip(size, *window)]
    pad = [0, 0, 0, 0]
    for cut in reversed(cuts):
        pad += [0, cut.tiles * cut.tile * cut.groups - cut.length]
    if max(pad) > 0:
        query, key, value = (F.pad(x, pad) for x in (query, key, value))
    for i, cut in enumerate(cuts):
        if cut.tiles > 1:
            index = (
                first_keys(cut, window.kernel_size[i], device)[:, None] + torch.arange(cut.span, device=device)
            ).flatten()
            key, value = (x.unflatten(i + 1, (-1, cut.groups)) for x in (key, value))
            key, value = (x.index_select(i + 1, index).flatten(i + 1, i + 2) for x in (key, value))
    # (B, t1, T1, G1, t2, T2, G2, ..., N, D) -> (B, N, t1, G1, t2, G2, ..., T1, T2, ..., D)
    order = (
        [0, 3 * axes + 1]
        + [1 + 3 * i + j for i in range(axes) for j in (0, 2)]
        + [2 + 3 * i for i in range(axes)]
        + [3 * axes + 2]
    )
    units = 1
    for cut in cuts:
        units *= cut.tiles * cut.groups

    def tiled(x: Tensor, lengths: list[int]) -> Tensor:
        shape = [x.shape[0]]
        for cut, length in zip(cuts, lengths):
            shape += [cut.tiles, length, cut.groups]
        x = x.reshape([*shape, heads, width]).permute(order)
        total = 1
        for length in lengths:
            total *= length
        return x.reshape(x.shape[0], heads * units, total, width)

    q = tiled(query, [cut.tile for cut in cuts])
    k, v = (tiled(x, [cut.tile if cut.tiles == 1 else cut.span for cut in cuts]) for x in (key, value))
    tables = [
        axis_tables(cut, kernel, stride, causal, device)
        for cut, kernel, stride, causal in zip(cuts, window.kernel_size, window.stride, window.is_causal)
    ]
    seen = torch.ones(1, 1, 1, dtype=torch.bool, device=device)
    for table, _ in tables:
        seen = seen[:, None, :, None, :, None] & table[None, :, None, :, None, :]
        seen = seen.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    mask = torch.zeros((), dtype=query.dtype, device=device).masked_fill(~seen, float('-inf'))[None]
    if bias is None:
        mask = mask.expand(heads, -1, -1, -1).flatten(0, 1)[None]
    else:
        entries = torch.zeros(1, 1, 1, dtype=torch.long, device=device)
        for (_, table), kernel in zip(tables, window.kernel_size):
            entries = entries[:, None, :, None, :, None] * (2 * kernel - 1) + table[None, :, None, :, None, :]
            entries = entries.flatten(4, 5).flatten(2, 3).flatten(0, 1)
        mask = (bias.flatten(1).index_select(1, entries.flatten()).view(heads, *entries.shape) + mask).flatten(0, 1)[
            None
        ]
    x = F.scaled_dot_product_attention(q, k, v, mask.to(query.dtype), dropout_p, scale=scale)
    shape = [x.shape[0], heads]
    for cut in cuts:
        shape += [cut.tiles, cut.groups]
    x = x.view([*shape, *(cut.tile for cut in cuts), width])
    back = [0] + [p for i in range(axes) for p in (2 + 2 * i, 2 + 2 * axes + i, 3 + 2 * i)] + [1, 2 + 3 * axes]
    x = x.permute(back).reshape([x.shape[0], *(cut.tiles * cut.tile * cut.groups for cut in cuts), heads, width])
    for i, length in enumerate(size):
        x = x.narrow(i + 1, 0, length)
    return x


def why_not(*_: object) -> None:
    """Return None: runs everywhere."""
