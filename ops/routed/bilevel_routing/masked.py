"""Routed attention on a small map: attention over all regions, with those that were not chosen masked out.

Letters: B batch, R regions of queries, S of keys, T routes, L M positions of a region, N heads, D E channels per head.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._eager import needs_grad
from ops._processor import is_intel

MAX_WASTE, FEW_SCORES = 4, 2000  # scores for each one that is chosen, beyond the few that cost nothing
FEW_TO_TRAIN = 4000  # on Intel's processors, where fused attention is faster
MAX_SCORES = 1 << 16  # of one image and head; above, the work that is masked out costs more than a gather


def attend(
    query: Tensor, key: Tensor, value: Tensor, routes: Tensor, weights: Tensor | None, scale: float, dropout_p: float
) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E) -> (B, R, L, N, E). Work: B * R * L * S * M * N * (D + E)."""
    B, R, L = query.shape[:3]
    S, M = key.shape[1:3]
    chosen = torch.zeros(B, R, S, dtype=torch.bool, device=query.device).scatter(2, routes, 1)
    mask = chosen[:, :, None, :, None].expand(B, R, L, S, M).reshape(B, 1, R * L, S * M)
    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (query, key, value))
    x = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale)
    return x.transpose(1, 2).reshape(*query.shape[:4], value.shape[4])


def why_not(
    query: Tensor, key: Tensor, value: Tensor, routes: Tensor, weights: Tensor | None, scale: float, dropout_p: float
) -> str | None:
    """Return the reason that the call cannot be served, None when it can."""
    if weights is not None:
        return 'soft routing weighs a key differently for every region'
    if query.shape[1] * query.shape[2] * key.shape[1] * key.shape[2] > MAX_SCORES:
        return f'the map has more than {MAX_SCORES} scores per head'  # their number would bind a graph to one size
    return None


def is_worth(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, *_: object) -> bool:
    """Whether few enough scores are masked out. Graphs take it wherever it can run: they serve many sizes."""
    if torch.compiler.is_compiling():
        return True
    positions, keys = query.shape[1] * query.shape[2], key.shape[2]
    few = FEW_TO_TRAIN if query.is_cpu and needs_grad(query, key, value) and is_intel() else FEW_SCORES
    return positions * key.shape[1] * keys <= MAX_WASTE * positions * routes.shape[2] * keys + few
