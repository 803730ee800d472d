"""MBConv as MaxViT has it: batch norm first, a depthwise convolution between two of 1 x 1, a gate over its channels.

Paper: https://arxiv.org/abs/2204.01697
Code: https://github.com/google-research/maxvit (Apache-2.0), maxvit/models/maxvit.py, in TensorFlow, and its port
https://github.com/huggingface/pytorch-image-models (Apache-2.0), timm/models/maxxvit.py. At odd sizes the two differ:
the average pooling of the port, and this one, counts the zeros of the padding, TensorFlow's leaves them out.
Letters: B batch, H, W height and width in positions, C channels, D channels of the output.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._conv import conv2d_act
from ops._depthwise import conv2d
from ops._layout import known_zero, missing
from ops._onednn import Sliding
from ops.gate.se import SqueezeExcitation


def same_padding(length: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis such that ceil(length / stride) positions come out, as TensorFlow's 'SAME'."""
    total = missing(length, stride) + kernel_size - stride
    if kernel_size < stride:  # else it is not negative, which torch.compile would not see
        total = max(total, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride)), zero-padded as TensorFlow does."""

    def same(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """The map, kernel and padding of the convolution without a name for its padding that this one is."""
        top, bottom = same_padding(x.shape[2], self.kernel_size[0], self.stride[0])
        left, right = same_padding(x.shape[3], self.kernel_size[1], self.stride[1])
        if known_zero(bottom - top, right - left):
            return x, weight, (top, left)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return F.pad(x, (left, right, top, bottom)), weight, (0, 0)
        # A zero in front of the kernel spares the copy of the map; its backward pass would be slower than that, a graph
        # for many sizes cannot have it, and onnxruntime takes a padded kernel for a padded map.
        return x, F.pad(weight, (right - left, 0, bottom - top, 0)), (bottom, right)

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight, padding = self.same(x, weight)
        return conv2d(x, weight, bias, Sliding(self.stride, padding, self.dilation, self.groups))


class SameAvgPool2d(nn.Module):
    """(B, C, H, W) -> (B, C, ceil(H / k), ceil(W / k)): means over k x k positions, zeros beyond bottom and right."""

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        bottom, right = missing(x.shape[2], self.kernel_size), missing(x.shape[3], self.kernel_size)
        x = x if known_zero(bottom, right) else F.pad(x, (0, right, 0, bottom))
        return F.avg_pool2d(x, self.kernel_size)

    def extra_repr(self) -> str:
        return f'kernel_size={self.kernel_size}'


def conv_norm_act(conv: SameConv2d, norm: nn.BatchNorm2d, act: nn.Module, x: Tensor) -> Tensor:
    """act(norm(conv(x))), no bias in the convolution; outside training the norm is a part of the convolution."""
    if norm.training:
        return act(norm(conv(x)))
    variance, mean = cast(Tensor, norm.running_var), cast(Tensor, norm.running_mean)
    factor = norm.weight * (variance + norm.eps).rsqrt()
    x, weight, padding = conv.same(x, conv.weight * factor[:, None, None, None])
    sliding = Sliding(conv.stride, padding, conv.dilation, conv.groups)
    return conv2d_act(x, weight, norm.bias - mean * factor, act, sliding)


class MBConv(nn.Module):
    """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride)), with a shortcut.

    Work: C * E multiply-adds for each position and (K * K + D) * E for each one of the output, E = expand_ratio * D.

    Args:
        dim: channels C.
        out_dim: channels D, those of the input when None.
        stride: of the depthwise convolution and of the pooling in the shortcut.
        kernel_size: side K of the depthwise convolution.
        expand_ratio: channels between the two 1 x 1 convolutions over D.
        se_reduction: those channels over the hidden ones of the gate, rounded down; no gate where it is 0.
        drop_path: what the branch passes before the shortcut is added, such as stochastic depth.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: a size or ratio is out of its range.
    """

    def __init__(
        self,
        dim: int,
        out_dim: int | None = None,
        stride: int = 1,
        kernel_size: int = 3,
        expand_ratio: float = 4.0,
        se_reduction: int = 16,
        drop_path: nn.Module | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        out_dim = dim if out_dim is None else out_dim
        hidden = int(out_dim * expand_ratio)
        if min(stride, kernel_size, hidden) < 1:
            raise ValueError(f'there is nothing to compute with {stride=}, {kernel_size=}, {out_dim=}, {expand_ratio=}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        norm: Callable[[int], nn.BatchNorm2d] = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01, **dd)
        self.pre_norm = norm(dim)
        self.expand_conv = SameConv2d(dim, hidden, 1, bias=False, **dd)
        self.expand_norm = norm(hidden)
        self.depthwise_conv = SameConv2d(hidden, hidden, kernel_size, stride, groups=hidden, bias=False, **dd)
        self.depthwise_norm = norm(hidden)
        gate = SqueezeExcitation(hidden, se_reduction, act_layer=nn.SiLU, **dd) if se_reduction else None
        self.se = gate or nn.Identity()
        self.shrink_conv = nn.Conv2d(hidden, out_dim, 1, **dd)
        self.shortcut_pool = nn.Identity() if stride == 1 else SameAvgPool2d(stride)
        self.shortcut_conv = nn.Identity() if dim == out_dim else nn.Conv2d(dim, out_dim, 1, **dd)
        self.drop_path = nn.Identity() if drop_path is None else drop_path
        self.act = nn.GELU(approximate='tanh')

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut_conv(self.shortcut_pool(x))
        x = conv_norm_act(self.expand_conv, self.expand_norm, self.act, self.pre_norm(x))
        x = conv_norm_act(self.depthwise_conv, self.depthwise_norm, self.act, x)
        return self.drop_path(self.shrink_conv(self.se(x))) + shortcut
