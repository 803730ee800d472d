"""Neighborhood attention by compiled FlexAttention: the neighborhood as a block mask, the position bias as a score_mod.

Positions are put in order of their dilation groups and tiles first, so that a block of the mask is compact on the map.

Letters: B batch, P positions of the map, N heads, D channels per head.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ops.window.neighborhood.geometry import Window, slot_windows

TILE_POSITIONS = 64  # about; a block of the mask is 128 positions


class Layout(NamedTuple):
    """Order of the positions, and their neighborhoods in that order."""

    order: Tensor  # position at each place, (P,)
    places: Tensor  # place of each position, (P,)
    codes: Tensor  # at each place: code of a key - code of a query = entry of the bias table - `middle`, (P,)
    middle: int
    mask: BlockMask


def make_layout(size: tuple[int, ...], window: Window, device: torch.device) -> Layout:
    """Layout of a map of `size` positions. Memory while it is made: some 50 * P * P bytes."""
    spread = torch.meshgrid(*(torch.arange(length, device=device) for length in size), indexing='ij')
    shape = (len(size), -1)
    codes = torch.zeros(1, dtype=torch.long, device=device)
    tile = inner = torch.zeros(1, dtype=torch.long, device=device)
    side, middle = round(TILE_POSITIONS ** (1 / len(size))), 0
    seats, starts, ends = [], [], []
    for position, length, kernel_size, stride, dilation, is_causal in zip(spread, size, *window):
        position = position.flatten()
        group, slot = position % dilation, position // dilation
        start, end = slot_windows(slot, (length - 1 - group) // dilation + 1, kernel_size, stride, is_causal)
        offset = group * -(-length // dilation)  # groups one after the other: a window stays one run of seats
        seat = slot + offset
        seats.append(seat)
        starts.append(start + offset)
        ends.append(end + offset)
        codes, middle = codes * (2 * kernel_size - 1) + slot, middle * (2 * kernel_size - 1) + kernel_size - 1
        tile, inner = tile * length + seat // side, inner * side + seat % side
    order = (tile * side ** len(size) + inner).argsort()
    seat, start, end = (torch.stack(rows).view(shape)[:, order] for rows in (seats, starts, ends))

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        inside = (seat[0, key] >= start[0, query]) & (seat[0, key] < end[0, query])
        for axis in range(1, len(size)):
            inside = inside & (seat[axis, key] >= start[axis, query]) & (seat[axis, key] < end[axis, query])
        return inside

    mask = create_block_mask(seen, None, None, order.numel(), order.numel(), device=str(device))
    return Layout(order, order.argsort(), codes[order], middle, mask)


@lru_cache(maxsize=64)
def cached_layout(size: tuple[int, ...], window: Window, device: torch.device) -> Layout:
    """`make_layout`, kept for the last 64 different calls."""
    with torch.inference_mode(False):
        return make_layout(size, window, device)


def bias_mod(bias: Tensor, layout: Layout) -> Callable[..., Tensor]:
    """Return the score_mod that adds `bias`."""
    table, codes, middle = bias.flatten(1), layout.codes, layout.middle

    def add_bias(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        # a block holds pairs outside of the neighborhood too, which the mask hides after this
        entry = (codes[key] - codes[query] + middle).clamp(0, 2 * middle)
        return score + table[head, entry]

    return add_bias


@lru_cache(maxsize=1)
def compiled_flex() -> Any:
    """FlexAttention compiled for static shapes, once per shape."""
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: Window,
    scale: float,
    bias: Tensor | None,
    dropout_p: float,
    compiled: bool = True,
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D). Uncompiled it holds all P * P scores: for checks only."""
    traced = torch.compiler.is_compiling()
    find = make_layout if traced or type(query) is not Tensor else cached_layout
    layout = find(tuple(query.shape[1:-2]), window, query.device)
    q, k, v = (x.flatten(1, -3).index_select(1, layout.order).transpose(1, 2) for x in (query, key, value))
    add_bias = None if bias is None else bias_mod(bias, layout)
    if traced or not compiled:
        x = flex_attention(q, k, v, score_mod=add_bias, block_mask=layout.mask, scale=scale)
    else:
        # each stage and dilation of a model is a shape of its own; with fullgraph torch raises beyond the limit
        with torch._dynamo.config.patch(recompile_limit=512):
            x = compiled_flex()(q, k, v, score_mod=add_bias, block_mask=layout.mask, scale=scale)
    return x.transpose(1, 2).index_select(1, layout.places).reshape(query.shape)


def why_not(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> str | None:
    """Return why FlexAttention cannot serve the call."""
    if query.device.type != 'cuda':
        return f'it is compiled for CUDA only, the query is on {query.device}'
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'it takes float32, float16 and bfloat16, not {query.dtype}'
    if not 16 <= query.shape[-1] <= 256:
        return f'it takes 16 to 256 channels per head, not {query.shape[-1]}'
    if query.numel() == 0:
        return 'it takes no empty batch'
    return 'it has no dropout of the weights' if dropout_p > 0.0 else None
