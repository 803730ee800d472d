"""Efficient local attention: a factor per channel and row, and one per channel and column, from 1-d convolutions.

Paper: https://arxiv.org/abs/2403.01123; its code has not been released
Code: timm's `EfficientLocalAttn` (Apache-2.0), which differs
Letters: B batch, C channels, H, W height and width in positions, K kernel size, G channels per group.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ops.gate._checks import half
from ops.gate._norm import GroupNorm


class EfficientLocalAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(norm(conv(rows))) * sigmoid(norm(conv(columns))).

    Rows and columns are the means of x over W and over H; one convolution and one norm serve both. The paper's sizes:
    T `kernel_size=5, norm_groups=32`, B the defaults, S `kernel_size=5, group_width=8`, L `group_width=8`.
    Work: C * G * K * (H + W) multiply-adds, and 2 * C for each position.

    Args:
        dim: channels C.
        kernel_size: odd length K of the convolution.
        group_width: channels G that one output channel sees. Of this, as of the next, the greatest common divisor with
            `dim` is taken.
        norm_groups: groups of the norm.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        group_width: int = 1,
        norm_groups: int = 16,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(dim, group_width, norm_groups) < 1:
            raise ValueError(f'each must be at least 1: {dim=}, {group_width=}, {norm_groups=}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        groups = dim // math.gcd(dim, group_width)
        self.conv = nn.Conv1d(dim, dim, kernel_size, padding=half(kernel_size), groups=groups, bias=False, **dd)
        self.norm = GroupNorm(math.gcd(dim, norm_groups), dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (self.norm(self.conv(means)).sigmoid() for means in (x.mean(3), x.mean(2)))
        return x * rows[:, :, :, None] * columns[:, :, None]


class SeparateLocalAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(silu(norm_h(conv_h(rows)))) * sigmoid(silu(norm_w(conv_w(columns)))).

    timm's `EfficientLocalAttn`: each axis has its own layers, the norm has one group, and there is a SiLU.
    Work: C * K * (H + W) multiply-adds, and 2 * C for each position.

    Args:
        dim: channels C.
        kernel_size: odd length K of the convolutions.
        bias: of the convolutions.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        pad = half(kernel_size)
        self.conv_h = nn.Conv2d(dim, dim, (kernel_size, 1), padding=(pad, 0), groups=dim, bias=bias, **dd)
        self.conv_w = nn.Conv2d(dim, dim, (1, kernel_size), padding=(0, pad), groups=dim, bias=bias, **dd)
        self.norm_h = GroupNorm(1, dim, **dd)
        self.norm_w = GroupNorm(1, dim, **dd)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        rows = self.act(self.norm_h(self.conv_h(x.mean(3, keepdim=True)))).sigmoid()
        columns = self.act(self.norm_w(self.conv_w(x.mean(2, keepdim=True)))).sigmoid()
        return x * rows * columns
