"""Block and grid attention: each position attends to its window, or to as many positions spread over the whole map.

Paper: https://arxiv.org/abs/2204.01697
Code: https://github.com/google-research/maxvit (Apache-2.0), maxvit/models/maxvit.py
Letters: B batch, H, W height and width in positions, h, w of a window, L = h * w, C channels, N heads, D channels per
head.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._layout import crop, from_windows, known_zero, missing, pad_to_multiple, pair, to_windows
from ops._linear import Linear
from ops.window.relative_attention import biased_attention, relative_bias


def to_grid(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B * H/h * W/w, h * w, C): positions H/h rows and W/w columns apart; h and w must divide H, W."""
    (B, H, W, C), (h, w) = x.shape, size
    cells = x.reshape(B, h, H // h, w, W // w, C).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(B * (H // h) * (W // w), h * w, C)


def from_grid(windows: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(B * H/h * W/w, h * w, C) -> (B, H, W, C), the inverse of `to_grid` for a map of `grid` (H, W)."""
    (h, w), (H, W), C = size, grid, windows.shape[-1]
    rows, columns = H // h, W // w
    B = windows.shape[0] // (rows * columns)
    return windows.reshape(B, rows, columns, h, w, C).permute(0, 3, 1, 4, 2, 5).reshape(B, H, W, C)


class _PartitionAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C). The arguments are those of `BlockAttention`."""

    partition: ClassVar[Callable[..., Tensor]]
    reverse: ClassVar[Callable[..., Tensor]]

    def __init__(
        self,
        dim: int,
        num_heads: int,
        partition_size: int | Sequence[int] = 7,
        rel_pos_bias: bool = True,
        mask_padding: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_heads = num_heads
        self.partition_size = height, width = pair(partition_size, 'partition_size')
        self.mask_padding = mask_padding
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        table = (num_heads, 2 * height - 1, 2 * width - 1)
        self.rpb = nn.Parameter(torch.empty(table, **dd)) if rel_pos_bias else None
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)
        if self.rpb is not None:
            nn.init.normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        bias = self.bias(x)
        x = pad_to_multiple(x, self.partition_size)
        padded = (x.shape[1], x.shape[2])
        qkv = self.qkv(self.partition(x, self.partition_size)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = bias if bias is None else bias.to(q.dtype)
        x = biased_attention(q, k, v, bias, self.scale, self.attn_drop if self.training else 0.0)
        x = self.reverse(x.transpose(1, 2).flatten(2), self.partition_size, padded)
        return self.proj_drop(self.proj(crop(x, (height, width))))

    def bias(self, x: Tensor) -> Tensor | None:
        """What is added to the scores of the windows of (B, H, W, C): (1, N, L, L), (B * windows, N or 1, L, L)."""
        bias = None if self.rpb is None else relative_bias(self.rpb)[None]
        bottom, right = (missing(length, side) for length, side in zip(x.shape[1:3], self.partition_size))
        if not self.mask_padding or known_zero(bottom, right):
            return bias
        outside = F.pad(x.new_zeros(1, *x.shape[1:3], 1), (0, 0, 0, right, 0, bottom), value=-inf)
        mask = self.partition(outside, self.partition_size).mT[:, None]
        mask = mask.expand(-1, -1, mask.shape[-1], -1) if bias is None else mask + bias
        return mask.expand(x.shape[0], *mask.shape).flatten(0, 1)

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, partition_size={self.partition_size}'


class BlockAttention(_PartitionAttention):
    """(B, H, W, C) -> (B, H, W, C), in windows of h x w neighbours. Work: 4 * C * C + 2 * h * w * C per position.

    A map that the windows do not divide is padded at its bottom and right; nothing attends to the padding.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        partition_size: h and w of a window in positions, one number for both.
        rel_pos_bias: learn a bias for each head and relative position, `rpb`, entry key - query + size - 1 per axis.
        mask_padding: where False, padded positions are attended to with the biases of `qkv` as their keys and values.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, or `partition_size` is not one or two numbers above 0.
    """

    partition = staticmethod(to_windows)
    reverse = staticmethod(from_windows)


class GridAttention(_PartitionAttention):
    """(B, H, W, C) -> (B, H, W, C), in groups of h x w positions that are H/h rows and W/w columns apart.

    Work as that of `BlockAttention`; so are the arguments, `partition_size` being the rows and columns of a group.
    """

    partition = staticmethod(to_grid)
    reverse = staticmethod(from_grid)
