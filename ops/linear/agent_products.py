"""Agent attention in float32 on the CPU, by plain products in kept memory.

Scores lie agents by positions in both steps, so that positions fill the vectors of the processor. The pooling of the
agents and the depthwise convolution of the values are part of one function with both steps of attention, whose
gradients are written where they are needed, instead of added up and copied. What may not be computed here is left to
`ops.linear.agent`.

Letters: B batch, P prefix tokens, H W height and width, L = P + H * W tokens, C channels, N heads, D channels per head,
A agents on a grid of h x w; b images of one chunk, g = b * N their heads.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ops import _depthwise_native
from ops._eager import as_own, is_ordinary, is_watched, needs_grad
from ops._products import add_images, attention_backward, is_special, plain_gradients, product
from ops._scratch import scratch
from ops._split import empty_alike

CHUNK = 1 << 22
"""Numbers of a chunk, 16 MB: its queries, keys, values, their gradients and scores."""

FEW = 512
"""Tokens up to which this serves inference too; of more the fused kernel of torch is faster, which copies nothing."""


class Inputs(NamedTuple):
    """The tensors of a call."""

    q: Tensor  # (B, L, C), as k and v
    k: Tensor
    v: Tensor
    of_keys: Tensor  # bias of the scores of agents and keys, (N, A, L)
    of_queries: Tensor  # bias of those of agents and queries, (N, A, L)
    weight: Tensor  # (C, 1, s, s), of the convolution of the values
    bias: Tensor | None  # (C,)


class Form(NamedTuple):
    """What a call is told beside tensors."""

    heads: int
    prefix: int
    grid: tuple[int, int]
    agents: tuple[int, int]
    scale: float


def takes(x: Inputs) -> bool:
    """Whether `agent_products` may be called, and is worth it."""
    return not is_watched() and all(map(is_ordinary, x)) and (x.q.shape[1] <= FEW or needs_grad(*x))


def chunks(q: Tensor, agents: int, heads: int) -> list[slice]:
    """Return slices of the images."""
    B, L, C = q.shape
    step = max(1, CHUNK // (L * (4 * C + heads * agents)))
    return [slice(start, min(start + step, B)) for start in range(0, B, step)]


def as_heads(x: Tensor, width: int) -> Tensor:
    """View (b, L, C) as (b, N, L, D)."""
    return x.unflatten(2, (-1, width)).transpose(1, 2)


def to_heads(x: Tensor, out: Tensor) -> Tensor:
    """(b, L, C) -> (g, L, D), maybe in `out`."""
    if x.shape[2] == out.shape[2]:
        return x
    out.view(len(x), -1, *out.shape[1:]).copy_(as_heads(x, out.shape[2]))
    return out


def from_heads(x: Tensor, out: Tensor) -> Tensor:
    """(g, L, D) -> `out`, (b, L, C)."""
    as_heads(out, x.shape[2]).copy_(x.view(len(out), -1, *x.shape[1:]))
    return out


def to_map(x: Tensor, form: Form) -> Tensor:
    """(B, P + H * W, C) -> (B, C, H, W), without the prefix."""
    return x[:, form.prefix :].unflatten(1, form.grid).permute(0, 3, 1, 2)


def add_pooled(grad: Tensor, form: Form, to: Tensor) -> None:
    """Add the gradient that pooled queries, (B, A, C), have to that of the queries, (B, P + H * W, C)."""
    (H, W), (h, w) = form.grid, form.agents
    if H % h == 0 and W % w == 0:
        cells = to[:, form.prefix :].unflatten(1, (h, H // h, w, W // w))
        cells.add_(grad.unflatten(1, (h, 1, w, 1)), alpha=h * w / (H * W))
    else:
        queries, agents = to_map(to, form), grad.unflatten(1, form.agents).permute(0, 3, 1, 2)
        queries += torch.ops.aten._adaptive_avg_pool2d_backward(agents, queries)


def softmax_weights(agents: Tensor, x: Tensor, bias: Tensor, scale: float, dim: int, out: Tensor) -> Tensor:
    """(g, A, D), (g, L, D), (N, A, L) -> (g, A, L) in `out`."""
    out.view(-1, *bias.shape).copy_(bias)
    torch.baddbmm(out, agents, x.mT, alpha=scale, out=out)
    return torch.softmax(out, dim, out=out)


def to_nhwc(x: Tensor, form: Form) -> Tensor:
    """(B, P + H * W, C) -> (B, H, W, C), without the prefix."""
    return x[:, form.prefix :].unflatten(1, form.grid)


def convolve(x: Inputs, form: Form) -> Tensor:
    """The depthwise convolution of the values, (B, L, C), 0 for the prefix."""
    if not _depthwise_native.fits(x.weight):
        return plain_convolution(x, form)
    out = torch.empty_like(x.v, memory_format=torch.contiguous_format)
    out[:, : form.prefix] = 0.0
    _depthwise_native.forward(to_nhwc(x.v, form), x.weight, x.bias, to_nhwc(out, form))
    return out


def plain_convolution(x: Inputs, form: Form) -> Tensor:
    """The same by torch, which knows derivatives of every kind."""
    weight = x.weight
    local = F.conv2d(to_map(x.v, form), weight, x.bias, padding=weight.shape[-1] // 2, groups=len(weight))
    local = local.flatten(2).transpose(1, 2)
    return F.pad(local, (0, 0, form.prefix, 0)) if form.prefix else local


def convolve_backward(
    x: Inputs, form: Form, grad: Tensor, to_v: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of weight and bias, as `needed`; that of the values is added to `to_v`."""
    if _depthwise_native.fits(x.weight):
        maps = (to_nhwc(grad, form), to_nhwc(x.v, form))
        return _depthwise_native.backward(*maps, x.weight, to_nhwc(to_v, form), needed, add=True)
    side, channels, mask = x.weight.shape[-1] // 2, x.weight.shape[0], [True, *needed]
    to_values, to_weight, to_bias = torch.ops.aten.convolution_backward(
        *(to_map(grad, form), to_map(x.v, form), x.weight, [channels]),
        *([1, 1], [side, side], [1, 1], False, [0, 0], channels, mask),
    )
    to_map(to_v, form).add_(to_values)
    return to_weight, to_bias


