"""Coordinate attention: a factor per channel and row, and one per channel and column.

Paper: https://arxiv.org/abs/2103.02907
Code: https://github.com/houqb/CoordAttention (MIT), coordatt.py and mbv2_ca.py
Letters: B batch, C channels, R channels of the hidden map, H, W height and width in positions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CoordinateAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(conv_h(rows)) * sigmoid(conv_w(columns)).

    Rows and columns are hardswish(bn1(conv1(means))), of the means of x over W and over H. The released network names
    `conv_h` and `conv_w` `conv2` and `conv3`. timm's `CoordAttn` has other widths and no biases, and cannot hold its
    weights. Work: 2 * C * R * (H + W) multiply-adds, and 2 * C for each position.

    Args:
        dim: channels C.
        reduction: C over R, rounded down.
        min_width: least R.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        reduction: int = 32,
        min_width: int = 8,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(dim, reduction, min_width) < 1:
            raise ValueError(f'each must be at least 1: {dim=}, {reduction=}, {min_width=}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        hidden = max(min_width, dim // reduction)
        self.conv1 = nn.Conv2d(dim, hidden, 1, **dd)
        self.bn1 = nn.BatchNorm2d(hidden, **dd)
        self.conv_h = nn.Conv2d(hidden, dim, 1, **dd)
        self.conv_w = nn.Conv2d(hidden, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        means = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
        hidden = F.hardswish(self.bn1(self.conv1(means)))
        rows, columns = hidden.split([x.shape[2], x.shape[3]], 2)
        return x * self.conv_w(columns.transpose(2, 3)).sigmoid() * self.conv_h(rows).sigmoid()
