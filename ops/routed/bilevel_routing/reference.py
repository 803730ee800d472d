"""Routed attention by gathering the keys and values of all regions: the oracle of the other backend.

Letters: B batch, R regions of queries, S of keys, T routes, L M positions of a region, N heads, D E channels per head.
"""

import torch
from torch import Tensor

from ops._eager import needs_grad
from ops._processor import is_intel

SMALL, SMALL_TO_TRAIN = 1 << 17, 1 << 20  # numbers that are gathered, times the routes of a region


def attend(
    query: Tensor, key: Tensor, value: Tensor, routes: Tensor, weights: Tensor | None, scale: float, dropout_p: float
) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E) -> (B, R, L, N, E). Memory: B * R * T * M * N * (D + E)."""
    image = torch.arange(key.shape[0], device=key.device)[:, None, None]
    k, v = key[image, routes], value[image, routes]
    if weights is not None:
        factors = weights[..., None, None, None]
        k, v = factors * k, factors * v
    k, v = k.flatten(2, 3), v.flatten(2, 3)
    scores = torch.einsum('brlnd,brknd->brnlk', query * scale, k)
    attention = torch.dropout(scores.softmax(dim=-1), dropout_p, dropout_p > 0.0)
    return torch.einsum('brnlk,brkne->brlne', attention, v)


def why_not(*_: object) -> None:
    """Return None: the reference runs everywhere."""


def is_worth(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, *_: object) -> bool:
    """Whether so little is gathered that chunks would cost more. Not so in graphs, which serve many sizes."""
    if torch.compiler.is_compiling() or query.device.type != 'cpu':
        return False
    topk, keys = routes.shape[2], routes.shape[2] * key.shape[2]
    if query.shape[2] * keys == 1:  # scores are sums then, not products of matrices
        return True
    gathered = routes.shape[0] * routes.shape[1] * keys * key.shape[3] * (key.shape[4] + value.shape[4])
    most = SMALL_TO_TRAIN if needs_grad(query, key, value) and not is_intel() else SMALL
    return gathered * topk <= most
