"""Efficient channel attention: a factor per channel from the means of the channels beside it.

Paper: https://arxiv.org/abs/1910.03151
Code: https://github.com/BangguWu/ECANet (MIT), models/eca_module.py
Letters: B batch, C channels, H, W height and width in positions, K kernel size.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import spatial_mean
from ops.gate._checks import half


def adaptive_kernel_size(dim: int, gamma: float = 2.0, beta: float = 1.0) -> int:
    """Kernel of the paper for C channels: |log2(C) + beta| / gamma, rounded down, then up to an odd number."""
    size = int(abs(math.log2(dim) + beta) / gamma)
    return size if size % 2 else size + 1


class EfficientChannelAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x * sigmoid(convolution, along C, of the mean of x over H and W).

    The released networks do not follow the paper's rule for the kernel: each stage has its own, and the code defaults
    to 3. Work: C * K multiply-adds, and C for each position.

    Args:
        dim: channels C.
        kernel_size: odd number K of channels that one factor depends on; the paper's `adaptive_kernel_size` when None.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self, dim: int, kernel_size: int | None = 3, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f'dim is {dim}: give a positive number of channels')
        size = adaptive_kernel_size(dim) if kernel_size is None else kernel_size
        self.conv = nn.Conv1d(1, 1, size, padding=half(size), bias=False, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        pooled = spatial_mean(x)[:, None]
        return x * self.conv(pooled).sigmoid().transpose(1, 2)[..., None]
