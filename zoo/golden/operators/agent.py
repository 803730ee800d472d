"""Agent attention: one core in the bodies of DeiT, PVT, Swin and CSWin, and in their dense forms.

Letters: B batch, H W height and width of a map, C channels, N heads.
"""

import functools
import re
from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import from_windows, to_windows
from ops.linear.agent import AgentAttention, AgentCore, ReducedAgentAttention
from zoo.golden.module_operator import ModuleOperator
from zoo.golden.reference import Jobs, Reference

Arguments = dict[str, Any]

KEY_RULES = (
    (r'^get_v\.', 'dwc.'),
    (r'^(dwc\.|[a-z]{2}_bias$)', r'core.\1'),
)


def common(arguments: Arguments) -> Arguments:
    """What the authors' modules share; the factor of the scores is given as an exponent of C / N."""
    dim, heads = arguments['dim'], arguments.get('num_heads', 8)
    exponent = arguments.get('scale', -0.5)
    return dict(
        dim=dim,
        num_heads=heads,
        agent_num=arguments.get('agent_num', 49),
        kernel_size=arguments.get('kernel_size', 3),
        qk_scale=(dim // heads) ** exponent,
    )


def dense(arguments: Arguments) -> Arguments:
    """What the modules of the dense networks have beside that."""
    return dict(common(arguments), agent_shape=arguments.get('downstream_agent_shape'))


def deit(arguments: Arguments) -> nn.Module:
    """Agent attention with a class token."""
    size, bias = arguments.get('window', 14), arguments.get('qkv_bias', False)
    return AgentAttention(input_size=size, qkv_bias=bias, prefix_tokens=1, **common(arguments))


def pvt(arguments: Arguments) -> nn.Module:
    """Agent attention with keys and values of cells."""
    return ReducedAgentAttention(
        sr_ratio=arguments.get('sr_ratio', 1),
        input_size=isqrt(arguments['num_patches']),
        qkv_bias=arguments.get('qkv_bias', False),
        **dense(arguments),
    )


def swin(arguments: Arguments) -> nn.Module:
    """Agent attention in one window, or over the whole map of a dense network."""
    size, bias = tuple(arguments['window_size']), arguments.get('qkv_bias', True)
    return AgentAttention(input_size=size, qkv_bias=bias, **dense(arguments))


def stripe(arguments: Arguments) -> tuple[int, int]:
    """Height and width of a stripe of CSWin: the whole map, columns, or rows."""
    whole, part = arguments['resolution'], arguments.get('split_size', 7)
    return {-1: (whole, whole), 0: (whole, part), 1: (part, whole)}[arguments['idx']]


def cswin(arguments: Arguments) -> nn.Module:
    """Agent attention in stripes, without projections."""
    return AgentCore(input_size=stripe(arguments), **common(arguments))


def over_stripes(module: nn.Module, qkv: Tensor, arguments: Arguments) -> Tensor:
    """(3, B, H * W, C) -> (B, H * W, C)."""
    size, side = stripe(arguments), arguments['resolution']
    stripes = [to_windows(tokens.unflatten(1, (side, side)), size) for tokens in qkv]
    return from_windows(module(*stripes, size), size, (side, side)).flatten(1, 2)


def after_class(module: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
    """(B, 1 + H * W, C) -> the same, a square map behind a class token."""
    side = isqrt(x.shape[1] - 1)
    return module(x, (side, side))


def over_map(build: Callable[[Arguments], nn.Module]) -> Callable[[Reference, torch.device], Jobs]:
    """Tokens (B, H * W, C) of a map whose H and W stand in the authors' call, of a square one if they do not."""

    def call(size: list[int], module: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
        return module(x.unflatten(1, size or [isqrt(x.shape[1])] * 2)).flatten(1, 2)

    def compare(reference: Reference, device: torch.device) -> Jobs:
        size = [int(number) for number in re.findall(r'\d+', reference.config['official'].get('call', ''))]
        return ModuleOperator(build, KEY_RULES, functools.partial(call, size))(reference, device)

    return compare


OPERATORS = {
    'agent_attn_deit*': ModuleOperator(deit, KEY_RULES, after_class),
    'agent_attn_pvt*': over_map(pvt),
    'agent_attn_swin*': over_map(swin),
    'agent_attn_cswin*': ModuleOperator(cswin, KEY_RULES[:1], over_stripes),
    'dense_agent_attn_pvt*': over_map(pvt),
    'dense_agent_attn_swin*': over_map(swin),
}
