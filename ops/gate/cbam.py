"""Convolutional block attention module: a factor per channel, then a factor per position.

Paper: https://arxiv.org/abs/1807.06521
Code: https://github.com/Jongchan/attention-module (MIT), MODELS/cbam.py
Letters: B batch, C channels, H, W height and width in positions, K kernel size.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ops.gate._checks import half, reduced

# `max` and not `amax`: among equal values the first takes the whole gradient, as in the authors' code.
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    'avg': lambda x: x.mean(-1),
    'max': lambda x: x.max(-1).values,
    'lp': lambda x: torch.linalg.vector_norm(x, dim=-1),
    'lse': lambda x: torch.logsumexp(x, -1),
}
"""Name -> (B, C, L) to (B, C): mean, largest, Euclidean norm, logarithm of the sum of exponentials."""


class ChannelGate(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(sum over poolings of fc2(relu(fc1(pooling of x over H and W)))).

    Args:
        dim: channels C.
        reduction: C over the channels between `fc1` and `fc2`, rounded down.
        pool_types: names in `POOLINGS`.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        reduction: int = 16,
        pool_types: Sequence[str] = ('avg', 'max'),
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not pool_types or set(pool_types) - set(POOLINGS):
            raise ValueError(f'pool_types are {pool_types!r}: give one or more of {list(POOLINGS)}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        hidden = reduced(dim, reduction)
        self.pool_types = tuple(pool_types)
        self.fc1 = nn.Linear(dim, hidden, **dd)
        self.fc2 = nn.Linear(hidden, dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.stack([POOLINGS[name](x.flatten(2)) for name in self.pool_types])
        return x * self.fc2(self.fc1(pooled).relu()).sum(0).sigmoid()[:, :, None, None]

    def extra_repr(self) -> str:
        return f'pool_types={self.pool_types}'


class SpatialGate(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(bn(conv(largest and mean of x over C))).

    The authors' networks begin with a `bn.weight` of 0, every factor one half.

    Args:
        kernel_size: odd side K of the convolution.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, kernel_size: int = 7, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=half(kernel_size), bias=False, **dd)
        self.bn = nn.BatchNorm2d(1, momentum=0.01, **dd)

    def factors(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1, H, W), from 0 to 1."""
        pooled = torch.cat([x.max(1, keepdim=True).values, x.mean(1, keepdim=True)], 1)
        return self.bn(self.conv(pooled)).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factors(x)


class CBAM(nn.Sequential):
    """(B, C, H, W) -> (B, C, H, W): a `ChannelGate`, then a `SpatialGate`.

    Work: 2 * C * C / reduction multiply-adds per pooling, and 2 * K * K + 2 * C for each position. timm's `CbamModule`
    has no biases in the channel gate and the mean before the maximum in the spatial one: to take weights over, swap the
    two input channels of its convolution and add biases of 0.

    Args:
        dim: channels C.
        reduction: C over the hidden channels of the channel gate, rounded down.
        pool_types: poolings of the channel gate, names in `POOLINGS`.
        no_spatial: leave out the spatial gate.
        kernel_size: odd side K of the spatial gate's convolution.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        reduction: int = 16,
        pool_types: Sequence[str] = ('avg', 'max'),
        no_spatial: bool = False,
        kernel_size: int = 7,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.channel_gate = ChannelGate(dim, reduction, pool_types, **dd)
        if not no_spatial:
            self.spatial_gate = SpatialGate(kernel_size, **dd)
