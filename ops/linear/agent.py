"""Agent attention: a few agent tokens, pooled from the queries, look at all keys; all queries look at the agents.

Paper: https://arxiv.org/abs/2312.08874
Code: https://github.com/LeapLabTHU/Agent-Attention (no licence file), agent_transformer/models and downstream
Letters: B batch, P prefix tokens such as a class token, H W height and width in positions, C channels, N heads,
    D channels per head, A agents on a grid of h x w, R reduction of keys and values.

The four bodies of the paper are one core: over a whole map with a class token (DeiT), over a map with pooled keys and
values (PVT), over each window (Swin) and over each stripe (CSWin). The paper's code makes the biases for one size of
map; at another size they are resized here as its loader and its dense networks do.
"""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._eager import has_hooks
from ops._layout import pair
from ops._linear import Linear
from ops._split import split
from ops.linear import agent_bias_native, agent_native
from ops.linear.agent_bias import (
    AXES_OF_KEYS,
    AXES_OF_QUERIES,
    BASE,
    agent_bias,
    as_parts,
    resize_axis,
    resize_plane,
)
from ops.linear.agent_products import Form, Inputs, agent_products, takes
from ops.linear.spatial_reduction import SpatialReductionAttention, reduced_size
from ops.window.relative_attention import biased_attention


