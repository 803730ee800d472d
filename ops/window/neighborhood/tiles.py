"""How a map is cut into units, tiles of queries with the keys they share, and the index tables that say so.

Each axis is split into its dilation groups and each group into tiles of query slots; a tile sees the run of key slots
that holds the windows of all its queries. A unit is one tile of one group along every axis. All units have the same
number of queries and of keys: at the end of a short group the last one is repeated, and hidden.

Letters: L positions of one axis, P of the map, G dilation groups, t tiles per group, U units, Q queries and S keys of
one unit.
"""

from collections.abc import Sequence
from functools import lru_cache, reduce
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._layout import is_fixed, known
from ops.window.neighborhood.geometry import Window, slot_windows

# queries of a tile along each axis of a map, about: fewer make small products, more compute too many hidden scores
TILE = {1: (32,), 2: (4, 8), 3: (2, 4, 4)}
SHORT = 16  # up to so many slots two tiles of 8 serve better: each sees its own border only
WHOLE_SPAN = 0.8


class AxisCut(NamedTuple):
    """One axis: `groups` groups of at most `slots` slots, in `tiles` tiles of `tile` query slots and `span` key slots.

    The first key slot of tile t is `t * tile + reach`, moved into the map.
    """

    length: int
    groups: int
    slots: int
    tiles: int
    tile: int
    span: int
    reach: int


