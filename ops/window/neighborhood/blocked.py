"""Neighborhood attention on tiles of queries with a shared halo of keys, by `scaled_dot_product_attention`.

The map is gathered into units of equal size (tiles.py) and one masked attention runs over all units and heads; a small
map is a single unit and is not copied. On the CPU the batch is walked in chunks that stay in the cache, and the
backward pass recomputes the weights, so that gathered keys are never kept.

Letters: B batch, P positions of the map, N heads, D channels per head, U units, Q queries and S keys of one unit.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.tiles import Tables, cached_tables, make_tables

CHUNK_SCORES = 1 << 18  # scores of one chunk of the batch: 1 MB in float32


def make_mask(tables: Tables, bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores of `split` units, (1, 1 or N * U, Q, S); None when nothing is."""
    if tables.entries is None or bias is None:
        return None if tables.mask is None else tables.mask[None]
    table = F.pad(bias.flatten(1).to(dtype), (0, 1), value=float('-inf'))
    mask = table.index_select(1, tables.entries.flatten()).view(-1, *tables.entries.shape)
    return mask.expand(-1, tables.units, -1, -1).flatten(0, 1)[None]


def units_shape(batch: int, heads: int, tables: Tables) -> tuple[int, int]:
    """Return the first two sizes of `split` units: without a bias the heads share a mask and count as batch."""
    return (batch * heads, tables.units) if tables.entries is None else (batch, heads * tables.units)


def split(x: Tensor, index: Tensor | None, tables: Tables) -> Tensor:
    """(B, *size, N, D) -> (B, N * U, Q or S, D), or (B * N, U, Q or S, D) without a bias."""
    x = x.flatten(1, -3).transpose(1, 2)
    if index is None:
        return x
    batch, heads, _, width = x.shape
    shape = units_shape(batch, heads, tables)
    return x.index_select(2, index).view(*shape, index.numel() // tables.units, width)


def join(x: Tensor, shape: torch.Size, tables: Tables) -> Tensor:
    """Bring `split` queries back to `shape`, (B, *size, N, D)."""
    if tables.places is not None:
        x = x.reshape(shape[0], shape[-2], tables.units * x.shape[2], shape[-1]).index_select(2, tables.places)
    return x.transpose(1, 2).reshape(shape)


def join_backward(x: Tensor, tables: Tables) -> Tensor:
    """Transpose of `join`: (B, *size, N, D) -> units, zero where a query is repeated."""
    if tables.queries is None or tables.places is None:
        return split(x, None, tables)
    x = x.flatten(1, -3).transpose(1, 2)
    batch, heads, _, width = x.shape
    units = x.new_zeros(batch, heads, tables.queries.numel(), width).index_copy_(2, tables.places, x)
    return units.view(*units_shape(batch, heads, tables), tables.queries.numel() // tables.units, width)


def split_backward(x: Tensor, shape: torch.Size, tables: Tables) -> Tensor:
    """Transpose of `split` for keys: every position of `shape` gets the sum over the units that hold it."""
    if tables.keys is not None:
        batch, heads, width = shape[0], shape[-2], shape[-1]
        x = x.reshape(batch, heads, tables.keys.numel(), width)
        x = x.new_zeros(batch, heads, shape[1:-2].numel(), width).index_add_(2, tables.keys, x)
    return x.transpose(1, 2).reshape(shape)


def attend_units(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, tables: Tables, scale: float, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D), the whole batch in one call."""
    q = split(query, tables.queries, tables)
    k, v = split(key, tables.keys, tables), split(value, tables.keys, tables)
    x = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale)
    return join(x, query.shape, tables)


def chunks(query: Tensor, tables: Tables) -> Iterator[slice]:
    """Yield the slices of the batch to do one after the other."""
    step = max(1, CHUNK_SCORES // (query.shape[-2] * tables.scores))
    return (slice(start, start + step) for start in range(0, query.shape[0], step))


class ChunkedAttention(torch.autograd.Function):
    """`attend_units` on the CPU, chunk by chunk. Extra memory: the units of one chunk, in both directions.

    `scaled_dot_product_attention` has no fast CPU kernel for a mask that is trained, and its other kernels would keep
    the units of the whole batch.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, tables: Tables, scale: float
    ) -> Tensor:
        """Return (B, *size, N, D)."""
        ctx.save_for_backward(query, key, value, mask)
        ctx.tables, ctx.scale = tables, scale
        if mask is not None:
            mask = mask.detach()  # with a mask that requires a gradient the fused kernel is not taken, even here
        if tables.queries is None:
            return attend_units(query, key, value, mask, tables, scale, 0.0)
        out = query.new_empty(query.shape)
        for part in chunks(query, tables):
            out[part] = attend_units(query[part], key[part], value[part], mask, tables, scale, 0.0)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key, value and mask. 16-bit inputs are computed in float32."""
        query, key, value, mask = ctx.saved_tensors
        tables, scale = ctx.tables, ctx.scale
        grads = [torch.empty(query.shape, dtype=query.dtype) for _ in range(3)]
        work = torch.promote_types(query.dtype, torch.float32)
        grad_mask = torch.zeros(mask.shape, dtype=work) if ctx.needs_input_grad[3] else None
        for part in chunks(query, tables):
            shape = query[part].shape
            q, g = split(query[part], tables.queries, tables), join_backward(grad[part], tables)
            k, v = (split(x[part], tables.keys, tables) for x in (key, value))
            q, k, v, g = q.to(work) * scale, k.to(work), v.to(work), g.to(work)
            scores = q @ k.mT
            if mask is not None:
                scores += mask
            weights = scores.softmax(dim=-1)
            grads[2][part] = split_backward(weights.mT @ g, shape, tables)
            scores = torch._softmax_backward_data(g @ v.mT, weights, -1, work)
            grads[0][part] = join(scores @ k, shape, tables).mul_(scale)
            grads[1][part] = split_backward(scores.mT @ q, shape, tables)
            if grad_mask is not None:
                grad_mask += scores.sum_to_size(mask.shape)
        return *grads, None if grad_mask is None else grad_mask.to(mask.dtype), None, None


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    # a fake or otherwise wrapped query must not leave its tables to real ones, nor take theirs
    find = cached_tables if type(query) is Tensor and not traced else make_tables
    tables = find(tuple(query.shape[1:-2]), window, bias is not None, query.dtype, query.device)
    mask = make_mask(tables, bias, query.dtype)
    fused = tables.queries is None and (mask is None or not mask.requires_grad) and query.dtype.itemsize > 2
    if fused or traced or dropout_p > 0.0 or query.device.type != 'cpu':
        return attend_units(query, key, value, mask, tables, scale, dropout_p)
    return ChunkedAttention.apply(query, key, value, mask, tables, scale)


def why_not(*_: object) -> None:
    """Return None: runs everywhere."""
