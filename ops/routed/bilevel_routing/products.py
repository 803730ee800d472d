"""What `chunked` does, on the CPU: plain products in kept memory.

For parts as small as regions they are faster than `scaled_dot_product_attention`.

A row is the D channels of one head at one position. Heads are gathered apart, so that the rows of a region and head are
contiguous, and multiplied by the thread that has gathered them.

Letters: B batch, R regions of queries, S of keys, T routes, L M positions of a region, N heads, D E channels per head,
G regions of a chunk.
"""

from collections.abc import Iterator
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._products import attention_backward, gather, product
from ops._scratch import scratch

CHUNK = 1 << 20  # numbers of a chunk: its keys, values and scores; twice as many in the backward pass
MIN_QUERIES = 64
MAX_REGIONS = 65535  # the attention kernels of CUDA take no larger batch


def chunks(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, budget: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the B * R regions, of whole images or of one, and of the L queries.

    A region is cut only where it is a chunk of its own.
    """
    (B, R, L, heads), keys = query.shape[:4], routes.shape[2] * key.shape[2]
    fitting = min(max(1, budget // (heads * keys * (key.shape[4] + value.shape[4] + L))), MAX_REGIONS)
    together = max(R, fitting // R * R)
    regions = ceil(together / ceil(together / fitting))
    queries = L if regions > 1 else max(MIN_QUERIES, budget // (heads * keys))
    for image in range(0, B * R, together):
        behind = min(image + together, B * R)
        for start in range(image, behind, regions):
            for first in range(0, L, queries):
                yield slice(start, min(start + regions, behind)), slice(first, min(first + queries, L))


def as_rows(x: Tensor) -> tuple[Tensor, int]:
    """View (B, S, M, N, D) as rows (rows, D), with their number from a position to the next."""
    x = x.flatten(0, 2)
    heads, width = x.shape[1:]
    if x.stride()[1:] != (width, 1) or x.stride(0) % width:
        x = x.contiguous()
    step = x.stride(0) // width
    return x.as_strided(((len(x) - 1) * step + heads, width), (width, 1)), step


def rows_of(regions: Tensor, positions: int, heads: int, step: int) -> Tensor:
    """(G, T) regions -> the rows of their keys, (G, N, T, M)."""
    first = (regions * positions)[:, None, :, None] + torch.arange(positions, device=regions.device)
    return (first * step + torch.arange(heads, device=regions.device)[:, None, None]).int()


def take_queries(x: Tensor, out: Tensor) -> Tensor:
    """(G, L, N, D) -> `out`, (G * N, L, D)."""
    out.view(len(x), -1, *out.shape[1:]).copy_(x.transpose(1, 2))
    return out


def put_queries(x: Tensor, out: Tensor) -> None:
    """(G * N, L, D) -> `out`, (G, L, N, D)."""
    out.copy_(x.view(len(out), -1, *x.shape[1:]).transpose(1, 2))


class Sums:
    """The sums over the routes that lead to the same region, of the keys of G regions."""

    def __init__(self, regions: Tensor, heads: int, first: int, count: int) -> None:
        """Regions (G, T) are those of `count` from the `first` on."""
        routes = regions.shape[1]
        order = (regions - first).flatten().sort(stable=True)
        starts = torch.searchsorted(order.values, torch.arange(count, device=regions.device))
        rows = order.indices // routes * heads * routes + order.indices % routes
        head = torch.arange(heads, device=regions.device)[:, None]
        self.rows = (rows + head * routes).flatten().int()
        self.starts = (starts + head * len(rows)).flatten().int()
        self.heads, self.part = heads, slice(first, first + count)

    def put(self, x: Tensor, to: Tensor, add: bool) -> None:
        """Put or add (G * N, T * M, D) to the regions of `to`, (B * S, M, N, D)."""
        positions, width = to.shape[1], to.shape[3]
        sums = F.embedding_bag(self.rows, x.view(-1, positions * width), self.starts, mode='sum')
        sums = sums.view(self.heads, -1, positions, width).permute(1, 2, 0, 3)
        if add:
            to[self.part] += sums
        else:
            to[self.part] = sums


def run_forward(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, scale: float) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E), (B, R, T) -> (B, R, L, N, E)."""
    (N, D), M, T, E = query.shape[3:], key.shape[2], routes.shape[2], value.shape[4]
    work = torch.promote_types(query.dtype, torch.float32)
    regions = (routes + key.shape[1] * torch.arange(len(routes), device=routes.device)[:, None, None]).flatten(0, 1)
    (keys, step_k), (values, step_v) = as_rows(key), as_rows(value)
    queries = query.flatten(0, 1)
    out = query.new_empty(*queries.shape[:3], E)
    with torch.autocast('cpu', enabled=False):
        for part, some in chunks(query, key, value, routes, CHUNK):
            G, L = (part.stop - part.start) * N, some.stop - some.start
            q, k, v, weights, x = scratch(work, (G, L, D), (G, T * M, D), (G, T * M, E), (G, L, T * M), (G, L, E))
            take_queries(queries[part, some], q)
            rows = rows_of(regions[part], M, N, step_k)
            gather(keys, rows, k)
            gather(values, rows if step_v == step_k else rows_of(regions[part], M, N, step_v), v)
            product(q, k.mT, weights, scale)
            put_queries(product(torch.softmax(weights, -1, out=weights), v, x), out[part, some])
    return out.view(*query.shape[:4], E)


def run_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, routes: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value. 16-bit inputs are computed in float32."""
    (R, _, N, D), (S, M), T, E = query.shape[1:], key.shape[1:3], routes.shape[2], value.shape[4]
    work = torch.promote_types(query.dtype, torch.float32)
    regions = (routes + S * torch.arange(len(routes), device=routes.device)[:, None, None]).flatten(0, 1)
    (keys, step_k), (values, step_v) = as_rows(key), as_rows(value)
    grads, queries = grad.flatten(0, 1), query.flatten(0, 1)
    grad_queries = query.new_empty(queries.shape)
    grad_keys, grad_values = (x.new_empty(x.flatten(0, 1).shape, dtype=work) for x in (key, value))
    with torch.autocast('cpu', enabled=False):
        for part, some in chunks(query, key, value, routes, CHUNK):
            G, L = (part.stop - part.start) * N, some.stop - some.start
            of_keys, of_values, of_scores = (G, T * M, D), (G, T * M, E), (G, L, T * M)
            q, g, k, v, weights, scores = scratch(work, (G, L, D), (G, L, E), of_keys, of_values, of_scores, of_scores)
            dk, dv = (v, k) if D == E else scratch(work, of_keys, of_values, use='gradients')
            take_queries(queries[part, some], q)
            take_queries(grads[part, some], g)
            rows = rows_of(regions[part], M, N, step_k)
            gather(keys, rows, k)
            gather(values, rows if step_v == step_k else rows_of(regions[part], M, N, step_v), v)
            product(q, k.mT, weights, scale)
            torch.softmax(weights, -1, out=weights)
            attention_backward(g, q, k, v, weights, scale, scores, (q, dk, dv))
            put_queries(q, grad_queries[part, some])
            images = part.start // R, (part.stop - 1) // R + 1
            sums = Sums(regions[part], N, images[0] * S, (images[1] - images[0]) * S)
            add = part.start % R > 0 or some.start > 0
            sums.put(dk, grad_keys, add)
            sums.put(dv, grad_values, add)
    return (
        grad_queries.view(query.shape),
        grad_keys.view(key.shape).to(key.dtype),
        grad_values.view(value.shape).to(value.dtype),
    )
