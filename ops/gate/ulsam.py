"""Ultra-lightweight subspace attention: per group of channels one softmax over all positions, as a residual.

Paper: https://arxiv.org/abs/2006.15102
Code: https://github.com/Nandan91/ULSAM (no licence), ulsam.py
Letters: B batch, C channels, H, W height and width in positions.
"""

from typing import Any

import torch
from torch import Tensor, nn


class Subspace(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x + x * softmax over H and W of relu(bn_point(conv_point(largest of 3 x 3))).

    What the largest of each 3 x 3 positions is taken of is relu(bn_dws(conv_dws(x))), one weight per channel.

    Args:
        dim: channels C.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, dim: int, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.conv_dws = nn.Conv2d(dim, dim, 1, groups=dim, **dd)
        self.bn_dws = nn.BatchNorm2d(dim, momentum=0.9, **dd)
        self.maxpool = nn.MaxPool2d(3, stride=1, padding=1)
        self.conv_point = nn.Conv2d(dim, 1, 1, **dd)
        self.bn_point = nn.BatchNorm2d(1, momentum=0.9, **dd)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.maxpool(self.bn_dws(self.conv_dws(x)).relu())
        scores = self.bn_point(self.conv_point(hidden)).relu()
        return x + x * scores.flatten(2).softmax(-1).reshape(scores.shape)


class ULSAM(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): a `Subspace` per group of neighbouring channels.

    Work: 3 * C multiply-adds for each position. The code also asks for the size of the map and does not use it.

    Args:
        dim: channels C.
        num_splits: groups; must divide `dim`.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(self, dim: int, num_splits: int = 4, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if num_splits < 1 or dim < 1 or dim % num_splits:
            raise ValueError(f'dim {dim} is not a multiple of num_splits {num_splits}: give a divisor')
        subspaces = [Subspace(dim // num_splits, device, dtype) for _ in range(num_splits)]
        self.subspaces = nn.ModuleList(subspaces)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.subspaces), 1)
        return torch.cat([subspace(part) for subspace, part in zip(self.subspaces, parts)], 1)
