"""Bi-level routing attention in both layouts, and the dense attention of its last stage."""

from typing import Any

from torch import nn

from ops.routed.bilevel_routing import (
    BiLevelRoutingAttention,
    BiLevelRoutingAttention2d,
    DenseLePEAttention,
    DenseLePEAttention2d,
)
from zoo.golden.module_operator import ModuleOperator


def built_as(cls: type[nn.Module]) -> Any:
    """The authors' arguments -> `cls`; what names their class and asks for padding, which ours always does, is left."""
    return lambda cfg: cls(**{name: value for name, value in cfg.items() if name not in ('cls', 'auto_pad')})


OPERATORS = {
    'bra_legacy_*': ModuleOperator(
        built_as(BiLevelRoutingAttention),
        key_rules=((r'^qkv\.qkv\.', 'qkv.'), (r'^wo\.', 'proj.'), (r'^router\.emb\.', 'router.')),
    ),
    'bra_nchw_*': ModuleOperator(
        built_as(BiLevelRoutingAttention2d), key_rules=((r'^qkv_linear\.', 'qkv.'), (r'^output_linear\.', 'proj.'))
    ),
    'bra_attn_lepe': ModuleOperator(built_as(DenseLePEAttention)),
    'bra_attn_lepe_nchw': ModuleOperator(built_as(DenseLePEAttention2d)),
}
