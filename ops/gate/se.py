"""Squeeze-and-excitation: a factor per channel from the means of all channels.

Paper: https://arxiv.org/abs/1709.01507
Code: https://github.com/hujie-frank/SENet (Apache-2.0), Caffe; in PyTorch timm's `legacy_senet` holds its weights, with
    biases, and https://github.com/moskomule/senet.pytorch (MIT) has matrices without biases.
Letters: B batch, C channels, H, W height and width in positions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import spatial_mean
from ops.gate._checks import reduced


class SqueezeExcitation(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(fc2(act(fc1(mean of x over H and W)))).

    Work: 2 * C * C / reduction multiply-adds, and C for each position.

    Args:
        dim: channels C.
        reduction: C over the channels between `fc1` and `fc2`, rounded down.
        bias: give both layers biases, as in the authors' weights.
        linear: keep the weights as matrices (out, in) instead of kernels (out, in, 1, 1); nothing else changes.
        act_layer: makes the activation between the layers.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        reduction: int = 16,
        bias: bool = True,
        linear: bool = False,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        hidden = reduced(dim, reduction)
        layer = nn.Linear if linear else partial(nn.Conv2d, kernel_size=1)
        self.fc1 = layer(dim, hidden, bias=bias, **dd)
        self.fc2 = layer(hidden, dim, bias=bias, **dd)
        self.linear = linear
        self.act = act_layer()

    def forward(self, x: Tensor) -> Tensor:
        pooled = spatial_mean(x)
        factors = self.fc2(self.act(self.fc1(pooled if self.linear else pooled[:, :, None, None]))).sigmoid()
        return x * (factors[:, :, None, None] if self.linear else factors)
