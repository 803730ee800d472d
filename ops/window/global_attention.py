"""Softmax attention of every position to every other, without a position bias.

Paper: https://arxiv.org/abs/2010.11929
Letters: B batch, H, W height and width in positions, C channels, N heads.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ops._attention import attention
from ops._linear import Linear


class GlobalAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), or (B, L, C) -> (B, L, C).

    Work: 4 * C * C + 2 * H * W * C multiply-adds for each position.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
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
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.flatten(1, -2)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        dropout_p = self.attn_drop if self.training else 0.0
        out = attention(q, k, v, dropout_p, self.scale)
        return self.proj_drop(self.proj(out.transpose(1, 2).reshape(x.shape)))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}'
