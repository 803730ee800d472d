"""The block of Swin in which agent attention may stand, and its window attention: tokens (B, H * W, C)."""

from typing import Any

from torch import Tensor, nn

from ops._layout import pair
from ops.linear.agent_windows import WindowAgentAttention
from ops.window.shifted_window import ShiftedWindowAttention
from zoo.golden.module_operator import ModuleOperator
from zoo.mlp import Mlp
from zoo.parts import PreNormBlock

Arguments = dict[str, Any]

KEY_RULES = (
    (r'(^|\.)(relative_position_index|attn_mask)$', None),
    (r'^attn\.(dwc\.|[a-z]{2}_bias$)', r'mixer.core.\1'),
    (r'^attn\.', 'mixer.'),
)


def block(arguments: Arguments) -> nn.Module:
    """A pre-norm block; a window as large as the map is not shifted."""
    dim, resolution = arguments['dim'], min(arguments['input_resolution'])
    window, shift = arguments.get('window_size', 7), arguments.get('shift_size', 0)
    if resolution <= window:
        window, shift = resolution, 0
    options = dict(window_size=window, shift_size=shift, qkv_bias=arguments.get('qkv_bias', True))
    mixer: nn.Module
    if arguments.get('attn_type', 'A') == 'A':
        options.update(agent_num=arguments.get('agent_num', 49))
        mixer = WindowAgentAttention(dim, arguments['num_heads'], **options)
    else:
        options.update(qk_scale=arguments.get('qk_scale'))
        mixer = ShiftedWindowAttention(dim, arguments['num_heads'], **options)
    return PreNormBlock(dim, mixer, Mlp(dim, int(dim * arguments.get('mlp_ratio', 4))))


def windows(arguments: Arguments) -> nn.Module:
    """Attention inside windows that were cut before."""
    options = {name: arguments[name] for name in ('qkv_bias', 'qk_scale') if name in arguments}
    return ShiftedWindowAttention(arguments['dim'], arguments['num_heads'], arguments['window_size'], **options)


def on_map(module: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
    """The module on the tokens of the map or window that its arguments name."""
    side = arguments['input_resolution'] if 'input_resolution' in arguments else arguments['window_size']
    return module(x.unflatten(1, pair(side, 'side'))).flatten(1, 2)


OPERATORS = {
    'swin_block*': ModuleOperator(block, KEY_RULES, on_map),
    'window_att*': ModuleOperator(windows, KEY_RULES[:1], on_map),
}
