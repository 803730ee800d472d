"""Polarised self-attention: a factor per channel and one per position, each from one softmax over all positions.

Paper: https://arxiv.org/abs/2107.00782
Code: https://github.com/DeLightCMU/PSA (Apache-2.0), semantic-segmentation/network/PSA.py
Letters: B batch, C channels, I = C / 2 inner channels, H, W height and width in positions.

The channel branch is that of the paper. In the spatial branch the paper takes the softmax of the pooled query over the
channels; the code takes one over the positions, of the product of query and value (parallel) or of the value
(sequential).
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

SOFTMAXES = ('scores', 'value', 'query')


def pointwise(dim: int, out: int, device: Any, dtype: torch.dtype | None) -> nn.Conv2d:
    """A 1 x 1 convolution without bias, drawn as the authors draw theirs."""
    conv = nn.Conv2d(dim, out, 1, bias=False, device=device, dtype=dtype)
    nn.init.kaiming_normal_(conv.weight, mode='fan_in', nonlinearity='relu')
    return conv


class ChannelBranch(nn.Module):
    """(B, C, H, W) -> (B, C, 1, 1): sigmoid(up(sum over positions of v(x) * softmax over positions of q(x))).

    Args:
        dim: channels C.
        up: (B, I, 1, 1) -> (B, C, 1, 1).
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, dim: int, up: nn.Module, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.q = pointwise(dim, 1, device, dtype)
        self.v = pointwise(dim, dim // 2, device, dtype)
        self.up = up

    def forward(self, x: Tensor) -> Tensor:
        weights = self.q(x).flatten(2).softmax(-1)
        context = self.v(x).flatten(2) @ weights.transpose(1, 2)
        return self.up(context[..., None]).sigmoid()


class SpatialBranch(nn.Module):
    """(B, C, H, W) -> (B, 1, H, W): sigmoid of the product of the pooled query and the value of each position.

    Args:
        dim: channels C.
        softmax: of the product 'scores' or of the 'value', over positions, or of the 'query', over channels.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, dim: int, softmax: str, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if softmax not in SOFTMAXES:
            raise ValueError(f'softmax is {softmax!r}: choose one of {SOFTMAXES}')
        self.q = pointwise(dim, dim // 2, device, dtype)
        self.v = pointwise(dim, dim // 2, device, dtype)
        self.softmax = softmax

    def forward(self, x: Tensor) -> Tensor:
        query, value = self.q(x.mean((2, 3), keepdim=True)).flatten(1), self.v(x).flatten(2)
        if self.softmax == 'query':
            query = query.softmax(-1)
        elif self.softmax == 'value':
            value = value.softmax(-1)
        scores = query[:, None] @ value
        if self.softmax == 'scores':
            scores = scores.softmax(-1)
        return scores.unflatten(-1, x.shape[2:]).sigmoid()

    def extra_repr(self) -> str:
        return f'softmax={self.softmax!r}'


class PolarizedParallel(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * channel(x) + x * spatial(x), the authors' `PSA_p`.

    Work: C * C + 2 * C multiply-adds for each position.

    Args:
        dim: channels C, at least 2.
        softmax: placement in the spatial branch, see `SpatialBranch`; 'query' is the paper.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, dim: int, softmax: str = 'scores', device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if dim < 2:
            raise ValueError(f'dim {dim} leaves no inner channel: give at least 2')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.channel = ChannelBranch(dim, nn.Conv2d(dim // 2, dim, 1, bias=False, **dd), **dd)
        self.spatial = SpatialBranch(dim, softmax, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.channel(x) + self.spatial(x))


class PolarizedSequential(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): y = x * channel(x), then y * spatial(y), the authors' `PSA_s`.

    Work: C * C + 2 * C multiply-adds for each position.

    Args:
        dim: channels C, at least 2 * `ratio`.
        ratio: inner channels over those of the bottleneck that leads back to C.
        softmax: placement in the spatial branch, see `SpatialBranch`; 'query' is the paper.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        ratio: int = 4,
        softmax: str = 'value',
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if ratio < 1 or dim < 2 * ratio:
            raise ValueError(f'dim {dim} leaves no channel at ratio {ratio}: give at least {2 * max(ratio, 1)}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        hidden = dim // 2 // ratio
        up = OrderedDict(
            reduce=nn.Conv2d(dim // 2, hidden, 1, **dd),
            norm=nn.LayerNorm([hidden, 1, 1], **dd),
            act=nn.ReLU(),
            expand=nn.Conv2d(hidden, dim, 1, **dd),
        )
        self.channel = ChannelBranch(dim, nn.Sequential(up), **dd)
        self.spatial = SpatialBranch(dim, softmax, **dd)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel(x)
        return x * self.spatial(x)
