"""Convolutions with the GELU behind them, in one pass by oneDNN where that is allowed, see `ops._eager`."""

import torch
from torch import Tensor, nn

from ops._depthwise import DepthwiseConv2d, conv2d
from ops._eager import has_hooks, needs_grad
from ops._onednn import Sliding, convolution, form_of, fused_dtype, takes


def conv2d_act(x: Tensor, weight: Tensor, bias: Tensor | None, act: nn.Module, sliding: Sliding) -> Tensor:
    """(B, C, H, W) -> (B, D, H', W'): act(F.conv2d(...)); in inference, on a map NHWC in memory, in one pass."""
    form = form_of(act)
    if (
        form is None
        or not takes(x, weight, bias, fused_dtype(x))
        or needs_grad(x, weight, bias)
        or x.ndim != 4
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return act(conv2d(x, weight, bias, sliding))
    return convolution(x, weight, bias, sliding, form)


def conv_act(conv: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D, H', W'): act(conv(x)) likewise."""
    if not isinstance(conv, nn.Conv2d) or type(conv) not in (nn.Conv2d, DepthwiseConv2d) or has_hooks(conv):
        return act(conv(x))
    if conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        return act(conv(x))
    sliding = Sliding(conv.stride, conv.padding, conv.dilation, conv.groups)
    return conv2d_act(x, conv.weight, conv.bias, act, sliding)


class ConvAct(nn.Sequential):
    """(B, C, H, W) -> (B, D, H', W'): a convolution and its activation, `conv_act` of the two."""

    def forward(self, x: Tensor) -> Tensor:
        return conv_act(self[0], self[1], x)
