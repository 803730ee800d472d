"""Deformable token merging: patches of 2 x 2 positions become one, each taken from where a convolution says.

Papers: https://arxiv.org/abs/2105.14217 (LIT), https://arxiv.org/abs/2205.13213 (LITv2)
Code: https://github.com/ziplab/LITv2 (Apache-2.0), classification/models/patch_embed.py:DTM
Letters: B batch, C, D channels, H, W height and width in positions, K side of a patch.
"""

from math import ceil, log2
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def resample(x: Tensor, offset: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) and (B, 2 * K * K, H // K, W // K) -> (B, C, H // K * K, W // K * K): each position from elsewhere.

    Bilinear, zeros outside. Computed in float32 at least, for the positions of a map need more digits than bfloat16
    has. Work: 4 * C multiply-adds for each position.

    Args:
        x: the map.
        offset: by how many rows and columns, in this order, each position of a patch is shifted, patches row by row.
        patch_size: side K of a patch.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    # (B, K, K, 2, H // K, W // K) -> (B, H // K * K, W // K * K, 2)
    shift = offset.to(dtype).unflatten(1, (patch_size, patch_size, 2))
    shift = shift.permute(0, 4, 1, 5, 2, 3).flatten(3, 4).flatten(1, 2)
    row = shift[..., 0] + torch.arange(shift.shape[1], device=x.device, dtype=dtype)[:, None]
    column = shift[..., 1] + torch.arange(shift.shape[2], device=x.device, dtype=dtype)
    # A side that is a power of two makes the normalised coordinates of whole positions exact: at the start all offsets
    # are 0, and a rounding there would change to which side their gradient is taken.
    height, width = (2 ** ceil(log2(side)) for side in x.shape[2:])
    padded = F.pad(x.to(dtype), (0, width - x.shape[3], 0, height - x.shape[2]))
    grid = torch.stack(((2 * column + 1) / width - 1, (2 * row + 1) / height - 1), -1)
    return F.grid_sample(padded, grid, align_corners=False).to(x.dtype)


class DeformablePatchConv2d(nn.Conv2d):
    """(B, C, H, W) -> (B, D, H // K, W // K): a convolution over patches whose positions are shifted.

    `offset`, a convolution over the same patches that starts at zero, gives the shift of each position. The map is
    resampled at the shifted positions and then convolved, which is deformable convolution with stride K. Rows and
    columns beyond the last whole patch are dropped; a shift may reach them.

    Args:
        in_chans: channels C.
        dim: channels D.
        patch_size: side K of a patch.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self, in_chans: int, dim: int, patch_size: int, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__(in_chans, dim, patch_size, patch_size, **dd)
        self.patch_size = patch_size
        self.offset = nn.Conv2d(in_chans, 2 * patch_size**2, patch_size, patch_size, **dd)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(resample(x, self.offset(x), self.patch_size))


class DeformableTokenMerging(nn.Module):
    """(B, C, H, W) -> (B, D, H // 2, W // 2): deformable convolution over 2 x 2 patches, batch norm, GELU.

    An odd last row or column is dropped; a single one, where the authors' code fails, is padded with zeros.
    Work: (4 * D + 32) * C multiply-adds for each new position, and 16 * C to resample the map.

    Args:
        dim: channels C.
        out_dim: channels D; 2 * C when None.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self, dim: int, out_dim: int | None = None, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        out_dim = 2 * dim if out_dim is None else out_dim
        self.conv = DeformablePatchConv2d(dim, out_dim, 2, device=device, dtype=dtype)
        self.norm = nn.BatchNorm2d(out_dim, device=device, dtype=dtype)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 2:
            x = F.pad(x, (0, max(0, 2 - x.shape[3]), 0, max(0, 2 - x.shape[2])))
        return self.act(self.norm(self.conv(x)))
