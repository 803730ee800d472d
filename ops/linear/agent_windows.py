"""Agent attention inside the windows of Swin or the stripes of CSWin: each has agents of its own.

Paper: https://arxiv.org/abs/2312.08874
Code: https://github.com/LeapLabTHU/Agent-Attention (no licence file), agent_transformer/models/agent_swin.py and
agent_cswin.py. The released networks give agent attention the whole map; parts of it are what the paper compares with.
Letters: B batch, H W height and width in positions, h w of a window or stripe, C channels, N heads, A agents.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ops._layout import crop, from_windows, pad_to_multiple, pair, to_windows
from ops._linear import Linear
from ops._split import split
from ops.linear.agent import AgentCore
from ops.window.cross_shaped import BranchedAttention, Stripe, crossing_stripes, from_stripes, to_stripes
from ops.window.shifted_window import check_shift


class WindowAgentAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + 4 * A * C + 9 * C multiply-adds for each position.

    A map that the windows do not fit is zero-padded at bottom and right before `qkv`, as in `ShiftedWindowAttention`.
    Where a shift brings opposite sides of the map into one window nothing is masked: the paper's code ignores its mask.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        window_size: side of a window in positions, one number or one per axis.
        shift_size: positions by which the map is rolled up and left, one number or one per axis; below `window_size`.
        agent_num: agents A that the biases are made for, a square number.
        agent_shape: grid of agents; the square of `agent_num` when None.
        kernel_size: of the depthwise convolution of the values.
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
        agent_num: int = 49,
        agent_shape: int | tuple[int, int] | None = None,
        kernel_size: int = 3,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.window_size = pair(window_size, 'window_size')
        self.shift_size = check_shift(shift_size, self.window_size)
        self.core = AgentCore(
            dim,
            num_heads,
            self.window_size,
            agent_num,
            agent_shape=agent_shape,
            kernel_size=kernel_size,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            **dd,
        )
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[1:3]
        x = pad_to_multiple(x, self.window_size)
        size = x.shape[1], x.shape[2]
        if any(self.shift_size):
            x = x.roll([-step for step in self.shift_size], dims=(1, 2))
        windows = self.core(*split(self.qkv(to_windows(x, self.window_size)), 3), self.window_size)
        x = from_windows(self.proj_drop(self.proj(windows)), self.window_size, size)
        if any(self.shift_size):
            x = x.roll(self.shift_size, dims=(1, 2))
        return crop(x, (H, W))

    def extra_repr(self) -> str:
        return f'window_size={self.window_size}, shift_size={self.shift_size}'


class AgentStripes(AgentCore):
    """(B, H, W, C) x 3 -> (B, H, W, C): agent attention inside stripes, without projections.

    Zeros complete the outer stripes as in `StripeAttention`.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        stripe: height and width of a stripe in positions, None for the side of the map.
        input_size: H and W of the map that the biases are made for; others take them resized.
        agent_num: agents A that the biases are made for, a square number.
        agent_shape: grid of agents; the square of `agent_num` when None.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of both attention weights.
        device: where the parameters are made.
        dtype: of the parameters.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        stripe: Stripe,
        input_size: int | Sequence[int],
        agent_num: int = 49,
        agent_shape: int | tuple[int, int] | None = None,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        H, W = pair(input_size, 'input_size')
        super().__init__(
            dim,
            num_heads,
            (stripe[0] or H, stripe[1] or W),
            agent_num,
            agent_shape=agent_shape,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            device=device,
            dtype=dtype,
        )
        self.stripe = stripe

    def set_input_size(self, input_size: tuple[int, int]) -> None:
        """Make the biases per row and column those of another map size: new, linearly resized parameters."""
        self.resize_biases((self.stripe[0] or input_size[0], self.stripe[1] or input_size[1]))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        H, W = q.shape[1:3]
        stripe = self.stripe[0] or H, self.stripe[1] or W
        q, k, v = (to_stripes(t, stripe) for t in (q, k, v))
        return from_stripes(super().forward(q, k, v, stripe), stripe, (H, W))


class CrossShapedAgentAttention(BranchedAttention):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + 4 * A * C + 9 * C multiply-adds for each position.

    Channels, heads and stripes are shared between the branches as in `CrossShapedWindowAttention`.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`, and be even with `split_size`.
        split_size: width of the stripes in positions, None for one branch over the whole map.
        input_size: H and W of the map that the biases are made for; others take them resized.
        agent_num: agents A of a stripe that the biases are made for, a square number.
        agent_shape: grid of agents; the square of `agent_num` when None.
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
        split_size: int | None = None,
        input_size: int | Sequence[int] = 14,
        agent_num: int = 49,
        agent_shape: int | tuple[int, int] | None = None,
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
        branches = [
            AgentStripes(*shares, stripe, input_size, agent_num, agent_shape, qk_scale, attn_drop, **dd)
            for stripe in stripes
        ]
        super().__init__(dim, branches, qkv_bias, proj_drop, **dd)
