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
from torch import Tensor, nn
from torch.nn import functional as F

from ops._onednn import has_hooks, is_ordinary, is_watched, needs_grad
from ops._products import attention_backward, is_special, plain_gradients, product
from ops._scratch import scratch
from ops._split import empty_alike

CHUNK = 1 << 22
"""Numbers of a chunk, 16 MB: its queries, keys, values, their gradients and scores."""

FEW = 512
"""Tokens up to which this serves inference too; of more the fused kernel of torch is faster, which copies nothing."""


class Form(NamedTuple):
    """What a call is told beside tensors."""

    heads: int
    prefix: int
    grid: tuple[int, int]
    agents: tuple[int, int]
    scale: float


def takes(q: Tensor, k: Tensor, v: Tensor, of_keys: Tensor, of_queries: Tensor, dwc: nn.Module) -> bool:
    """Whether `agent_products` may be called, and is worth it."""
    return (
        not is_watched()
        and type(dwc) is nn.Conv2d
        and not has_hooks(dwc)
        and all(map(is_ordinary, (q, k, v, of_keys, of_queries, dwc.weight, dwc.bias)))
        and (q.shape[1] <= FEW or needs_grad(q, k, v, of_keys, of_queries, dwc.weight, dwc.bias))
    )


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


def add_images(scores: Tensor, to: Tensor) -> None:
    """Add (g, A, L) to the gradient of a bias, (N, A, L)."""
    scores = scores.view(-1, *to.shape)
    to += scores[0] if len(scores) == 1 else scores.sum(0)


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    agent_bias: Tensor,
    query_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    form: Form,
    keep: bool,
) -> tuple[Tensor, ...]:
    """(B, L, C) x 3, (N, A, L) x 2, (C, 1, s, s), (C,) -> (B, L, C), and what the backward pass is to be given."""
    (B, L, C), N, D = q.shape, form.heads, q.shape[2] // form.heads
    pooled = F.adaptive_avg_pool2d(to_map(q, form), form.agents).flatten(2).transpose(1, 2)
    A = pooled.shape[1]
    agents = to_heads(pooled, q.new_empty(B * N, A, D)).contiguous()
    gathered = torch.empty_like(agents)
    local = F.conv2d(to_map(v, form), weight, bias, padding=weight.shape[-1] // 2, groups=C)
    out = local.flatten(2).transpose(1, 2)
    out = F.pad(out, (0, 0, form.prefix, 0)) if form.prefix else out
    kept = [q.new_empty(B * N, A, L) for _ in range(2)] if keep else []
    for part in chunks(q, A, N):
        g, some = (part.stop - part.start) * N, slice(part.start * N, part.stop * N)
        *spaces, weights = scratch(q.dtype, *[(g, L, D)] * 3, (g, A, L))
        seen, asked = (x[some] for x in kept) if keep else (weights, weights)
        queries, keys, values = (to_heads(x[part], space) for x, space in zip((q, k, v), spaces))
        softmax_weights(agents[some], keys, agent_bias, form.scale, -1, seen)
        product(seen, values, gathered[some])
        softmax_weights(agents[some], queries, query_bias, form.scale, -2, asked)
        as_heads(out[part], D).add_(product(asked.mT, gathered[some], spaces[2]).view(-1, N, L, D))
    return out, agents, gathered, *kept


def plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    agent_bias: Tensor,
    query_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    form: Form,
) -> Tensor:
    """The same written out, for what the gradients below cannot: derivatives of their own, many of them at a time."""
    heads, (B, L, C) = (form.heads, -1), q.shape
    pooled = F.adaptive_avg_pool2d(to_map(q, form), form.agents).flatten(2).transpose(1, 2) * form.scale
    agents, q, k, values = (x.unflatten(2, heads).transpose(1, 2) for x in (pooled, q, k, v))
    gathered = (agents @ k.mT + agent_bias).softmax(-1) @ values
    x = (agents @ q.mT + query_bias).softmax(-2).mT @ gathered
    local = F.conv2d(to_map(v, form), weight, bias, padding=weight.shape[-1] // 2, groups=C)
    return x.transpose(1, 2).reshape(B, L, C) + F.pad(local.flatten(2).transpose(1, 2), (0, 0, form.prefix, 0))


class AgentProducts(torch.autograd.Function):
    """Agent attention and the convolution of the values. Kept for the backward pass: the inputs and both weights."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        agent_bias: Tensor,
        query_bias: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        form: Form,
    ) -> Tensor:
        out, *kept = run_forward(q, k, v, agent_bias, query_bias, weight, bias, form, True)
        ctx.save_for_backward(q, k, v, agent_bias, query_bias, weight, bias, *kept)
        ctx.form = form
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # unpacked once: checkpoints allow no more
        inputs, kept = saved[:7], saved[7:]
        if is_special(grad):
            return *plain_gradients(partial(plain, form=ctx.form), inputs, ctx.needs_input_grad, grad), None
        (q, k, v, _, _, weight, _), (agents, gathered, seen, asked) = inputs, kept
        form, (B, L, C), (A, D) = ctx.form, q.shape, agents.shape[1:]
        N = form.heads
        to_q, to_k, to_v = empty_alike(q, k, v)
        to_agents = torch.empty_like(agents)
        to_agent_bias, to_query_bias = (q.new_zeros(N, A, L) for _ in range(2))
        for part in chunks(q, A, N):
            g, some = (part.stop - part.start) * N, slice(part.start * N, part.stop * N)
            *spaces, scores, to_gathered, more = scratch(q.dtype, *[(g, L, D)] * 4, (g, A, L), *[(g, A, D)] * 2)
            queries, keys, values, grads = (to_heads(x[part], space) for x, space in zip((q, k, v, grad), spaces))

            product(asked[some], grads, to_gathered)
            product(gathered[some], grads.mT, scores)
            torch._softmax_backward_data(scores, asked[some], -2, scores.dtype, grad_input=scores)
            add_images(scores, to_query_bias)
            product(scores, queries, to_agents[some], form.scale)
            from_heads(product(scores.mT, agents[some], spaces[0], form.scale), to_q[part])

            to_inputs = more, spaces[2], spaces[1]
            attention_backward(to_gathered, agents[some], keys, values, seen[some], form.scale, scores, to_inputs)
            add_images(scores, to_agent_bias)
            to_agents[some] += more
            from_heads(spaces[2], to_k[part])
            from_heads(spaces[1], to_v[part])
        add_pooled(from_heads(to_agents, q.new_empty(B, A, C)), form, to_q)
        side, mask = weight.shape[-1] // 2, [True, *ctx.needs_input_grad[5:7]]
        to_values, to_weight, to_bias = torch.ops.aten.convolution_backward(
            to_map(grad, form), to_map(v, form), weight, [C], [1, 1], [side, side], [1, 1], False, [0, 0], C, mask
        )
        to_map(to_v, form).add_(to_values)
        return to_q, to_k, to_v, to_agent_bias, to_query_bias, to_weight, to_bias, None


def agent_products(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    agent_bias: Tensor,
    query_bias: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    form: Form,
) -> Tensor:
    """(B, L, C) x 3, (N, A, L) x 2, (C, 1, s, s), (C,) -> (B, L, C)."""
    if needs_grad(q, k, v, agent_bias, query_bias, weight, bias):
        return AgentProducts.apply(q, k, v, agent_bias, query_bias, weight, bias, form)
    return run_forward(q, k, v, agent_bias, query_bias, weight, bias, form, False)[0]
