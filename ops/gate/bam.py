"""Bottleneck attention module: a factor per channel and position, from a channel and a spatial branch.

Paper: https://arxiv.org/abs/1807.06514
Code: https://github.com/Jongchan/attention-module (MIT), MODELS/bam.py
Letters: B batch, C channels, R channels of the branches, H, W height and width in positions.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import spatial_mean
from ops.gate._checks import reduced


class BAM(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * (1 + sigmoid(channel(mean of x over H and W) * spatial(x))).

    The code multiplies the two branches where the paper adds them: `combine=torch.add` is the paper. The code's pooling
    takes the height for both sides and so needs square maps; here it is the mean of the whole map, which is the same
    on those. Work: R * (C + 9 * R * dilation_conv_num + 1) multiply-adds for each position, with R = C / reduction.

    Args:
        dim: channels C.
        reduction: C over R, rounded down.
        num_layers: hidden layers of the channel branch.
        dilation_conv_num: dilated 3 x 3 convolutions of the spatial branch.
        dilation: their step, in positions.
        combine: (B, C, 1, 1) and (B, 1, H, W) -> (B, C, H, W).
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        reduction: int = 16,
        num_layers: int = 1,
        dilation_conv_num: int = 2,
        dilation: int = 4,
        combine: Callable[[Tensor, Tensor], Tensor] = torch.mul,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(num_layers, dilation_conv_num, dilation) < 1:
            raise ValueError(f'each must be at least 1: {num_layers=}, {dilation_conv_num=}, {dilation=}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        hidden = reduced(dim, reduction)
        channel, spatial = OrderedDict[str, nn.Module](), OrderedDict[str, nn.Module]()
        for i in range(num_layers):
            channel[f'fc_{i}'] = nn.Linear(hidden if i else dim, hidden, **dd)
            channel[f'bn_{i + 1}'] = nn.BatchNorm1d(hidden, **dd)
            channel[f'relu_{i + 1}'] = nn.ReLU()
        channel['fc_final'] = nn.Linear(hidden, dim, **dd)
        spatial['conv_reduce0'] = nn.Conv2d(dim, hidden, 1, **dd)
        spatial['bn_reduce0'] = nn.BatchNorm2d(hidden, **dd)
        spatial['relu_reduce0'] = nn.ReLU()
        for i in range(dilation_conv_num):
            spatial[f'conv_di_{i}'] = nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, **dd)
            spatial[f'bn_di_{i}'] = nn.BatchNorm2d(hidden, **dd)
            spatial[f'relu_di_{i}'] = nn.ReLU()
        spatial['conv_final'] = nn.Conv2d(hidden, 1, 1, **dd)
        self.channel, self.spatial = nn.Sequential(channel), nn.Sequential(spatial)
        self.combine = combine

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel(spatial_mean(x))[:, :, None, None]
        return x * (1 + self.combine(channel, self.spatial(x)).sigmoid())
