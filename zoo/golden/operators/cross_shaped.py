"""The block of CSWin, as the papers that build on it have it too: tokens (B, H * W, C) of a square map."""

from math import isqrt
from typing import Any

from torch import Tensor, nn

from ops.linear.agent_windows import CrossShapedAgentAttention
from ops.window.cross_shaped import CrossShapedWindowAttention
from zoo.golden.module_operator import ModuleOperator
from zoo.mlp import Mlp
from zoo.parts import PreNormBlock

KEY_RULES = (
    (r'^attns\.(\d)\.get_v\.', r'mixer.branches.\1.dwc.'),
    (r'^attns\.', 'mixer.branches.'),
    (r'^(qkv|proj)\.', r'mixer.\1.'),
)


def block(arguments: dict[str, Any]) -> nn.Module:
    """A pre-norm block; its stripes are the whole map where they are as wide."""
    dim, split_size = arguments['dim'], arguments.get('split_size', 7)
    whole = arguments.get('last_stage') or split_size == arguments['reso']
    options = dict(split_size=None if whole else split_size, qkv_bias=arguments.get('qkv_bias', False))
    mixer: nn.Module
    if arguments.get('attn_type') == 'A':
        options.update(input_size=arguments['reso'], agent_num=arguments.get('agent_num', 49))
        mixer = CrossShapedAgentAttention(dim, arguments['num_heads'], **options)
    else:
        options.update(qk_scale=arguments.get('qk_scale'))
        mixer = CrossShapedWindowAttention(dim, arguments['num_heads'], **options)
    return PreNormBlock(dim, mixer, Mlp(dim, int(dim * arguments.get('mlp_ratio', 4))))


def on_square(module: nn.Module, x: Tensor, arguments: dict[str, Any]) -> Tensor:
    """The module on tokens of a square map."""
    side = isqrt(x.shape[1])
    return module(x.unflatten(1, (side, side))).flatten(1, 2)


OPERATORS = {'cswin_block*': ModuleOperator(block, KEY_RULES, on_square)}
