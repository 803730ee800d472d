"""Which regions a region attends to, and the attention itself, with an explicit choice of backend.

Letters: B batch, R regions of queries, S of keys, T routes, L M positions of a region, N heads, D E channels per head,
C channels.
"""

import torch
from torch import Tensor

from ops._attention import attention
from ops._backends import Backend, choose
from ops.routed.bilevel_routing import chunked, masked, reference

BACKENDS = (
    Backend('masked', masked.attend, masked.why_not, masked.is_worth),
    Backend('reference', reference.attend, reference.why_not, reference.is_worth),
    Backend('chunked', chunked.attend, chunked.why_not),
)


def find_routes(query: Tensor, key: Tensor, topk: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """(B, R, C), (B, S, C) -> the softmax of the `topk` largest scores (B, R, T), and their regions (B, R, T)."""
    scores, routes = torch.topk((query * scale) @ key.mT, topk)
    return scores.softmax(dim=-1), routes


def attend_everywhere(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout_p: float) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E) -> (B, R, L, N, E), over all regions."""
    q, k, v = (x.flatten(1, 2).transpose(1, 2) for x in (query, key, value))
    x = attention(q, k, v, dropout_p, scale)
    return x.transpose(1, 2).reshape(*query.shape[:4], value.shape[4])


def check_tensors(query: Tensor, key: Tensor, value: Tensor, routes: Tensor, weights: Tensor | None) -> None:
    """ValueError unless the tensors fit each other."""
    if query.dim() != 5 or key.dim() != 5 or value.shape[:-1] != key.shape[:-1]:
        shapes = ', '.join(str(tuple(x.shape)) for x in (query, key, value))
        raise ValueError(f'shapes must be (B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E), got {shapes}')
    if query.shape[0] != key.shape[0] or query.shape[3:] != key.shape[3:]:
        raise ValueError(f'query {tuple(query.shape)} and key {tuple(key.shape)} differ in B, N or D')
    if routes.dim() != 3 or routes.shape[:2] != query.shape[:2] or routes.dtype != torch.int64:
        raise ValueError(f'routes must be int64 (B, R, T), got {routes.dtype} {tuple(routes.shape)}')
    if weights is not None and weights.shape != routes.shape:
        raise ValueError(f'weights have shape {tuple(weights.shape)}, routes {tuple(routes.shape)}: they must be equal')


def routed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    routes: Tensor,
    scale: float | None = None,
    *,
    weights: Tensor | None = None,
    dropout_p: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    """(B, R, L, N, D), (B, S, M, N, D), (B, S, M, N, E) -> (B, R, L, N, E).

    The L queries of a region attend to the T * M keys of its routes, which must differ, in one softmax.
    Work: B * R * L * T * M * N * (D + E) multiply-adds.

    Args:
        query: queries.
        key: keys.
        value: values.
        routes: regions of keys that each region of queries attends to, (B, R, T), below S.
        scale: factor of the scores; D ** -0.5 when None.
        weights: factors of the keys and of the values of each route, (B, R, T).
        dropout_p: dropout ratio of the attention weights.
        backend: name in `BACKENDS`; what their rules prefer when None, ValueError when the named one cannot.

    Raises:
        ValueError: the shapes do not fit, or the backend cannot run the call.
    """
    check_tensors(query, key, value, routes, weights)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    call = (query, key, value, routes, weights, scale, dropout_p)
    return choose(BACKENDS, backend, *call)(*call)
