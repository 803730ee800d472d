"""Cross-shaped window attention in its block, as the paper's code has it: tokens (B, H * W, C) of a square map."""

from math import isqrt
from typing import Any

from timm.layers import Mlp
from torch import Tensor, nn

from ops.window.cross_shaped import CrossShapedWindowAttention
from zoo.golden.module_operator import ModuleOperator
from zoo.parts import PreNormBlock

KEY_RULES = (
    (r'^attns\.(\d)\.get_v\.', r'mixer.branches.\1.dwc.'),
    (r'^(qkv|proj)\.', r'mixer.\1.'),
)


def square(x: Tensor) -> Tensor:
    """(B, H * H, C) -> (B, H, H, C)."""
    return x.unflatten(1, (isqrt(x.shape[1]),) * 2)


def block(arguments: dict[str, Any]) -> nn.Module:
    """A pre-norm block; the stripes are the whole map where they are as wide."""
    dim, split_size = arguments['dim'], arguments['split_size']
    whole = arguments.get('last_stage') or split_size == arguments['reso']
    mixer = CrossShapedWindowAttention(
        dim,
        arguments['num_heads'],
        None if whole else split_size,
        arguments.get('qkv_bias', False),
        arguments.get('qk_scale'),
    )
    return PreNormBlock(dim, mixer, Mlp(dim, int(dim * arguments.get('mlp_ratio', 4))))


def on_square(module: nn.Module, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    """The module on tokens of a square map."""
    return module(square(x)).flatten(1, 2)


OPERATORS = {'cswin_block_B*': ModuleOperator(block, KEY_RULES, on_square)}
