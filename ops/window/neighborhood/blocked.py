"""Neighborhood attention on tiles of queries with a shared halo of keys, by `scaled_dot_product_attention`.

The map is gathered into units of equal size (tiles.py) and one masked attention runs over all units and heads; a small
map is a single unit and is not copied. Eager calls on the CPU go to chunked.py; maps that need no units to fused.py,
which torch's kernel serves, or with few scores to whole.py.

Letters: B batch, P positions of the map, N heads, D channels per head, U units, Q queries and S keys of one unit.
"""

from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._eager import is_transformed
from ops._layout import known
from ops.window.neighborhood import fused, whole
from ops.window.neighborhood.chunked import ChunkedAttention
from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.tiles import Call, Tables, cached_tables, make_mask, make_tables

FEW_SCORES = 1 << 17  # of a whole map; memory for more is fresh for every call, which costs as much as the products


def split(x: Tensor, index: Tensor | None, tables: Tables) -> Tensor:
    """(B, *size, N, D) -> (B, U * N, Q or S, D)."""
    batch, heads, width = x.shape[0], x.shape[-2], x.shape[-1]
    x = x.flatten(1, -3)
    if index is not None:
        x = x.flatten(2).index_select(1, index).view(batch, index.numel() // tables.units, tables.units * heads, width)
    return x.transpose(1, 2)


def join(x: Tensor, shape: torch.Size, tables: Tables) -> Tensor:
    """Bring `split` queries back to `shape`, (B, *size, N, D)."""
    x = x.transpose(1, 2)
    if tables.places is not None:
        x = x.reshape(shape[0], -1, shape[-2] * shape[-1]).index_select(1, tables.places)
    return x.reshape(shape)


def attend_units(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, tables: Tables, scale: float, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D), the whole batch in one call."""
    q = split(query, tables.queries, tables)
    k, v = split(key, tables.keys, tables), split(value, tables.keys, tables)
    if mask is not None and not known(mask.shape[0] * mask.shape[1] == 1):
        units = tables.units if known(mask.shape[0] == 1) else -1
        mask = mask.expand(units, query.shape[-2], -1, -1).flatten(0, 1)[None]
    x = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale)
    return join(x, query.shape, tables)


def few_scores(query: Tensor, tables: Tables) -> bool:
    """Whether the map is one unit and has few scores in all, but some."""
    return tables.units == 1 and 0 < query.shape[0] * query.shape[-2] * prod(tables.shape) <= FEW_SCORES


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    # a traced or wrapped query, or one without data, must not leave its tables to others, nor take theirs
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(query) is not Tensor or query.is_meta
    find = make_tables if traced else cached_tables
    plain = traced or dropout_p > 0.0 or query.device.type != 'cpu'
    dtype = query.dtype if plain else torch.promote_types(query.dtype, torch.float32)
    tables = find(tuple(query.shape[1:-2]), window, plain and bias is not None, dtype, query.device)
    if plain:
        return attend_units(query, key, value, make_mask(tables, bias, dtype), tables, scale, dropout_p)
    call = Call(tables, window, scale)
    if fused.is_worth(query, bias, call):
        return fused.attend(query, key, value, bias, call)
    run = whole.attend if few_scores(query, tables) else ChunkedAttention.apply
    return run(query, key, value, bias, call)


def why_not(query: Tensor, *_: object) -> str | None:
    """Return why it cannot serve the call."""
    transformed = query.device.type == 'cpu' and is_transformed()
    return 'its gradients on CPUs know no torch.func and no forward mode' if transformed else None
