"""The units of tiles.py on the CPU, by plain products of as many at a time as the cache holds.

For units as small as these, products and weights in place are faster than `scaled_dot_product_attention`, which also
has no fast CPU kernel for a mask that is trained. The backward pass gathers and weighs again: nothing but the inputs is
kept for it.

A row is the D channels of one head at one position. Heads are gathered apart, so that the rows of one unit and head are
contiguous, and multiplied by the thread that has gathered them.

Letters: B batch, P positions of the map, N heads, D channels per head, U units, Q queries and S keys of one unit; b
images of one chunk, G = b * U * N their units and heads, g some of them.
"""

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops._products import add_images, attention_backward, gather, is_special, product
from ops._scratch import scratch
from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.reference import special_gradients
from ops.window.neighborhood.tiles import Bags, Call, Tables, cached_tables, make_bags
from ops.window.neighborhood.weights import Weights

CHUNK_SCORES = 1 << 20  # at a time, about: 4 MB in float32


@lru_cache(maxsize=64)
def cached_rows(
    size: tuple[int, ...], window: Window, heads: int, images: int, apart: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Rows of queries, (G, Q), and keys, (G, S), in a tensor whose images and positions are so many rows `apart`."""
    with torch.inference_mode(False):
        cpu = torch.device('cpu')
        tables = cached_tables(size, window, False, torch.float32, cpu)
        assert tables.queries is not None
        assert tables.keys is not None
        first = torch.arange(images, device=cpu).view(-1, 1, 1, 1) * apart[0] + torch.arange(heads, device=cpu)[:, None]
        queries = first + tables.queries.view(-1, tables.units).T[:, None] * apart[1]
        keys = first + tables.keys.view(-1, tables.units).T[:, None] * apart[1]
        return queries.flatten(0, 2).int(), keys.flatten(0, 2).int()


class Places(NamedTuple):
    """The way back, from the units of b images to (b, *size, N, D)."""

    queries: Tensor  # where the query of each row stands among the G * Q, (b * P * N,)
    keys: Bags  # for each row those of the G * S that it is
    repeated: Tensor | None  # queries that stand for none, (G, Q, 1); None where there are none


@lru_cache(maxsize=64)
def cached_places(size: tuple[int, ...], window: Window, heads: int, images: int) -> Places:
    """Return the way back for `heads` heads of `images` images."""
    count = prod(size) * heads
    queries, keys = cached_rows(size, window, heads, images, (count, heads))
    with torch.inference_mode(False):
        places = queries.new_empty(images * count)
        places[queries.flatten()] = torch.arange(queries.numel(), dtype=torch.int, device=queries.device)
        repeated = queries.new_ones(queries.numel(), dtype=torch.bool).index_fill_(0, places.long(), False)
        bags = make_bags(keys.flatten(), len(places))
        return Places(places, bags, repeated.view(*queries.shape, 1) if repeated.any() else None)


class Units(NamedTuple):
    """Units (G, Q or S, D) of some images: themselves where the map is one unit, else as indexed rows."""

    values: Tensor
    rows: Tensor | None

    def take(self, some: slice, out: Tensor) -> Tensor:
        """Return `some` of the G, which may be put into `out`."""
        if self.rows is None:
            return self.values if some.stop - some.start == self.values.shape[0] else self.values[some]
        return gather(self.values, self.rows[some], out[: some.stop - some.start])


def as_units(x: Tensor, tables: Tables, window: Window, work: torch.dtype, keys: bool = False) -> Units:
    """(b, *size, N, D) as units of its queries or keys."""
    size, heads, width = tuple(x.shape[1:-2]), x.shape[-2], x.shape[-1]
    x = x.flatten(1, -3)
    images, positions = x.shape[:2]
    if tables.queries is None:
        return Units((x[0].transpose(0, 1) if images == 1 else x.transpose(1, 2).flatten(0, 1)).to(work), None)
    if x.stride()[2:] != (width, 1) or x.stride(0) % width or x.stride(1) % width:
        x = x.contiguous()
    apart = (x.stride(0) // width if images > 1 else 0, x.stride(1) // width)
    count = (images - 1) * apart[0] + (positions - 1) * apart[1] + heads
    index = cached_rows(size, window, heads, images, apart)[keys]
    return Units(x.as_strided((count, width), (width, 1)), index)


def restore(units: Tensor, way: Tensor | Bags | None, out: Tensor) -> Tensor:
    """Bring units (G, Q or S, D) back to (b, *size, N, D), keys of several units as their sum, maybe in `out`."""
    if way is None:
        units = units.view(out.shape[0], -1, *units.shape[1:]).transpose(1, 2)
        out.view(units.shape).copy_(units)
    elif isinstance(way, Bags):
        return way.sums(units.view(-1, units.shape[-1])).view(out.shape)
    else:
        gather(units.view(-1, units.shape[-1]), way, out.view(-1, units.shape[-1]))
    return out


def chunks(total: int, scores: int, grain: int = 1) -> list[slice]:
    """Return slices of `total`, of a multiple of `grain` and of about `CHUNK_SCORES` where one has `scores`."""
    step = max(1, CHUNK_SCORES // (scores * grain)) * grain
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


class ChunkedAttention(torch.autograd.Function):
    """(B, *size, N, D) x 3 -> (B, *size, N, D). 16-bit inputs are computed in float32."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        """Extra memory: the mask, and the units of one chunk with their scores."""
        ctx.save_for_backward(query, key, value, bias)
        ctx.call, (tables, window, _) = call, call
        (heads, width), (queries, keys) = query.shape[-2:], tables.shape
        work = torch.promote_types(query.dtype, torch.float32)
        weigh = Weights(query, bias, call, work)
        out = query.new_empty(query.shape)
        for part in chunks(len(query), tables.units * heads * queries * keys):
            q = as_units(query[part], tables, window, work)
            k, v = (as_units(x[part], tables, window, work, keys=True) for x in (key, value))
            total = (part.stop - part.start) * tables.units * heads
            slices = chunks(total, queries * keys, heads)
            step = slices[0].stop
            of_queries, of_keys, of_scores = (step, queries, width), (step, keys, width), (step, queries, keys)
            x, *memory, scores = scratch(work, (total, queries, width), of_queries, of_keys, of_keys, of_scores)
            for some in slices:
                unit_q, unit_k, unit_v = (units.take(some, space) for units, space in zip((q, k, v), memory))
                weights = scores[: unit_q.shape[0]]
                shares = weigh.fill(unit_q, unit_k, some, weights)
                product(weights, unit_v, x[some]).mul_(shares)
            way = None
            if tables.places is not None:
                way = cached_places(tuple(query.shape[1:-2]), window, heads, part.stop - part.start).queries
            restore(x, way, out[part])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Extra memory: as forward, with the gradients of all, and the units of one image of the keys' gradients."""
        if is_special(grad):
            return special_gradients(ctx, grad)
        query, key, value, bias = ctx.saved_tensors
        tables, window, scale = ctx.call
        (heads, width), (queries, keys) = query.shape[-2:], tables.shape
        work = torch.promote_types(query.dtype, torch.float32)
        weigh = Weights(query, bias, ctx.call, work)
        grad_mask = None
        if weigh.mask is not None and ctx.needs_input_grad[3]:
            grad_mask = scratch(work, tuple(weigh.mask.shape), use="the mask's gradient")[0].zero_()
        grads = [query.new_empty(query.shape) for _ in range(3)]
        for part in chunks(len(query), tables.units * heads * queries * keys):
            q, g = (as_units(x[part], tables, window, work) for x in (query, grad))
            k, v = (as_units(x[part], tables, window, work, keys=True) for x in (key, value))
            places = None
            if tables.places is not None:
                places = cached_places(tuple(query.shape[1:-2]), window, heads, part.stop - part.start)
            total = (part.stop - part.start) * tables.units * heads
            slices = chunks(total, queries * keys, heads)
            step = slices[0].stop
            of_queries, of_keys, of_scores = (step, queries, width), (step, keys, width), (step, queries, keys)
            dq, dk, dv, *memory, weights, scores = scratch(
                work,
                *((total, rows, width) for rows in (queries, keys, keys)),
                *(of_queries, of_keys, of_keys, of_queries, of_scores, of_scores),
            )
            for some in slices:
                unit_q, unit_k, unit_v, unit_g = (units.take(some, space) for units, space in zip((q, k, v, g), memory))
                if places is not None and places.repeated is not None:
                    unit_g.masked_fill_(places.repeated[some], 0.0)
                weights, scores = weights[: unit_q.shape[0]], scores[: unit_q.shape[0]]
                weights *= weigh.fill(unit_q, unit_k, some, weights)
                unit_grads = (dq[some], dk[some], dv[some])
                attention_backward(unit_g, unit_q, unit_k, unit_v, weights, scale, scores, unit_grads)
                if grad_mask is not None:
                    add_images(scores, weigh.of_units(grad_mask, some))
            ways = (None, None, None) if places is None else (places.queries, places.keys, places.keys)
            for i, (units, way) in enumerate(zip((dq, dk, dv), ways)):
                result = restore(units, way, grads[i][part])
                if result.shape[0] == query.shape[0]:
                    grads[i] = result.to(query.dtype)
                elif isinstance(way, Bags):
                    grads[i][part] = result
        grad_bias = None if grad_mask is None else weigh.bias_gradient(grad_mask)
        return *grads, grad_bias, None
