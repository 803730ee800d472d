"""Attention inside square windows with a relative position bias, the windows shifted in every second block.

Paper: https://arxiv.org/abs/2103.14030 (Swin)
Code: https://github.com/microsoft/Swin-Transformer (MIT), models/swin_transformer.py; maps that the windows do not fit
as in https://github.com/SwinTransformer/Swin-Transformer-Object-Detection (Apache-2.0)
Letters: B batch, H, W height and width of the map, h, w of a window, T = h * w, C channels, N heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._layout import crop, from_windows, pad_to_multiple, pair, to_windows
from ops._linear import Linear
from ops.window.relative_attention import relative_bias

BLOCKED = -100.0
"""What is added to the scores between positions that are neighbours only because the map was rolled."""


def check_shift(shift_size: int | Sequence[int], window_size: tuple[int, int]) -> tuple[int, int]:
    """One number for both axes, or one per axis, below that of the window.

    Raises:
        ValueError: anything else.
    """
    steps = (shift_size, shift_size) if isinstance(shift_size, int) else tuple(shift_size)
    if len(steps) != 2 or not all(0 <= step < side for step, side in zip(steps, window_size)):
        raise ValueError(
            f'shift_size {shift_size} must be one or two numbers from 0 to below window_size {window_size}'
        )
    return steps


def shift_mask(size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device) -> Tensor:
    """What is added to the scores in each window of a rolled map of `size`: 0 or `BLOCKED`, (H / h * W / w, T, T)."""
    regions = []
    for length, side, step in zip(size, window, shift):
        position = torch.arange(length, device=device)
        regions.append((position >= length - side).int() + (position >= length - step).int())
    region = to_windows((3 * regions[0][:, None] + regions[1])[None, ..., None], window)
    return BLOCKED * (region != region.mT)


class ShiftedWindowAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + 2 * h * w * C multiply-adds for each position.

    A map that the windows do not fit is zero-padded at bottom and right before `qkv`, as in the authors' dense
    backbone: the padded positions are attended to, with the bias of `qkv` as their key and value. The shift holds on
    any map; where the authors leave it out, in classifiers whose map is one window, `shift_size` is 0.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        window_size: side of a window in positions, one number or one per axis.
        shift_size: positions by which the map is rolled up and left, one number or one per axis; below `window_size`.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int | Sequence[int] = 7,
        shift_size: int | Sequence[int] = 0,
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
        self.window_size = h, w = pair(window_size, 'window_size')
        self.shift_size = check_shift(shift_size, self.window_size)
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * h - 1) * (2 * w - 1), num_heads, **dd))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02, a=-2.0, b=2.0)
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def position_bias(self) -> Tensor:
        """The bias of every query and key of a window, (N, T, T)."""
        h, w = self.window_size
        table = self.relative_position_bias_table.unflatten(0, (2 * h - 1, 2 * w - 1)).permute(2, 0, 1)
        # Row and column of this table are query - key.
        return relative_bias(table.flip(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[1:3]
        x = pad_to_multiple(x, self.window_size)
        size, shifted = (x.shape[1], x.shape[2]), any(self.shift_size)
        bias = self.position_bias()[None]
        if shifted:
            x = x.roll([-step for step in self.shift_size], dims=(1, 2))
            bias = bias + shift_mask(size, self.window_size, self.shift_size, x.device).to(bias.dtype)[:, None]
        qkv = self.qkv(to_windows(x, self.window_size)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # A kernel takes one bias per head: windows with masks of their own are counted as heads.
        q, k, v = qkv.unflatten(1, (-1, len(bias))).flatten(2, 3).unbind()
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=bias.flatten(0, 1)[None].to(q.dtype),
            dropout_p=self.attn_drop if self.training else 0.0,
            scale=self.scale,
        )
        x = x.unflatten(1, (-1, self.num_heads)).flatten(0, 1).transpose(1, 2).flatten(2)
        x = from_windows(self.proj_drop(self.proj(x)), self.window_size, size)
        if shifted:
            x = x.roll(self.shift_size, dims=(1, 2))
        return crop(x, (H, W))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, window_size={self.window_size}, shift_size={self.shift_size}'