def agent_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    agents: Tensor,
    agent_bias: Tensor | None = None,
    query_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> Tensor:
    """softmax(q agents + query_bias) softmax(agents k + agent_bias) v. Work: 2 * N * D * A * (L + S) multiply-adds.

    Args:
        q: (B, N, L, D).
        k: (B, N, S, D).
        v: (B, N, S, D).
        agents: (B, N, A, D).
        agent_bias: (1, N, A, S), of the scores of agents and keys.
        query_bias: (1, N, L, A), of the scores of queries and agents.
        scale: factor of both scores; D ** -0.5 when None.
        dropout_p: dropout ratio of both attention weights.

    Returns:
        (B, N, L, D).
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    gathered = biased_attention(agents, k, v, agent_bias, scale, dropout_p)
    if agents.shape[2] < 16 and q.device.type == 'cpu':
        # The vectors of the processor lie along the last axis, which so few agents would not fill; the queries do.
        scores = (agents * scale) @ q.mT
        scores = scores if query_bias is None else scores + query_bias.mT
        return F.dropout(scores.softmax(-2), dropout_p).mT @ gathered
    return biased_attention(q, agents, gathered, query_bias, scale, dropout_p)


AXIS = {'ah_bias': 3, 'aw_bias': 4, 'ha_bias': 2, 'wa_bias': 3}
"""The axis of each bias that is as long as the map is high or wide."""


def resize_axis_bias(bias: Tensor, shape: torch.Size) -> Tensor:
    """One of `ah_bias`, `aw_bias`, `ha_bias` and `wa_bias` -> `shape`, that of another map, linearly along its axis."""
    changed = [axis for axis, (old, new) in enumerate(zip(bias.shape, shape)) if old != new]
    if bias.ndim != len(shape) or len(changed) > 1:
        raise ValueError(f'an axis bias of shape {tuple(bias.shape)} cannot be resized to {tuple(shape)}')
    for axis in changed:
        last = bias.movedim(axis, -1)
        bias = resize_axis(last.flatten(0, -2)[None], shape[axis])[0].unflatten(0, last.shape[:-1]).movedim(-1, axis)
    return bias


class AgentCore(nn.Module):
    """(B, P + H * W, C) and twice (B, P + H' * W', C) -> (B, P + H * W, C): agent attention without its projections.

    Agents are the means of h x w cells of the queries. The scores of agents and keys have a learned bias per agent
    and position, the sum of `an_bias` (7 x 7, resized bilinearly), `ah_bias` (per row) and `aw_bias` (per column); so
    have the scores of queries and agents (`na_bias`, `ha_bias`, `wa_bias`), and prefix tokens have `ac_bias` and
    `ca_bias`. A depthwise convolution of the values is added at the positions of the map.

    Work: 4 * A * C + 9 * C multiply-adds for each position.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        input_size: H and W that the biases per row and column are made for; others take them resized linearly.
        agent_num: agents A that the biases are made for, a square number.
        kv_size: H' and W' that the biases of the keys are made for; `input_size` when None.
        agent_shape: grid h x w of agents; the square of `agent_num` when None. For another grid every bias is resized
            bilinearly over its agents too, as the dense networks of the paper do.
        prefix_tokens: number P of tokens before those of the map; they are queries and keys, not agents.
        kernel_size: of the depthwise convolution.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of both attention weights.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, `agent_num` is not a square number, or a size is not positive.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        input_size: int | tuple[int, int],
        agent_num: int = 49,
        kv_size: int | tuple[int, int] | None = None,
        agent_shape: int | tuple[int, int] | None = None,
        prefix_tokens: int = 0,
        kernel_size: int = 3,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        side = isqrt(max(agent_num, 0))
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        if side < 1 or side**2 != agent_num:
            raise ValueError(f'agent_num must be a square number, such as {max(side, 1) ** 2}, got {agent_num}')
        input_size = pair(input_size, 'input_size')
        kv_size = input_size if kv_size is None else pair(kv_size, 'kv_size')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.num_heads, self.agent_num, self.prefix_tokens = num_heads, agent_num, prefix_tokens
        self.agent_shape = (side, side) if agent_shape is None else pair(agent_shape, 'agent_shape')
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        self.dwc = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, **dd)
        self.an_bias = nn.Parameter(torch.empty(num_heads, agent_num, BASE, BASE, **dd))
        self.na_bias = nn.Parameter(torch.empty(num_heads, agent_num, BASE, BASE, **dd))
        self.ah_bias = nn.Parameter(torch.empty(1, num_heads, agent_num, kv_size[0], 1, **dd))
        self.aw_bias = nn.Parameter(torch.empty(1, num_heads, agent_num, 1, kv_size[1], **dd))
        self.ha_bias = nn.Parameter(torch.empty(1, num_heads, input_size[0], 1, agent_num, **dd))
        self.wa_bias = nn.Parameter(torch.empty(1, num_heads, 1, input_size[1], agent_num, **dd))
        if prefix_tokens:
            self.ac_bias = nn.Parameter(torch.empty(1, num_heads, agent_num, prefix_tokens, **dd))
            self.ca_bias = nn.Parameter(torch.empty(1, num_heads, prefix_tokens, agent_num, **dd))
        for bias in self.parameters(recurse=False):
            nn.init.trunc_normal_(bias, std=0.02)

    def resize_biases(self, input_size: tuple[int, int], kv_size: tuple[int, int] | None = None) -> None:
        """Make the biases per row and column those of other sizes: new, linearly resized parameters."""
        kv_size = input_size if kv_size is None else kv_size
        sizes = {'ah_bias': kv_size[0], 'aw_bias': kv_size[1], 'ha_bias': input_size[0], 'wa_bias': input_size[1]}
        for name, length in sizes.items():
            old = getattr(self, name)
            shape = [length if i == AXIS[name] else side for i, side in enumerate(old.shape)]
            new = resize_axis_bias(old.detach(), torch.Size(shape)).clone()
            setattr(self, name, nn.Parameter(new, requires_grad=old.requires_grad))

    def over_agents(self, bias: Tensor) -> Tensor:
        """(N, agent_num, L) -> (N, A, L): bilinearly from the agents of the biases to those of `agent_shape`."""
        side = isqrt(self.agent_num)
        if self.agent_shape == (side, side):
            return bias
        grids = resize_plane(bias.transpose(1, 2).unflatten(2, (side, side)), self.agent_shape)
        return grids.flatten(2).transpose(1, 2)

    def biases(self, grid: tuple[int, int], kv_grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Those of the scores of agents and keys, (N, A, P + H' * W'), and of agents and queries, (N, A, P + H * W)."""
        of_keys = [self.an_bias, self.ah_bias, self.aw_bias]
        of_queries = [self.na_bias, self.ha_bias, self.wa_bias]
        if self.prefix_tokens:
            of_keys.append(self.ac_bias)
            of_queries.append(self.ca_bias)
        if agent_bias_native.takes(tables := of_keys + of_queries):
            biases = agent_bias_native.agent_biases((kv_grid, grid), tables)
        else:
            biases = (
                agent_bias(as_parts(of_keys, AXES_OF_KEYS), kv_grid),
                agent_bias(as_parts(of_queries, AXES_OF_QUERIES), grid),
            )
        return self.over_agents(biases[0]), self.over_agents(biases[1])

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], kv_grid: tuple[int, int] | None = None
    ) -> Tensor:
        """Queries of a map of `grid` (H, W), keys and values of one of `kv_grid`, the same when None."""
        kv_grid = grid if kv_grid is None else kv_grid
        of_keys, of_queries = self.biases(grid, kv_grid)
        dropout_p = self.attn_drop if self.training else 0.0
        if kv_grid == grid and dropout_p == 0 and type(self.dwc) is nn.Conv2d and not has_hooks(self.dwc):
            inputs = Inputs(q, k, v, of_keys, of_queries, self.dwc.weight, self.dwc.bias)
            if takes(inputs):
                form = Form(self.num_heads, self.prefix_tokens, grid, self.agent_shape, self.scale)
                run = agent_native.agent_attention if agent_native.takes(inputs, form) else agent_products
                return run(inputs, form)
        heads, prefix = (self.num_heads, -1), self.prefix_tokens
        # Rows and columns are told apart before channels move: else a compiler mistakes the strides of a single image.
        queries = q[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)
        agents = F.adaptive_avg_pool2d(queries, self.agent_shape).flatten(2).transpose(1, 2)
        x = agent_attention(
            q.unflatten(2, heads).transpose(1, 2),
            k.unflatten(2, heads).transpose(1, 2),
            v.unflatten(2, heads).transpose(1, 2),
            agents.unflatten(2, heads).transpose(1, 2),
            of_keys[None].to(q.dtype),
            of_queries[None].mT.to(q.dtype),
            self.scale,
            dropout_p,
        )
        values = resize_plane(v[:, prefix:].unflatten(1, kv_grid).permute(0, 3, 1, 2), grid)
        local = self.dwc(values).flatten(2).transpose(1, 2)
        return x.transpose(1, 2).flatten(2) + (F.pad(local, (0, 0, prefix, 0)) if prefix else local)

    def extra_repr(self) -> str:
        return f'num_heads={self.num_heads}, agent_shape={self.agent_shape}, prefix_tokens={self.prefix_tokens}'


class AgentAttention(nn.Module):
    """(B, H, W, C) -> (B, H, W, C), or (B, P + H * W, C) and its grid -> the same: agent attention over a whole map.

    Work: 4 * C * C + 4 * A * C + 9 * C multiply-adds for each position. Windows are maps of their own, given as
    (B * windows, height, width, C).

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        input_size: H and W that the biases per row and column are made for; others take them resized.
        agent_num: agents A that the biases are made for, a square number.
        agent_shape: grid of agents; the square of `agent_num` when None.
        prefix_tokens: number P of tokens before those of the map.
        kernel_size: of the depthwise convolution of the values.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, `agent_num` is not a square number, or a size is not positive.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        input_size: int | tuple[int, int] = 14,
        agent_num: int = 49,
        agent_shape: int | tuple[int, int] | None = None,
        prefix_tokens: int = 0,
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
        self.core = AgentCore(
            dim,
            num_heads,
            input_size,
            agent_num,
            agent_shape=agent_shape,
            prefix_tokens=prefix_tokens,
            kernel_size=kernel_size,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            **dd,
        )
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, **dd)
        self.proj = Linear(dim, dim, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def set_input_size(self, input_size: tuple[int, int]) -> None:
        """Make the biases per row and column those of another map size: new, linearly resized parameters."""
        self.core.resize_biases(input_size)

    def forward(self, x: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """A map, or prefix tokens and the tokens of a map of `grid` (H, W)."""
        q, k, v = split(self.qkv(x).flatten(1, -2), 3)
        out = self.core(q, k, v, (x.shape[1], x.shape[2]) if grid is None else grid)
        return self.proj_drop(self.proj(out.reshape(x.shape)))


class ReducedAgentAttention(SpatialReductionAttention):
    """(B, H, W, C) -> (B, H, W, C): agent attention with keys and values of every R x R cell, as in the pyramid of PVT.

    Work: (3 + 2 / R ** 2) * C * C + 2 * (1 + 1 / R ** 2) * A * C + 9 * C multiply-adds for each position, one C * C
    less where R is 1.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        sr_ratio: side R of the cells that share a key and a value; every position has its own when 1.
        input_size: H and W that the biases per row and column are made for; others take them resized.
        agent_num: agents A that the biases are made for, a square number.
        agent_shape: grid of agents; the square of `agent_num` when None.
        kernel_size: of the depthwise convolution of the values.
        qkv_bias: give `q` and `kv` biases.
        qk_scale: factor of the scores; (C / N) ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `num_heads` does not divide `dim`, `agent_num` is not a square number, or a size is not positive.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int = 1,
        input_size: int | tuple[int, int] = 14,
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
        super().__init__(dim, num_heads, sr_ratio, qkv_bias, qk_scale, attn_drop, proj_drop, device, dtype)
        self.core = AgentCore(
            dim,
            num_heads,
            input_size,
            agent_num,
            reduced_size(pair(input_size, 'input_size'), sr_ratio),
            agent_shape,
            kernel_size=kernel_size,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            device=device,
            dtype=dtype,
        )

    def set_input_size(self, input_size: tuple[int, int]) -> None:
        """Make the biases per row and column those of another map size: new, linearly resized parameters."""
        self.core.resize_biases(input_size, reduced_size(input_size, self.sr_ratio))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.core(q, k, v, grid, reduced_size(grid, self.sr_ratio) if self.sr_ratio > 1 else None)
