"""Attention over the whole map with a depth-wise convolution beside it (LePE), as in the last stage of BiFormer.

Paper: https://arxiv.org/abs/2303.08810
Code: https://github.com/rayleizhu/BiFormer (MIT), models/_common.py
The paper convolves the values; of the released networks those in (B, H, W, C) convolve the input instead.
Letters: B batch, H W height and width in positions, C channels, N heads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ops._attention import attention
from ops._depthwise import DepthwiseConv2d
from ops._linear import Linear


def local_enhancement(dim: int, kernel_size: int, **dd: Any) -> DepthwiseConv2d | None:
    """(B, C, H, W) -> (B, C, H, W): the depth-wise convolution LePE, None for a `kernel_size` of 0.

    Raises:
        ValueError: `kernel_size` is negative, or even: its window would have no centre.
    """
    if kernel_size < 0 or (kernel_size and kernel_size % 2 == 0):
        raise ValueError(f'side_dwconv must be odd, or 0 for none, got {kernel_size}')
    return DepthwiseConv2d(dim, kernel_size, **dd) if kernel_size else None


class _DenseLePEAttention(nn.Module):
    """The parameters of both forms, which are those of `DenseLePEAttention`."""

    linear: Callable[..., nn.Module]

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        side_dwconv: int = 5,
        qkv_bias: bool = False,
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
        self.qkv = self.linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.lepe = local_enhancement(dim, side_dwconv, **dd)
        self.proj = self.linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, H * W, D) x 3 -> (B, N, H * W, D)."""
        dropout_p = self.attn_drop if self.training else 0.0
        return attention(q, k, v, dropout_p, self.scale)

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}'


class DenseLePEAttention(_DenseLePEAttention):
    """(B, H, W, C) -> (B, H, W, C): proj(attention(x) + lepe(x)). Work: 4 * C * C + 2 * H * W * C for each position.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        side_dwconv: side of the kernel of LePE in positions, 0 for none.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, or `side_dwconv` is even.
    """

    linear = Linear

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        out = self.attend(q, k, v).transpose(1, 2).reshape(x.shape)
        if self.lepe is not None:
            out = out + self.lepe(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj_drop(self.proj(out))


class DenseLePEAttention2d(_DenseLePEAttention):
    """(B, C, H, W) -> (B, C, H, W): proj(attention(x) + lepe(v)), where `qkv` and `proj` are 1 x 1 convolutions.

    The arguments are those of `DenseLePEAttention`.
    """

    linear = partial(nn.Conv2d, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        heads = qkv.flatten(2).unflatten(1, (3, self.num_heads, -1)).transpose(-1, -2)
        # the fused kernels want the channels of a head side by side
        q, k, v = heads.contiguous().unbind(1)
        out = self.attend(q, k, v).transpose(-1, -2).reshape(x.shape)
        if self.lepe is not None:
            out = out + self.lepe(qkv.chunk(3, dim=1)[2])
        return self.proj_drop(self.proj(out))
