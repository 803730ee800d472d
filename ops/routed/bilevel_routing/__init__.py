"""Bi-level routing attention (BRA): regions choose regions, then positions attend inside what was chosen."""

from ops.routed.bilevel_routing.dense import DenseLePEAttention, DenseLePEAttention2d
from ops.routed.bilevel_routing.functional import BACKENDS, routed_attention
from ops.routed.bilevel_routing.module import BiLevelRoutingAttention, BiLevelRoutingAttention2d

__all__ = [
    'BACKENDS',
    'BiLevelRoutingAttention',
    'BiLevelRoutingAttention2d',
    'DenseLePEAttention',
    'DenseLePEAttention2d',
    'routed_attention',
]
