"""HiLo attention, and the deformable merging that stands between the stages of its backbone.

Letters: B batch, H W height and width of a map, C channels.
"""

from typing import Any

from torch import Tensor, nn

from ops.conv.deformable_merging import DeformableTokenMerging
from ops.linear.hilo import HiLoAttention
from zoo.golden.module_operator import ModuleOperator

MERGING_RULES = (
    (r'^dconv\.conv_offset\.', 'conv.offset.'),
    (r'^dconv\.', 'conv.'),
    (r'^norm_layer\.', 'norm.'),
)


def hilo(arguments: dict[str, Any]) -> nn.Module:
    """HiLo attention with the authors' defaults."""
    names = ('dim', 'window_size', 'alpha', 'qk_scale')
    shared = {name: arguments[name] for name in names if name in arguments}
    return HiLoAttention(num_heads=arguments.get('num_heads', 8), qkv_bias=arguments.get('qkv_bias', False), **shared)


def over_map(module: nn.Module, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    """(B, H * W, C) -> the same, a map of `H` by `W`."""
    return module(x.unflatten(1, (arguments['H'], arguments['W']))).flatten(1, 2)


OPERATORS = {
    'hilo_*': ModuleOperator(hilo, call=over_map),
    'dtm_*': ModuleOperator(lambda arguments: DeformableTokenMerging(arguments['dim']), MERGING_RULES),
}
