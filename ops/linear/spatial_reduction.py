"""Attention of all positions to keys and values of every R x R cell, by a strided convolution.

Paper: https://arxiv.org/abs/2102.12122 (PVT)
Code: https://github.com/whai362/PVT (Apache-2.0), classification/pvt.py
Letters: B batch, H W height and width in positions, C channels, N heads, R reduction of keys and values.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._attention import attention
from ops._linear import Linear
from ops._norm import LayerNorm


def reduced_size(size: tuple[int, int], sr_ratio: int) -> tuple[int, int]:
    """Whole cells of a map; a map smaller than a cell is one cell."""
    return max(size[0] // sr_ratio, 1), max(size[1] // sr_ratio, 1)


class SpatialReductionAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), every position to the H / R x W / R cells; (B, L, C) too where R is 1.

    Work: (3 + 2 / R ** 2) * C * C + 2 * H * W / R ** 2 * C multiply-adds for each position, one C * C less
    where R is 1.
    Rows and columns beyond the last whole cell have no keys, as in the paper's code; a map smaller than a cell is
    zero-padded to one.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        sr_ratio: side R of the cells that share a key and a value; every position has its own when 1.
        qkv_bias: give `q` and `kv` biases.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, or `sr_ratio` is below 1.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int = 1,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        if sr_ratio < 1:
            raise ValueError(f'sr_ratio must be at least 1, got {sr_ratio}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_heads, self.sr_ratio = num_heads, sr_ratio
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        self.q = Linear(dim, dim, bias=qkv_bias, **dd)
        self.kv = Linear(dim, 2 * dim, bias=qkv_bias, **dd)
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, sr_ratio, sr_ratio, **dd)
            self.norm = LayerNorm(dim, **dd)

    def reduce(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C): one vector for each cell."""
        missing = [max(self.sr_ratio - side, 0) for side in x.shape[1:3]]
        if max(missing) > 0:
            x = F.pad(x, (0, 0, 0, missing[1], 0, missing[0]))
        return self.norm(self.sr(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, L, C), twice (B, S, C) -> (B, L, C), queries of a map of `grid` (H, W)."""
        heads = (self.num_heads, -1)
        q, k, v = (tokens.unflatten(2, heads).transpose(1, 2) for tokens in (q, k, v))
        dropout_p = self.attn_drop if self.training else 0.0
        x = attention(q, k, v, dropout_p, self.scale)
        return x.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        q = self.q(x).flatten(1, -2)
        k, v = self.kv(self.reduce(x) if self.sr_ratio > 1 else x).flatten(1, -2).chunk(2, dim=-1)
        out = self.attend(q, k, v, (x.shape[1], x.shape[2]))
        return self.proj_drop(self.proj(out.reshape(x.shape)))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, sr_ratio={self.sr_ratio}'