def cut_axis(length: int, target: int, kernel_size: int, stride: int, dilation: int, is_causal: bool) -> AxisCut:
    """Cut into tiles of about `target` queries. A group is left whole where a tile has `WHOLE_SPAN` of its keys.

    A graph for many lengths has tiles of `target` for each.
    """
    slots, shortest = (length + dilation - 1) // dilation, length // dilation
    if known(slots <= SHORT):
        target = max(target, SHORT // 2)
    tiles = (slots + target - 1) // target
    tile = (slots + tiles - 1) // tiles if is_fixed(length) else target
    tile = -(-tile // stride) * stride  # the queries of one stride block share their window
    reach = stride - kernel_size if is_causal else stride // 2 - kernel_size // 2
    smaller = min if is_fixed(length) else torch.sym_min  # which a length of `torch.jit.trace` is not for
    span = cast(int, smaller(slots, tile - stride + kernel_size + slots - shortest))
    if known(slots <= 2 * tile):  # the first has no keys before its queries, the second none behind
        span = max(tile - stride + kernel_size + reach, slots - max(0, min(tile + reach, shortest - kernel_size)))
    if known(span >= WHOLE_SPAN * slots):
        return AxisCut(length, dilation, slots, 1, slots, slots, 0)
    return AxisCut(length, dilation, slots, (slots + tile - 1) // tile, tile, span, reach)


def cut_map(size: tuple[int, ...], window: Window, whole: bool = False) -> list[AxisCut]:
    """Cut every axis of a map, or leave it `whole`, which a dilated one cannot be."""
    if whole:
        return [AxisCut(length, 1, length, 1, length, length, 0) for length in size]
    return [cut_axis(*axis) for axis in zip(size, TILE[len(size)], *window)]


class AxisTables(NamedTuple):
    """Index tables of one axis, one row for each of its t * G units."""

    queries: Tensor  # positions of the queries, (t * G, tile)
    keys: Tensor  # positions of the keys, (t * G, span)
    unit: Tensor  # of each position, (L,)
    place: Tensor  # of each position among the queries of its unit, (L,)
    kind: Tensor  # row of the next two for each unit, (t * G,)
    entries: Tensor  # of the bias table, (kinds, tile, span)
    hidden: Tensor  # 1 where the query does not see the key, (kinds, tile, span)


def axis_tables(
    cut: AxisCut, kernel_size: int, stride: int, is_causal: bool, share: bool, device: torch.device
) -> AxisTables:
    """Index tables of one axis. With `share`, units that see alike (all but those at a border) are one kind."""
    position = torch.arange(cut.length, device=device)
    group = torch.arange(cut.groups, device=device)[:, None]
    size = (cut.length - 1 - group) // cut.groups + 1
    first = torch.arange(cut.tiles, device=device)[:, None, None] * cut.tile
    query = torch.minimum(first + torch.arange(cut.tile, device=device), size - 1)  # (t, G, tile)
    start, end = slot_windows(query, size, kernel_size, stride, is_causal)
    query, start, end = query[..., None], start[..., None], end[..., None]
    first = (first + cut.reach).clamp(0, cut.length // cut.groups - kernel_size).clamp(max=cut.slots - cut.span)
    key = (first + torch.arange(cut.span, device=device))[..., None, :]  # (t, 1, 1, span)
    hidden = (key < start) | (key >= end)
    entries = (key - query + kernel_size - 1).masked_fill(hidden, 0)
    seen_alike = (entries * 2 + hidden).flatten(0, 1)
    kind = torch.arange(cut.tiles * cut.groups, device=device)
    if share:
        kinds, kind_of = seen_alike.unique(dim=0, return_inverse=True)
        if len(kinds) < len(kind):
            seen_alike, kind = kinds, kind_of
    return AxisTables(
        queries=(query[..., 0] * cut.groups + group).flatten(0, 1),
        keys=(torch.minimum(key[..., 0, :], size - 1) * cut.groups + group).flatten(0, 1),
        unit=position // cut.groups // cut.tile * cut.groups + position % cut.groups,
        place=position // cut.groups % cut.tile,
        kind=kind,
        entries=seen_alike // 2,
        hidden=seen_alike % 2,
    )


def outer(left: Tensor, right: Tensor) -> Tensor:
    """(a, b, ...), (c, d, ...) -> (a * c, b * d, ...): left + right for every pair, dimension by dimension."""
    for dim in range(left.dim()):
        left, right = left.unsqueeze(2 * dim + 1), right.unsqueeze(2 * dim)
    pairs = left + right
    for dim in range(pairs.dim() // 2):
        pairs = pairs.flatten(dim, dim + 1)
    return pairs


def flat_index(tables: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Index into a flattened array of `sizes` from one index table per axis."""
    return reduce(lambda total, axis: outer(total * axis[1], axis[0]), zip(tables[1:], sizes[1:]), tables[0])


class Bags(NamedTuple):
    """Bags of rows to be summed: number i holds `rows` from `starts[i]` to the next start."""

    rows: Tensor
    starts: Tensor

    def sums(self, x: Tensor) -> Tensor:
        """(rows, C) -> (bags, C). What `index_add` would do at several times the cost."""
        return F.embedding_bag(self.rows, x, self.starts, mode='sum')


def make_bags(numbers: Tensor, count: int) -> Bags:
    """One bag for each number below `count`, of the rows that have it."""
    numbers, rows = numbers.sort(stable=True)
    starts = torch.searchsorted(numbers, torch.arange(count + 1, device=numbers.device))
    return Bags(rows[: starts[-1]].int(), starts[:-1].int())


class Tables(NamedTuple):
    """Index tables of one map and window. Rows of a unit lie U apart, so that units and heads part by strides alone."""

    units: int
    shape: tuple[int, int]  # Q, S
    hides: bool  # whether a query does not see some key of its unit
    entries: Tensor | None  # with a bias: entry of its flat table, one past the end where hidden, (kinds, Q, S)
    mask: Tensor | None  # without: 0, -inf where hidden, (kinds, Q, S); None where every query sees every key
    queries: Tensor | None = None  # position of each query, (Q * U,); None for one unit in the map's own order
    keys: Tensor | None = None  # position of each key, (S * U,); None likewise
    places: Tensor | None = None  # where the query of each position stands among the Q * U, (P,); None likewise
    kinds: Tensor | None = None  # row of `entries` or `mask` of each unit, (U,); None for one row, or one each


class Call(NamedTuple):
    """What the attention of one map is told beside tensors of its own."""

    tables: Tables
    window: Window
    scale: float


def make_tables(
    size: tuple[int, ...],
    window: Window,
    biased: bool,
    dtype: torch.dtype,
    device: torch.device,
    eager: bool = False,
    whole: bool = False,
) -> Tables:
    """Tables of a map of `size` positions, at most 8 * S bytes for each; some 40 when `eager`.

    Only `eager` tables have what takes sizes that the values decide: masks shared by units that see alike.
    """
    cuts = cut_map(size, window, whole)
    steps = zip(cuts, window.kernel_size, window.stride, window.is_causal)
    queries, keys, unit, place, kind, entries, hidden = zip(*(axis_tables(*axis, eager, device) for axis in steps))
    units = [cut.tiles * cut.groups for cut in cuts]
    tiles = [cut.tile for cut in cuts]
    shape = prod(tiles), prod([cut.span for cut in cuts])
    shade = reduce(outer, hidden) > 0
    hides = any(window.is_causal) or not all(known(cut.slots <= size) for cut, size in zip(cuts, window.kernel_size))
    entry = mask = None
    if biased:
        bounds = [2 * kernel_size - 1 for kernel_size in window.kernel_size]
        entry = flat_index(entries, bounds).masked_fill(shade, prod(bounds)).int()
    elif hides:
        mask = torch.zeros(shade.shape, dtype=dtype, device=device).masked_fill(shade, float('-inf'))
    if known(prod(units) == 1):
        return Tables(1, shape, hides, entry, mask)
    places = flat_index(place, tiles) * prod(units) + flat_index(unit, units)
    query, key = (flat_index(index, size).T.flatten() for index in (queries, keys))
    tables = Tables(prod(units), shape, hides, entry, mask, query, key, places)
    if not eager:
        return tables
    counts = [table.shape[0] for table in entries]
    alike = flat_index(kind, counts)
    if prod(counts) == 1 or torch.equal(alike, torch.arange(len(alike), device=device)):
        return tables
    return tables._replace(kinds=alike)


@lru_cache(maxsize=64)
def cached_tables(
    size: tuple[int, ...], window: Window, biased: bool, dtype: torch.dtype, device: torch.device
) -> Tables:
    """Eager tables, kept for the last 64 different calls."""
    with torch.inference_mode(False):
        return make_tables(size, window, biased, dtype, device, eager=True)


def bias_table(tables: Tables, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, ...) -> (N, entries): what `Tables.entries` points into, with -inf at the end where it hides some."""
    table = bias.flatten(1).to(dtype)
    return F.pad(table, (0, 1), value=float('-inf')) if tables.hides else table


def make_mask(tables: Tables, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores of `split` units, (1 or U, 1 or N, Q, S); None when nothing is."""
    if tables.entries is not None and bias is not None:
        table = bias_table(tables, bias, dtype)
        mask = table.index_select(1, tables.entries.flatten()).view(-1, *tables.entries.shape).transpose(0, 1)
    elif tables.mask is not None:
        mask = tables.mask[:, None]
    else:
        return None
    if tables.kinds is not None:
        mask = mask.contiguous().index_select(0, tables.kinds)  # whole rows are copied faster than strided ones
    return mask
