"""Focal modulation and its block: references of microsoft/FocalNet.

Letters: B batch, H W height and width of a map, C channels.
"""

from typing import Any

from torch import Tensor, nn

from ops import FocalModulation
from zoo.golden.models import pick
from zoo.golden.module_operator import ModuleOperator
from zoo.parts import focal_block

BLOCK_KEYS = (
    (r'^gamma_([12])$', r'scale\1.gamma'),
    (r'^modulation\.', 'mixer.'),
)


def block(arguments: dict[str, Any]) -> nn.Module:
    """A block; `drop` and `drop_path` are of no use in a reference."""
    flags = pick('mlp_ratio', 'use_postln', 'use_postln_in_modulation', 'normalize_modulator')(arguments)
    layer_scale = arguments.get('layerscale_value', 1e-4) if arguments.get('use_layerscale') else None
    window, level = arguments.get('focal_window', 3), arguments.get('focal_level', 1)
    return focal_block(arguments['dim'], window, level, layer_scale=layer_scale, **flags)


def over_map(module: nn.Module, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    """(B, H * W, C) -> (B, H * W, C)."""
    return module(x.unflatten(1, arguments['input_resolution'])).flatten(1, 2)


OPERATORS = {
    'focal_modulation_*': ModuleOperator(lambda arguments: FocalModulation(**arguments)),
    'focal_block_*': ModuleOperator(block, BLOCK_KEYS, over_map),
}
