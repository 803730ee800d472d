"""Attention by plain products on the CPU, into memory of the caller's.

Letters: G products, L S rows of a product, D channels.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def gather(rows: Tensor, index: Tensor, out: Tensor) -> Tensor:
    """Fill `out`, (..., D), with the rows of `index`, in its own type."""
    if rows.dtype == out.dtype:
        torch.index_select(rows, 0, index.flatten(), out=out.view(-1, out.shape[-1]))
        return out
    return out.copy_(rows.index_select(0, index.flatten()).view(out.shape))


def product(left: Tensor, right: Tensor, out: Tensor, scale: float = 1.0) -> Tensor:
    """(G, x, y), (G, y, z) -> (G, x, z), times `scale`."""
    return torch.baddbmm(out, left, right, beta=0, alpha=scale, out=out)


def is_special(grad: Tensor) -> bool:
    """Whether a gradient is to have derivatives of its own, or is many at a time."""
    return torch.is_grad_enabled() or torch._C._functorch.is_legacy_batchedtensor(grad)


def plain_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], needed: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """By autograd those of `function(*inputs)` that are `needed`, which have derivatives if gradients are enabled."""
    with torch.enable_grad():
        out = function(*inputs)
    asked = [x for x, need in zip(inputs, needed) if need and x is not None]
    found = iter(torch.autograd.grad(out, asked, grad, create_graph=torch.is_grad_enabled()))
    return [next(found) if need else None for _, need in zip(inputs, needed)]


def written_out(scale: float, mask: Tensor | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as its formula, in operators that have derivatives of every kind."""
    scores = q * scale @ k.mT
    return (scores if mask is None else scores + mask).softmax(-1) @ v


def add_images(scores: Tensor, to: Tensor) -> None:
    """Add (G, L, S), the gradients of scores of some images, to that of what was added to each, (..., L, S)."""
    scores = scores.view(-1, *to.shape)
    to += scores[0] if len(scores) == 1 else scores.sum(0)


def attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    weights: Tensor,
    scale: float,
    scores: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Fill `grads` with those of q, (G, L, D), and of k and v, (G, S, D), and `scores` with theirs, (G, L, S).

    `grads` may be q, v and k themselves, in that order.
    """
    product(grad, v.mT, scores)
    torch._softmax_backward_data(scores, weights, -1, scores.dtype, grad_input=scores)
    product(scores.mT, q, grads[1], scale)
    product(scores, k, grads[0], scale)
    product(weights.mT, grad, grads[2])
