"""Gaussian adaptive attention: factors from how far values lie from the mean along one axis, under learned Gaussians.

Paper: https://arxiv.org/abs/2401.11143
Code: https://github.com/gioannides/Gaussian-Adaptive-Attention (Apache-2.0), GaussianBlock.py
Letters: B batch, C channels, H, W height and width in positions, G Gaussians.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class GaussianHead(nn.Module):
    """(...) -> (...), any shape: x times the product of G Gaussians of (x - mean) / deviation, divided by its sum.

    Mean, deviation and sum are along one axis. The paper speaks of a mixture; the code multiplies. The variance is over
    one less than the number of values (of a single value it is 0, where the code has no number).

    Args:
        norm_axis: the axis.
        num_gaussians: number G of Gaussians.
        padding_value: values that count as 0 in mean and variance and pass unchanged; none when None.
        mean_offset_init: first distance of the Gaussians' centres from the mean.
        eps: least sum, and added to the variance.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        norm_axis: int = 1,
        num_gaussians: int = 3,
        padding_value: float | None = None,
        mean_offset_init: float = 0.0,
        eps: float = 1e-8,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_gaussians < 1:
            raise ValueError(f'num_gaussians is {num_gaussians}: give at least 1')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.norm_axis, self.padding_value, self.eps = norm_axis, padding_value, eps
        self.mean_offsets = nn.Parameter(torch.full((num_gaussians,), mean_offset_init, **dd))
        self.c = nn.Parameter(torch.randn(num_gaussians, **dd).exp())

    def forward(self, x: Tensor) -> Tensor:
        axis = self.norm_axis
        keep = None if self.padding_value is None else x != self.padding_value
        seen = x if keep is None else torch.where(keep, x, 0)
        # float16 does not hold 1e-8.
        eps = max(self.eps, torch.finfo(x.dtype).tiny)
        mean = seen.mean(axis, keepdim=True)
        # `var` warns of an empty batch.
        variance = (seen - mean).square().sum(axis, keepdim=True) / max(x.shape[axis] - 1, 1) + eps
        exponent = torch.zeros_like(x)
        for offset, width in zip(self.mean_offsets, self.c):
            exponent = exponent + ((x - mean - offset) / width).square()
        heights = (2 * math.pi * self.c.square()).rsqrt().prod()
        product = (exponent / (-2 * variance)).exp() * heights
        out = x * (product / product.sum(axis, keepdim=True).clamp(min=eps))
        return out if keep is None else torch.where(keep, out, x)

    def extra_repr(self) -> str:
        return f'norm_axis={self.norm_axis}, num_gaussians={len(self.c)}, padding_value={self.padding_value}'


class GaussianAdaptiveAttention(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): a `GaussianHead` per part of one axis. Tensors of any other number of axes too.

    Work: 2 * G + 4 multiply-adds for each value.

    Args:
        dim: channels C.
        num_heads: parts of the axis; the last one takes what remains of a division.
        num_gaussians: number G of Gaussians.
        norm_axis: the axis, the channels when 1.
        padding_value: see `GaussianHead`.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        num_gaussians: int = 3,
        norm_axis: int = 1,
        padding_value: float | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or (norm_axis == 1 and dim < num_heads):
            raise ValueError(f'num_heads {num_heads} leaves none of {dim} channels to a head: give from 1 to dim')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.norm_axis = norm_axis
        self.heads = nn.ModuleList(
            GaussianHead(norm_axis, num_gaussians, padding_value, **dd) for _ in range(num_heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        length, parts = x.shape[self.norm_axis], len(self.heads)
        if length < parts:
            raise ValueError(f'axis {self.norm_axis} of {length} values cannot be parted among {parts} heads')
        sizes = [length // parts] * (parts - 1) + [length // parts + length % parts]
        pieces = [head(piece) for head, piece in zip(self.heads, x.split(sizes, self.norm_axis))]
        return torch.cat(pieces, self.norm_axis)


class GaussianBlock(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): x + layer(x) for each layer, the authors' form with several of them.

    Args:
        dim: channels C.
        num_heads: parts of the axis, one number per layer (so are the next two).
        num_gaussians: number of Gaussians.
        norm_axes: axes.
        padding_value: see `GaussianHead`.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: Sequence[int] = (4,),
        num_gaussians: Sequence[int] = (3,),
        norm_axes: Sequence[int] = (1,),
        padding_value: float | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not len(num_heads) == len(num_gaussians) == len(norm_axes):
            raise ValueError(f'one entry per layer is needed, got {num_heads=}, {num_gaussians=}, {norm_axes=}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.layers = nn.ModuleList(
            GaussianAdaptiveAttention(dim, heads, gaussians, axis, padding_value, **dd)
            for heads, gaussians, axis in zip(num_heads, num_gaussians, norm_axes)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x
