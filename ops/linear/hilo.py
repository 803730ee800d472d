"""HiLo attention: some heads look into small windows, the others at the means of all windows.

Paper: https://arxiv.org/abs/2205.13213
Code: https://github.com/ziplab/LITv2 (Apache-2.0), hilo.py; with padding in detection/mmdet/models/backbones/litv2.py
Letters: B batch, H, W height and width in positions, C channels, N heads, D channels per head, L positions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops import _attention_native
from ops._attention import attention
from ops._layout import crop, from_windows, pad_to_multiple, to_windows
from ops._linear import Linear


def to_heads(x: Tensor, parts: int, num_heads: int) -> list[Tensor]:
    """(B, L, parts * N * D) -> `parts` tensors (B, N, L, D)."""
    return list(x.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0))


class HiLoAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): the channels of the Hi-Fi heads, then those of the Lo-Fi heads.

    `int(alpha * num_heads)` heads are Lo-Fi: every position looks at the mean of every window. The others are Hi-Fi:
    every position looks at the positions of its own window. Each kind has projections of its own. With windows of one
    position both are the same, and all heads are Lo-Fi.

    A map that is no multiple of the window is padded with zeros at the bottom and right. As in the authors' dense
    backbones, the padding counts in the means and is attended to, its keys and values being the projections' biases.

    Work: with w positions a side of a window and the share a of Lo-Fi heads, (2 a + 2 a / w**2 + 3 (1 - a)) * C * C
    for the projections before, (a**2 + (1 - a)**2) * C * C for those behind and 2 * (a * H * W / w**2 + (1 - a) * w**2)
    * C multiply-adds of the attention, for each position.

    Args:
        dim: channels C.
        num_heads: heads N of both kinds together; must divide `dim`.
        window_size: side of a window in positions.
        alpha: share of Lo-Fi heads, rounded down to whole heads.
        qkv_bias: give the projections to queries, keys and values a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights; the authors' code takes it and leaves it out.
        proj_drop: dropout ratio of the output; likewise.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, `window_size` is below 1 or `alpha` not in 0 ... 1.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int = 2,
        alpha: float = 0.5,
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
        if window_size < 1:
            raise ValueError(f'window_size must be at least 1, got {window_size}')
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha must be a share of the heads from 0 to 1, got {alpha}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        head_dim = dim // num_heads
        self.window_size, self.alpha = window_size, alpha
        self.lo_heads = num_heads if window_size == 1 else int(alpha * num_heads)
        self.hi_heads = num_heads - self.lo_heads
        self.scale = head_dim**-0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        if self.lo_heads:
            lo_dim = self.lo_heads * head_dim
            self.l_q = Linear(dim, lo_dim, bias=qkv_bias, **dd)
            self.l_kv = Linear(dim, 2 * lo_dim, bias=qkv_bias, **dd)
            self.l_proj = Linear(lo_dim, lo_dim, **dd)
        if self.hi_heads:
            hi_dim = self.hi_heads * head_dim
            self.h_qkv = Linear(dim, 3 * hi_dim, bias=qkv_bias, **dd)
            self.h_proj = Linear(hi_dim, hi_dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def hifi(self, x: Tensor) -> Tensor:
        """(B, H, W, C) of whole windows -> (B, H, W, hi_heads * D)."""
        window, grid = (self.window_size, self.window_size), (x.shape[1], x.shape[2])
        q, k, v = to_heads(to_windows(self.h_qkv(x), window), 3, self.hi_heads)
        dropout_p = self.attn_drop if self.training else 0.0
        if dropout_p == 0 and _attention_native.takes(q, k, v):
            out = _attention_native.attention(q, k, v, self.scale)
        else:
            # Written out: fused attention works in blocks of many keys, a window has few.
            out = F.dropout((q @ k.transpose(-2, -1) * self.scale).softmax(-1), dropout_p) @ v
        return self.h_proj(from_windows(out.transpose(1, 2).flatten(2), window, grid))

    def lofi(self, x: Tensor, padded: Tensor) -> Tensor:
        """Queries of (B, H, W, C), keys of the same map padded to whole windows -> (B, H, W, lo_heads * D)."""
        means = F.avg_pool2d(padded.permute(0, 3, 1, 2), self.window_size).permute(0, 2, 3, 1)
        (q,) = to_heads(self.l_q(x).flatten(1, 2), 1, self.lo_heads)
        k, v = to_heads(self.l_kv(means).flatten(1, 2), 2, self.lo_heads)
        dropout_p = self.attn_drop if self.training else 0.0
        out = attention(q, k, v, dropout_p, self.scale)
        return self.l_proj(out.transpose(1, 2).flatten(2).unflatten(1, x.shape[1:3]))

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_to_multiple(x, (self.window_size, self.window_size))
        branches = []
        if self.hi_heads:
            branches.append(crop(self.hifi(padded), (x.shape[1], x.shape[2])))
        if self.lo_heads:
            branches.append(self.lofi(x, padded))
        return self.proj_drop(torch.cat(branches, -1))

    def extra_repr(self) -> str:
        return f'window_size={self.window_size}, hi_heads={self.hi_heads}, lo_heads={self.lo_heads}'
