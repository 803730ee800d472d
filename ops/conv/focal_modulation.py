"""Focal modulation: each position is multiplied by a context, gathered by depthwise convolutions of growing windows.

Paper: https://arxiv.org/abs/2203.11926
Code: https://github.com/microsoft/FocalNet (MIT), classification/focalnet.py
Letters: B batch, H, W height and width in positions, C channels, L focal levels, K kernel size of a level.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._conv import ConvAct
from ops._depthwise import DepthwiseConv2d
from ops._layout import spatial_mean
from ops._linear import Linear, linear
from ops._norm import LayerNorm


class FocalModulation(nn.Module):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + (L + 1) * C + sum(K * K) * C multiply-adds for each position.

    Context 0 is a projection of the input; context l is the GELU of a depthwise convolution of context l - 1, the map
    zero-padded; context L + 1 is the GELU of the mean of context L. The sum of contexts 1 to L + 1, each weighted by a
    linear gate per position, is projected to the modulator, which multiplies the query.

    Args:
        dim: channels C.
        focal_window: kernel size of the first level in positions.
        focal_level: number of levels L.
        focal_factor: positions that each level's kernel is larger than the one before.
        bias: give `f` (query, context and gates) and `h` (the modulator) a bias.
        proj_drop: dropout ratio of the output.
        use_postln_in_modulation: normalise the modulated query, by `ln`, before the last projection.
        normalize_modulator: divide the sum of the contexts by their number, L + 1.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: a kernel size is even or below 1, or the number of levels below 0.
    """

    def __init__(
        self,
        dim: int,
        focal_window: int,
        focal_level: int,
        focal_factor: int = 2,
        bias: bool = True,
        proj_drop: float = 0.0,
        use_postln_in_modulation: bool = False,
        normalize_modulator: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kernels = [focal_window + focal_factor * level for level in range(focal_level)]
        if focal_level < 0 or any(kernel < 1 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(
                f'kernel sizes must be odd: focal_window {focal_window} (odd) + l * focal_factor {focal_factor} (even) '
                f'for l below focal_level {focal_level} gives {kernels}'
            )
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.parts = [dim, dim, focal_level + 1]
        self.normalize_modulator = normalize_modulator
        self.f = Linear(dim, sum(self.parts), bias=bias, **dd)
        self.focal_layers = nn.ModuleList(
            ConvAct(DepthwiseConv2d(dim, kernel, bias=False, **dd), nn.GELU()) for kernel in kernels
        )
        self.h = nn.Conv2d(dim, dim, 1, bias=bias, **dd)
        self.ln = LayerNorm(dim, **dd) if use_postln_in_modulation else nn.Identity()
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = self.project(x)
        modulator = self.h(self.gather(context.permute(0, 3, 1, 2), gates.permute(0, 3, 1, 2)))
        return self.proj_drop(self.proj(self.ln(query * modulator.permute(0, 2, 3, 1))))

    def project(self, x: Tensor) -> list[Tensor]:
        """(B, H, W, C) -> query and context (B, H, W, C), gates (B, H, W, L + 1).

        One product for each: as one, its 2 * C + L + 1 columns would be slower, and every part a strided view.
        """
        weights = self.f.weight.split(self.parts)
        biases = [None] * len(weights) if self.f.bias is None else self.f.bias.split(self.parts)
        return [linear(x, weight, bias) for weight, bias in zip(weights, biases)]

    def gather(self, context: Tensor, gates: Tensor) -> Tensor:
        """(B, C, H, W), (B, L + 1, H, W) -> (B, C, H, W): the gated sum of the contexts of all levels."""
        total = context.new_zeros(())
        for level, layer in enumerate(self.focal_layers):
            context = layer(context)
            total = torch.addcmul(total, context, gates[:, level, None])
        mean = F.gelu(spatial_mean(context))
        total = torch.addcmul(total, mean[:, :, None, None], gates[:, -1:])
        return total / gates.shape[1] if self.normalize_modulator else total


def resize_kernel(kernel: Tensor, shape: torch.Size) -> Tensor:
    """(C, 1, k, k) -> `shape` (C, 1, K, K): zeros around a kernel that is too small, the middle of one too large."""
    margins = [(new - old) // 2 for old, new in zip(kernel.shape[2:], shape[2:])]
    return F.pad(kernel, [margin for margin in reversed(margins) for _ in range(2)])


def resize_levels(rows: Tensor, shape: torch.Size) -> Tensor:
    """Weight (2 * C + l + 1, C), also of a 1 x 1 convolution, or bias of `f` -> `shape` with L instead of l levels.

    Gates of new levels are zero, those of the last levels are dropped where L < l; the last row, the gate of the mean
    over the map, stays the last.
    """
    rows = rows.flatten(1) if rows.ndim > 1 else rows
    rest = torch.cat([rows[:-1], rows.new_zeros(shape[0], *rows.shape[1:])])[: shape[0] - 1]
    return torch.cat([rest, rows[-1:]])
