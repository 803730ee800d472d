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

CHUNK_SCORES = 1 << 17  # at a time, about: 512 kB in float32, of which the backward pass holds two in the cache


def make_mask(tables: Tables, bias: Tensor | None, heads: int, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores of `split` units, (1, 1 or U * N, Q, S); None when nothing is."""
    if tables.entries is not None and bias is not None:
        table = F.pad(bias.flatten(1).to(dtype), (0, 1), value=float('-inf'))
        mask = table.index_select(1, tables.entries.flatten()).view(heads, *tables.entries.shape).transpose(0, 1)
    elif tables.mask is not None:
        mask = tables.mask[:, None]
    else:
        return None
    if tables.kinds is not None and (bias is not None or mask.shape[0] > 1):
        mask = mask.index_select(0, tables.kinds)
    if mask.shape[0] > 1:
        mask = mask.expand(-1, heads, -1, -1)
    return mask.flatten(0, 1)[None]


def make_mask_backward(grad: Tensor, tables: Tables, bias: Tensor) -> Tensor:
    """Transpose of `make_mask`: the gradient of `bias` from that of the mask, (1, U * N, Q, S)."""
    assert tables.same_entry is not None
    grad = grad.view(tables.units, -1)
    if tables.same_kind is not None:
        grad = tables.same_kind.sums(grad)
    grad = grad.view(-1, bias.shape[0], tables.scores // tables.units).transpose(1, 2)
    return tables.same_entry.sums(grad.reshape(-1, bias.shape[0])).T.reshape(bias.shape).to(bias.dtype)


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


def join_backward(x: Tensor, tables: Tables) -> Tensor:
    """Transpose of `join`: (B, *size, N, D) -> units, zero where a query is repeated."""
    if tables.queries is None or tables.places is None:
        return split(x, None, tables)
    rows = x.new_zeros(x.shape[0], tables.queries.numel(), x.shape[-2] * x.shape[-1])
    rows.index_copy_(1, tables.places, x.flatten(1, -3).flatten(2))
    return rows.view(x.shape[0], -1, tables.units * x.shape[-2], x.shape[-1]).transpose(1, 2)


def split_backward(x: Tensor, shape: torch.Size, tables: Tables) -> Tensor:
    """Transpose of `split` for keys: every position of `shape` gets the sum over the units that hold it."""
    x = x.transpose(1, 2)
    if tables.same_key is not None:
        x = torch.stack([tables.same_key.sums(image) for image in x.reshape(shape[0], -1, shape[-2] * shape[-1])])
    return x.reshape(shape)


def attend_units(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, tables: Tables, scale: float, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D), the whole batch in one call."""
    q = split(query, tables.queries, tables)
    k, v = split(key, tables.keys, tables), split(value, tables.keys, tables)
    x = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale)
    return join(x, query.shape, tables)


def attend_units_backward(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the scores, all of `split` units; q is scaled."""
    weights = q @ k.mT
    if mask is not None:
        weights += mask
    torch.softmax(weights, -1, out=weights)
    scores = grad @ v.mT
    torch._softmax_backward_data(scores, weights, -1, scores.dtype, grad_input=scores)
    return scores @ k, scores.mT @ q, weights.mT @ grad, scores


def chunks(total: int, scores: int) -> Iterator[slice]:
    """Yield the slices of `total` parts of so many `scores` to do one after the other."""
    step = max(1, CHUNK_SCORES // scores)
    return (slice(start, start + step) for start in range(0, total, step))


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
        mask = make_mask(tables, None if bias is None else bias.detach(), query.shape[-2], query.dtype)
        if tables.queries is None:
            return attend_units(query, key, value, mask, tables, scale, 0.0)
        out = query.new_empty(query.shape)
        for part in chunks(len(query), query.shape[-2] * tables.scores):
            out[part] = attend_units(query[part], key[part], value[part], mask, tables, scale, 0.0)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of query, key, value and bias. 16-bit inputs are computed in float32."""
        query, key, value, bias = ctx.saved_tensors
        tables, scale, heads = ctx.tables, ctx.scale, query.shape[-2]
        work = torch.promote_types(query.dtype, torch.float32)
        mask = make_mask(tables, bias, heads, query.dtype)
        grads = [torch.empty(query.shape, dtype=query.dtype) for _ in range(3)]
        grad_mask = None
        if mask is not None and ctx.needs_input_grad[3]:
            grad_mask = torch.zeros(mask.shape, dtype=work)
        for part in chunks(len(query), heads * tables.scores):
            q = split(query[part], tables.queries, tables).to(work) * scale
            k, v = (split(x[part], tables.keys, tables).to(work) for x in (key, value))
            g = join_backward(grad[part], tables).to(work)
            dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
            for some in chunks(q.shape[1], tables.scores // tables.units * len(q)):
                seen = mask if mask is None or mask.shape[1] == 1 else mask[:, some]
                dq[:, some], dk[:, some], dv[:, some], scores = attend_units_backward(
                    q[:, some], k[:, some], v[:, some], g[:, some], seen
                )
                if grad_mask is not None:
                    grad_mask[:, some] += scores.sum_to_size(1, *scores.shape[1:])
            shape = query[part].shape
            grads[0][part] = join(dq, shape, tables).mul_(scale)
            grads[1][part], grads[2][part] = (split_backward(x, shape, tables) for x in (dk, dv))
        grad_bias = None if grad_mask is None else make_mask_backward(grad_mask, tables, bias)
        return *grads, grad_bias, None, None


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    # a traced or wrapped query, or one without data, must not leave its tables to others, nor take theirs
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing() or type(query) is not Tensor or query.is_meta
    find = make_tables if traced else cached_tables
    tables = find(tuple(query.shape[1:-2]), window, bias is not None, query.dtype, query.device)
    fused = tables.queries is None and (bias is None or not bias.requires_grad) and query.dtype.itemsize > 2
    if fused or traced or dropout_p > 0.0 or query.device.type != 'cpu':
        mask = make_mask(tables, bias, query.shape[-2], query.dtype)
        return attend_units(query, key, value, mask, tables, scale, dropout_p)
    return ChunkedAttention.apply(query, key, value, bias, tables, scale)


def why_not(*_: object) -> None:
    """Return None: runs everywhere."""
