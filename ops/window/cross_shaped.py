"""Cross-shaped windows: half of the channels attend inside vertical stripes of the map, half inside horizontal ones.

Paper: https://arxiv.org/abs/2107.00652 (CSWin)
Code: https://github.com/microsoft/CSWin-Transformer (MIT), models/cswin.py; maps that the stripes do not fit as in
segmentation/backbone/cswin_transformer.py
Letters: B batch, H, W height and width of the map, h, w of a stripe, C channels, N heads.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._attention import attention
from ops._layout import crop, from_windows, known_zero, missing, to_windows
from ops._linear import Linear

Stripe = tuple[int | None, int | None]
"""Height and width of a stripe in positions, None for the side of the map."""


def lacking(size: tuple[int, int], stripe: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns that a map of `size` lacks to be whole stripes; none along a side that is one stripe."""
    H, W = (0 if known_zero(side - length) else missing(side, length) for side, length in zip(size, stripe))
    return H, W


def to_stripes(x: Tensor, stripe: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B * ceil(H / h) * ceil(W / w), h * w, C), zeros around a map that the stripes do not fit.

    The zeros are shared between the two sides of an axis; an odd one lies at the end.
    """
    bottom, right = lacking((x.shape[1], x.shape[2]), stripe)
    if not known_zero(bottom, right):
        x = F.pad(x, (0, 0, right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
    return to_windows(x, stripe)


def from_stripes(stripes: Tensor, stripe: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `to_stripes` for a map of `size` (H, W); what lies on the zeros is left out."""
    H, W = size
    bottom, right = lacking(size, stripe)
    x = from_windows(stripes, stripe, (H + bottom, W + right))
    return crop(x, size, (bottom // 2, right // 2))


def crossing_stripes(dim: int, num_heads: int, split_size: int | None) -> list[Stripe]:
    """The stripes of each branch: two that cross each other, or one without `split_size`.

    Raises:
        ValueError: the branches cannot share channels and heads, or there are no stripes of that size.
    """
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
    if split_size is None:
        return [(None, None)]
    if split_size < 1:
        raise ValueError(f'split_size {split_size} must be above 0, or None for the whole map')
    if num_heads % 2:
        raise ValueError(f'num_heads {num_heads} must be even for two branches, or split_size None')
    return [(None, split_size), (split_size, None)]


class StripeAttention(nn.Module):
    """(B, H, W, C) x 3 -> (B, H, W, C): each query attends to the keys of its stripe; there are no projections.

    A depth-wise 3 x 3 convolution of the values inside each stripe is added, the locally enhanced position encoding.
    Zeros complete the outer stripes; as in the authors' dense backbone they are keys like any other, of score 0.
    Work: 2 * h * w * C + 9 * C multiply-adds for each position.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        stripe: height and width of a stripe in positions, None for the side of the map.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        stripe: Stripe,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        self.num_heads, self.stripe, self.attn_drop = num_heads, stripe, attn_drop
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, device=device, dtype=dtype)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        H, W = q.shape[1:3]
        stripe = self.stripe[0] or H, self.stripe[1] or W
        q, k, values = (to_stripes(t, stripe) for t in (q, k, v))
        q, k, v = (t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (q, k, values))
        dropout_p = self.attn_drop if self.training else 0.0
        x = attention(q, k, v, dropout_p, self.scale)
        x = x.transpose(1, 2).flatten(2) + self.dwc(values.mT.unflatten(-1, stripe)).flatten(2).mT
        return from_stripes(x, stripe, (H, W))

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, stripe={self.stripe}'


class BranchedAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C): common projections around branches that share the channels equally.

    Args:
        dim: channels C; a multiple of the number of branches.
        branches: each takes its share of queries, keys and values, (B, H, W, C / branches) x 3 -> the same shape.
        qkv_bias: give `qkv` a bias.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        branches: Sequence[nn.Module],
        qkv_bias: bool = True,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not branches or dim % len(branches):
            raise ValueError(f'dim {dim} cannot be shared equally by {len(branches)} branches')
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, device=device, dtype=dtype)
        self.branches = nn.ModuleList(branches)
        self.proj = Linear(dim, dim, device=device, dtype=dtype)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.qkv(x).unflatten(-1, (3, len(self.branches), -1)).unbind(-2)
        x = torch.cat([branch(*share.unbind(-2)) for branch, share in zip(self.branches, shares)], dim=-1)
        return self.proj_drop(self.proj(x))


class CrossShapedWindowAttention(BranchedAttention):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + (H + W) * split_size * C + 9 * C multiply-adds for each position.

    The first half of channels and heads attends inside stripes of H x `split_size` positions, the second inside stripes
    of `split_size` x W. Without `split_size` all channels attend to the whole map, which is the authors' last stage:
    2 * H * W * C multiply-adds for each position instead of those with (H + W).

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`, and be even with `split_size`.
        split_size: width of the stripes in positions, None for one branch over the whole map.
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
        split_size: int | None = 7,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        stripes = crossing_stripes(dim, num_heads, split_size)
        shares = dim // len(stripes), num_heads // len(stripes)
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        branches = [StripeAttention(*shares, stripe, qk_scale, attn_drop, **dd) for stripe in stripes]
        super().__init__(dim, branches, qkv_bias, proj_drop, **dd)
