"""Routed attention that never holds the gathered keys and values: regions are gathered, used and forgotten in chunks.

The backward pass gathers again and adds the gradients of a chunk to those of the regions it came from. On the CPU both
passes are those of products.py, whose chunks stay in the cache: that is faster than one gather, too. Both are operators
of torch's dispatcher, so that a compiler sees one node instead of a loop whose length depends on the batch.

Letters: B batch, R regions of queries, S of keys, T routes, L M positions of a region, N heads, D E channels per head,
G regions of a chunk.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._eager import is_transformed
from ops._products import is_special, plain_gradients
from ops.routed.bilevel_routing import products, reference

CHUNK = 1 << 24  # numbers of a chunk: its keys, values and scores


def rows_of(routes: Tensor, regions: int) -> Tensor:
    """(B, R, T) regions of the own image -> (B * R, T) regions of the batch."""
    first = regions * torch.arange(routes.shape[0], device=routes.device)
    return (routes + first[:, None, None]).flatten(0, 1)


def gather(regions: Tensor, rows: Tensor) -> Tensor:
    """(B * S, M, N, D) and (G, T) -> (G, N, T * M, D)."""
    taken = regions.index_select(0, rows.flatten())
    return taken.unflatten(0, rows.shape).flatten(1, 2).transpose(1, 2)


def scatter_add(regions: Tensor, rows: Tensor, x: Tensor) -> None:
    """Transpose of `gather`: adds (G, N, T * M, D) to the regions (B * S, M, N, D) it came from."""
    regions.index_add_(0, rows.flatten(), x.transpose(1, 2).reshape(rows.numel(), *regions.shape[1:]))


def run_forward(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, scale: float) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E), (B, R, T) -> (B, R, L, N, E)."""
    queries, keys, values = (x.flatten(0, 1) for x in (query, key, value))
    rows = rows_of(routes, key.shape[1])
    out = query.new_empty(*queries.shape[:3], value.shape[4])
    for part, some in products.chunks(query, key, value, routes, CHUNK):
        q, k, v = queries[part, some].transpose(1, 2), gather(keys, rows[part]), gather(values, rows[part])
        out[part, some] = F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2)
    return out.view(*query.shape[:4], value.shape[4])


def run_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, routes: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of query, key and value. 16-bit inputs are computed in float32."""
    work = torch.promote_types(query.dtype, torch.float32)
    grads, queries, keys, values = (x.flatten(0, 1) for x in (grad, query, key, value))
    rows = rows_of(routes, key.shape[1])
    grad_queries = query.new_empty(queries.shape)
    grad_keys, grad_values = (x.new_zeros(x.shape, dtype=work) for x in (keys, values))
    # a backward pass inside autocast would mix types
    with torch.autocast(query.device.type, enabled=False):
        for part, some in products.chunks(query, key, value, routes, CHUNK):
            q, g = (x[part, some].transpose(1, 2).to(work) for x in (queries, grads))
            k, v = (gather(x, rows[part]).to(work) for x in (keys, values))
            q = q * scale
            attention = (q @ k.mT).softmax(dim=-1)
            scatter_add(grad_values, rows[part], attention.mT @ g)
            scores = torch._softmax_backward_data(g @ v.mT, attention, -1, work)
            scatter_add(grad_keys, rows[part], scores.mT @ q)
            grad_queries[part, some] = (scores @ k).mul_(scale).transpose(1, 2)
    return tuple(  # type: ignore[return-value]
        x.view(like.shape).to(like.dtype) for x, like in ((grad_queries, query), (grad_keys, key), (grad_values, value))
    )


def like_forward(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, scale: float) -> Tensor:
    """Shape and type of the result of `run_forward`, for tracers."""
    return query.new_empty(*query.shape[:4], value.shape[4])


def like_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, routes: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes and types of the results of `run_backward`, for tracers."""
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keep what `differentiate` needs."""
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the inputs of `run_forward`."""
    *qkv, routes = ctx.saved_tensors
    if is_special(grad):
        plain = partial(reference.attend, routes=routes, weights=None, scale=ctx.scale, dropout_p=0.0)
        gradients = plain_gradients(plain, qkv, ctx.needs_input_grad, grad)
    else:
        gradients = torch.ops.attnzoo.routed_attention_backward(grad, *qkv, routes, ctx.scale)
    return *gradients, None, None


# `torch.library.custom_op` would load the compiler, 150 MB, on the first call
LIBRARY = torch.library.Library('attnzoo', 'FRAGMENT')
LIBRARY.define('routed_attention(Tensor query, Tensor key, Tensor value, Tensor routes, float scale) -> Tensor')
LIBRARY.define(
    'routed_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor routes, float scale)'
    ' -> (Tensor, Tensor, Tensor)'
)
LIBRARY.impl('routed_attention', run_forward, 'CompositeExplicitAutograd')
LIBRARY.impl('routed_attention', products.run_forward, 'CPU')
LIBRARY.impl('routed_attention_backward', run_backward, 'CompositeExplicitAutograd')
LIBRARY.impl('routed_attention_backward', products.run_backward, 'CPU')
torch.library.register_fake('attnzoo::routed_attention', like_forward, lib=LIBRARY)
torch.library.register_fake('attnzoo::routed_attention_backward', like_backward, lib=LIBRARY)
torch.library.register_autograd('attnzoo::routed_attention', differentiate, setup_context=save, lib=LIBRARY)


def attend(
    query: Tensor, key: Tensor, value: Tensor, routes: Tensor, weights: Tensor | None, scale: float, dropout_p: float
) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E) -> (B, R, L, N, E). Extra memory: that of one chunk."""
    return torch.ops.attnzoo.routed_attention(query, key, value, routes, scale)


def why_not(
    query: Tensor, key: Tensor, value: Tensor, routes: Tensor, weights: Tensor | None, scale: float, dropout_p: float
) -> str | None:
    """Return the reason that the call cannot be served, None when it can."""
    if weights is not None:
        return 'soft routing multiplies the gathered keys and values'
    if dropout_p > 0.0:
        return 'the attention weights are not kept, so that dropout would differ in the backward pass'
    if torch.compiler.is_exporting() or torch.jit.is_tracing():
        return "an exported program holds torch's own operators alone"
    if is_transformed():
        return 'its gradients know no torch.func and no forward mode'
    return None