def run_forward(x: Inputs, form: Form, keep: bool) -> tuple[Tensor, ...]:
    """(B, L, C), and what the backward pass is to be given."""
    q, (B, L, _), N, D = x.q, x.q.shape, form.heads, x.q.shape[2] // form.heads
    pooled = F.adaptive_avg_pool2d(to_map(q, form), form.agents).flatten(2).transpose(1, 2)
    A = pooled.shape[1]
    agents = to_heads(pooled, q.new_empty(B * N, A, D)).contiguous()
    gathered = torch.empty_like(agents)
    out = convolve(x, form)
    kept = [q.new_empty(B * N, A, L) for _ in range(2)] if keep else []
    for part in chunks(q, A, N):
        g, some = (part.stop - part.start) * N, slice(part.start * N, part.stop * N)
        *spaces, weights = scratch(q.dtype, *[(g, L, D)] * 3, (g, A, L))
        seen, asked = (space[some] for space in kept) if keep else (weights, weights)
        queries, keys, values = (to_heads(y[part], space) for y, space in zip(x[:3], spaces))
        softmax_weights(agents[some], keys, x.of_keys, form.scale, -1, seen)
        product(seen, values, gathered[some])
        softmax_weights(agents[some], queries, x.of_queries, form.scale, -2, asked)
        as_heads(out[part], D).add_(product(asked.mT, gathered[some], spaces[2]).view(-1, N, L, D))
    return out, agents, gathered, *kept


def plain(*tensors: Any, form: Form) -> Tensor:
    """The same written out, for what the gradients below cannot: derivatives of their own, many of them at a time."""
    x = Inputs(*tensors)
    pooled = F.adaptive_avg_pool2d(to_map(x.q, form), form.agents).flatten(2).transpose(1, 2) * form.scale
    agents, q, k, v = (y.unflatten(2, (form.heads, -1)).transpose(1, 2) for y in (pooled, *x[:3]))
    gathered = (agents @ k.mT + x.of_keys).softmax(-1) @ v
    attended = (agents @ q.mT + x.of_queries).softmax(-2).mT @ gathered
    return attended.transpose(1, 2).reshape(x.q.shape) + plain_convolution(x, form)


class AgentProducts(torch.autograd.Function):
    """Agent attention and the convolution of the values. Kept for the backward pass: the inputs and both weights."""

    @staticmethod
    def forward(ctx: Any, form: Form, *tensors: Any) -> Tensor:
        out, *kept = run_forward(Inputs(*tensors), form, keep=True)
        ctx.save_for_backward(*tensors, *kept)
        ctx.form = form
        return as_own(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # unpacked once: checkpoints allow no more
        form, x, (agents, gathered, seen, asked) = ctx.form, Inputs(*saved[:7]), saved[7:]
        needed = ctx.needs_input_grad[1:]
        if is_special(grad):
            return None, *plain_gradients(partial(plain, form=form), x, needed, grad)
        q, (B, L, C), (A, D) = x.q, x.q.shape, agents.shape[1:]
        N = form.heads
        to_q, to_k, to_v = empty_alike(*x[:3])
        to_agents = torch.empty_like(agents)
        to_of_keys, to_of_queries = (q.new_zeros(N, A, L) for _ in range(2))
        for part in chunks(q, A, N):
            g, some = (part.stop - part.start) * N, slice(part.start * N, part.stop * N)
            *spaces, scores, to_gathered, more = scratch(q.dtype, *[(g, L, D)] * 4, (g, A, L), *[(g, A, D)] * 2)
            queries, keys, values, grads = (to_heads(y[part], space) for y, space in zip((*x[:3], grad), spaces))

            product(asked[some], grads, to_gathered)
            product(gathered[some], grads.mT, scores)
            torch._softmax_backward_data(scores, asked[some], -2, scores.dtype, grad_input=scores)
            add_images(scores, to_of_queries)
            product(scores, queries, to_agents[some], form.scale)
            from_heads(product(scores.mT, agents[some], spaces[0], form.scale), to_q[part])

            to_inputs = more, spaces[2], spaces[1]
            attention_backward(to_gathered, agents[some], keys, values, seen[some], form.scale, scores, to_inputs)
            add_images(scores, to_of_keys)
            to_agents[some] += more
            from_heads(spaces[2], to_k[part])
            from_heads(spaces[1], to_v[part])
        add_pooled(from_heads(to_agents, q.new_empty(B, A, C)), form, to_q)
        others = convolve_backward(x, form, grad, to_v, needed[5:])
        return None, to_q, to_k, to_v, to_of_keys, to_of_queries, *others


def agent_products(x: Inputs, form: Form) -> Tensor:
    """(B, L, C), of queries, keys and values of one map."""
    return AgentProducts.apply(form, *x) if needs_grad(*x) else run_forward(x, form, keep=False)[0]
