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
    """Return what is added to the scores of `split` units, (1, 1 or U or N * U, Q, S); None when nothing is."""
    if tables.entries is not None and bias is not None:
        table = F.pad(bias.flatten(1).to(dtype), (0, 1), value=float('-inf'))
        mask = table.index_select(1, tables.entries.flatten()).view(-1, *tables.entries.shape)
    elif tables.mask is not None:
        mask = tables.mask[None]
    else:
        return None
    if tables.kinds is not None and (bias is not None or mask.shape[1] > 1):
        mask = mask.index_select(1, tables.kinds)
    return mask.flatten(0, 1)[None]


def make_mask_backward(grad: Tensor, tables: Tables, bias: Tensor) -> Tensor:
    """Transpose of `make_mask`: the gradient of `bias` from that of the mask, (1, N * U, Q, S)."""
    assert tables.entries is not None
    grad = grad.view(bias.shape[0], tables.units, *grad.shape[2:])
    if tables.kinds is not None:
        grad = grad.new_zeros(bias.shape[0], *tables.entries.shape).index_add_(1, tables.kinds, grad)
    entries = tables.entries.flatten().expand(bias.shape[0], -1)
    table = grad.new_zeros(bias.shape[0], bias[0].numel() + 1).scatter_add_(1, entries, grad.flatten(1))
    return table[:, :-1].view(bias.shape).to(bias.dtype)


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
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, tables: Tables, scale: float
    ) -> Tensor:
        """Return (B, *size, N, D)."""
        ctx.save_for_backward(query, key, value, bias)
        ctx.tables, ctx.scale = tables, scale
        # with a mask that requires a gradient the fused kernel is not taken, even here
        mask = make_mask(tables, None if bias is None else bias.detach(), query.dtype)
        if tables.queries is None:
            return attend_units(query, key, value, mask, tables, scale, 0.0)
        out = query.new_empty(query.shape)
        for part in chunks(query, tables):
            out[part] = attend_units(query[part], key[part], value[part], mask, tables, scale, 0.0)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key, value and bias. 16-bit inputs are computed in float32."""
        query, key, value, bias = ctx.saved_tensors
        tables, scale = ctx.tables, ctx.scale
        work = torch.promote_types(query.dtype, torch.float32)
        mask = make_mask(tables, bias, query.dtype)
        grads = [torch.empty(query.shape, dtype=query.dtype) for _ in range(3)]
        grad_mask = None
        if mask is not None and ctx.needs_input_grad[3]:
            grad_mask = torch.zeros(mask.shape, dtype=work)
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
                grad_mask += scores.sum_to_size(grad_mask.shape)
        grad_bias = None if grad_mask is None else make_mask_backward(grad_mask, tables, bias)
        return *grads, grad_bias, None, None


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    # a wrapped query, or one without data, must not leave its tables to others, nor take theirs
    find = cached_tables if type(query) is Tensor and not traced and not query.is_meta else make_tables
    tables = find(tuple(query.shape[1:-2]), window, bias is not None, query.dtype, query.device)
    fused = tables.queries is None and (bias is None or not bias.requires_grad) and query.dtype.itemsize > 2
    if fused or traced or dropout_p > 0.0 or query.device.type != 'cpu':
        return attend_units(query, key, value, make_mask(tables, bias, query.dtype), tables, scale, dropout_p)
    return ChunkedAttention.apply(query, key, value, bias, tables, scale)


def why_not(*_: object) -> None:
    """Return None: runs everywhere."""
