"""Neighborhood attention with its projections and relative position bias, as the authors' modules are.

Papers: https://arxiv.org/abs/2204.07143, https://arxiv.org/abs/2209.15001
Code: https://github.com/SHI-Labs/Neighborhood-Attention-Transformer (MIT), natten 0.14
Letters: B batch, L / H, W / T, H, W positions per axis, C channels, N heads, K kernel size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._linear import Linear
from ops._split import split
from ops.window.neighborhood.functional import BACKENDS, attend, make_window
from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.reference import gather_attention


class _NeighborhoodAttention(nn.Module):
    """(B, *size, C) -> (B, *size, C) over `axes` axes. The arguments are those of `NeighborhoodAttention2D`."""

    axes: int

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        is_causal: bool | Sequence[bool] = False,
        rel_pos_bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        backend: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        names = [known.name for known in BACKENDS]
        if backend not in (None, *names):
            raise ValueError(f'there is no backend {backend!r}; choose one of: {", ".join(names)}')
        window = make_window(self.axes, kernel_size, stride, dilation, is_causal)
        self.num_heads = num_heads
        self.kernel_size, self.stride, self.dilation, self.is_causal = window
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop, self.backend = attn_drop, backend
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        table = (num_heads, *(2 * kernel - 1 for kernel in window.kernel_size))
        self.rpb = nn.Parameter(torch.empty(table, **dd)) if rel_pos_bias else None
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)
        self.reset_bias_table()

    def reset_bias_table(self) -> None:
        """Draw `rpb` from a normal of deviation 0.02, cut at 2."""
        if self.rpb is not None:
            nn.init.trunc_normal_(self.rpb, std=0.02, a=-2.0, b=2.0)

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[1:-1])
        pad = [0, 0]
        for i in range(len(size)):
            axis = len(size) - 1 - i
            pad += [0, max(0, self.kernel_size[axis] * self.dilation[axis] - size[axis])]
        if max(pad) > 0:
            x = F.pad(x, pad)
        x = self.qkv(x)
        parts = x.chunk(3, -1) if torch.jit.is_scripting() else split(x, 3)
        q, k, v = [part.unflatten(-1, [self.num_heads, -1]) for part in parts]
        bias = self.rpb if self.rpb is None else self.rpb.to(q.dtype)
        dropout_p = self.attn_drop if self.training else 0.0
        if torch.jit.is_scripting():
            kernel_size, stride, dilation = list(self.kernel_size), list(self.stride), list(self.dilation)
            is_causal = list(self.is_causal)
            x = gather_attention(q, k, v, kernel_size, stride, dilation, is_causal, self.scale, bias, dropout_p)
        else:
            window = Window(self.kernel_size, self.stride, self.dilation, self.is_causal)
            x = attend(q, k, v, window, self.scale, bias, dropout_p, self.backend)
        x = x.flatten(-2)
        if max(pad) > 0:
            for i, length in enumerate(size):
                x = x.narrow(i + 1, 0, length)
        return self.proj_drop(self.proj(x))

    def extra_repr(self) -> str:
        shown = {'num_heads': self.num_heads, 'kernel_size': self.kernel_size}
        for name, plain in (('stride', 1), ('dilation', 1), ('is_causal', False)):
            if any(entry != plain for entry in getattr(self, name)):
                shown[name] = getattr(self, name)
        if self.rpb is None:
            shown['rel_pos_bias'] = False
        if self.backend is not None:
            shown['backend'] = self.backend
        return ', '.join(f'{name}={value!r}' for name, value in shown.items())


class NeighborhoodAttention1D(_NeighborhoodAttention):
    """(B, L, C) -> (B, L, C). The arguments are those of `NeighborhoodAttention2D`, with one axis."""

    axes = 1


class NeighborhoodAttention2D(_NeighborhoodAttention):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + 2 * K * K * C multiply-adds for each position.

    A map smaller than `kernel_size * dilation` is zero-padded at its end before `qkv`, and cropped before `proj`: the
    padded tokens are attended to, with the bias of `qkv` as their key and value.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        kernel_size: side K of the window in positions, one number or one per axis (so are the next three).
        stride: positions that share one window.
        dilation: step between the keys of one window, in positions.
        is_causal: keep only keys at or before the query.
        rel_pos_bias: learn a bias for each head and relative position, `rpb`.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        backend: name of the backend; the first that can run when None.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    axes = 2


class NeighborhoodAttention3D(_NeighborhoodAttention):
    """(B, T, H, W, C) -> (B, T, H, W, C). The arguments are those of `NeighborhoodAttention2D`, with three axes."""

    axes = 3
