"""Bi-level routing attention with its projections, in both formulations of the authors.

Paper: https://arxiv.org/abs/2303.08810
Code: https://github.com/rayleizhu/BiFormer (MIT), ops/bra_legacy.py (the released biformer_*) and ops/bra_nchw.py
The scores are scaled by C ** -0.5, not by the channels of a head, and LePE is added before `proj`.
Letters: B batch, H W height and width in positions, C channels, N heads, R regions, T of them chosen, L positions of a
region, h w its sides.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._layout import crop, from_windows, missing, pad_to_multiple, pair, to_windows
from ops._linear import Linear
from ops.routed.bilevel_routing.dense import local_enhancement
from ops.routed.bilevel_routing.functional import BACKENDS, attend_everywhere, find_routes, routed_attention

Sides = tuple[int, int]
PLAIN_POOLS: dict[str, Callable[..., Tensor]] = {'avgpool': F.avg_pool2d, 'maxpool': F.max_pool2d}
ADAPTIVE_POOLS: dict[str, Callable[..., Tensor]] = {
    'ada_avgpool': F.adaptive_avg_pool2d,
    'ada_maxpool': F.adaptive_max_pool2d,
}


def round_up(sides: Sides, multiple: Sides) -> Sides:
    """The next multiples of `multiple`."""
    return sides[0] + missing(sides[0], multiple[0]), sides[1] + missing(sides[1], multiple[1])


def positions_inside(length: int, side: int, device: torch.device) -> Tensor:
    """Of each piece of `side` along an axis those that lie on it, (ceil(length / side),): all but of the last piece."""
    pieces = (length + missing(length, side)) // side
    return (length - side * torch.arange(pieces, device=device)).clamp(max=side)


def to_map(x: Tensor, size: Sides, grid: Sides) -> Tensor:
    """(B, R, L, N, D) -> (B, H, W, C): regions of `size` h x w put together to a map of `grid` H x W."""
    return from_windows(x.flatten(0, 1).flatten(2), size, grid)


class _BiLevelRoutingAttention(nn.Module):
    """What both formulations share. The arguments are those of `BiLevelRoutingAttention`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        n_win: int | Sequence[int],
        topk: int,
        region_size: int | Sequence[int] | None,
        side_dwconv: int,
        qk_dim: int,
        qk_scale: float | None,
        attn_drop: float,
        proj_drop: float,
        backend: str | None,
        dd: dict[str, Any],
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f'dim {dim} is not a multiple of num_heads {num_heads}')
        if topk < 1 and topk != -1:
            raise ValueError(f'topk is {topk}: give at least 1, or -1 for all regions')
        names = [known.name for known in BACKENDS]
        if backend not in (None, *names):
            raise ValueError(f'there is no backend {backend!r}; choose one of: {", ".join(names)}')
        self.dim, self.qk_dim, self.num_heads, self.topk = dim, qk_dim, num_heads, topk
        self.scale = qk_dim**-0.5 if qk_scale is None else qk_scale
        self.n_win = pair(n_win, 'n_win')
        self.region_size = None if region_size is None else pair(region_size, 'region_size')
        self.attn_drop, self.backend = attn_drop, backend
        self.lepe = local_enhancement(dim, side_dwconv, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def regions_of(self, height: int, width: int) -> tuple[Sides, Sides]:
        """Sides of the padded map and of a region, in positions, for a map of H x W."""
        raise NotImplementedError

    def heads_of(self, windows: Tensor, regions: int) -> Tensor:
        """(B * R, L, C) -> (B, R, L, N, D)."""
        rows, L, C = windows.shape
        return windows.view(rows // regions, regions, L, self.num_heads, C // self.num_heads)

    def keys_of(self, size: Sides) -> int:
        """Keys of a region of h x w positions."""
        return prod(size)

    def attention_macs(self, height: int, width: int) -> int:
        """Multiply-adds of the routing and of the attention for one map of H x W, without the projections."""
        grid, size = self.regions_of(height, width)
        regions = prod(grid) // prod(size)
        chosen = regions if self.all_of(regions) else self.topk
        routing = regions**2 * self.qk_dim if chosen < regions else 0
        return routing + prod(grid) * chosen * self.keys_of(size) * (self.qk_dim + self.dim)

    def all_of(self, regions: int) -> bool:
        """Whether every region is chosen."""
        return self.topk == -1 or self.topk >= regions

    def attend(self, q: Tensor, k: Tensor, v: Tensor, routes: Tensor | None, weights: Tensor | None = None) -> Tensor:
        """(B, R, L, N, D) and keys and values of as many regions -> (B, R, L, N, D); all regions when None."""
        dropout_p = self.attn_drop if self.training else 0.0
        if routes is None:
            return attend_everywhere(q, k, v, self.scale, dropout_p)
        return routed_attention(q, k, v, routes, self.scale, weights=weights, dropout_p=dropout_p, backend=self.backend)

    def extra_repr(self) -> str:
        regions = f'n_win={self.n_win}' if self.region_size is None else f'region_size={self.region_size}'
        return f'num_heads={self.num_heads}, {regions}, topk={self.topk}'


class BiLevelRoutingAttention(_BiLevelRoutingAttention):
    """(B, H, W, C) -> (B, H, W, C). Work: 4 * C * C + 2 * T * L * C multiply-adds for each position.

    The mean query of a region chooses the T regions whose mean keys fit best; its positions attend to those of the T
    regions in one softmax. No gradient passes through the choice.

    A map that `n_win` does not divide is zero-padded at its bottom and right before `qkv`, as in the authors' dense
    models: padded tokens have the bias of `qkv` as query, key and value, count in the means and are attended to.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim` and `qk_dim`.
        n_win: regions along each side of the map, one number or one per axis.
        topk: regions T that a region attends to; -1, or more than there are, for all.
        region_size: positions h w of a region instead of `n_win`: their number then grows with the map.
        side_dwconv: side of the kernel of LePE in positions, 0 for none.
        qk_dim: channels of queries and keys; C when None.
        kv_downsample_mode: pooling of the keys and values inside each region: 'identity', 'avgpool', 'maxpool',
            'ada_avgpool' or 'ada_maxpool'.
        kv_per_win: keys along each side of a region, of the two 'ada' modes.
        kv_downsample_ratio: positions along each side that make one key, of 'avgpool' and 'maxpool'.
        param_attention: 'qkvo', or 'qkv' for no output projection.
        soft_routing: multiply keys and values by the softmax of the scores of their regions.
        diff_routing: let gradients pass through those weights; needs `soft_routing`.
        param_routing: a linear layer before the scores of the regions; needs `diff_routing`.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; `qk_dim` ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        backend: name of the backend; the first that can run when None.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: a value contradicts another, or is none of those above.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        n_win: int | Sequence[int] = 7,
        topk: int = 4,
        region_size: int | Sequence[int] | None = None,
        side_dwconv: int = 3,
        qk_dim: int | None = None,
        kv_downsample_mode: str = 'identity',
        kv_per_win: int = 4,
        kv_downsample_ratio: int = 4,
        param_attention: str = 'qkvo',
        soft_routing: bool = False,
        diff_routing: bool = False,
        param_routing: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        backend: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        qk_dim = qk_dim or dim
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__(
            dim, num_heads, n_win, topk, region_size, side_dwconv, qk_dim, qk_scale, attn_drop, proj_drop, backend, dd
        )
        if qk_dim % num_heads:
            raise ValueError(f'qk_dim {qk_dim} is not a multiple of num_heads {num_heads}')
        modes = ('identity', *PLAIN_POOLS, *ADAPTIVE_POOLS)
        if kv_downsample_mode not in modes:
            raise ValueError(f'kv_downsample_mode is {kv_downsample_mode!r}; choose one of: {", ".join(modes)}')
        if kv_per_win < 1 and kv_downsample_mode in ADAPTIVE_POOLS:
            raise ValueError(f'kv_per_win is {kv_per_win}: {kv_downsample_mode} needs at least 1')
        if kv_downsample_ratio < 1 and kv_downsample_mode in PLAIN_POOLS:
            raise ValueError(f'kv_downsample_ratio is {kv_downsample_ratio}: {kv_downsample_mode} needs at least 1')
        if param_attention not in ('qkvo', 'qkv'):
            raise ValueError(f"param_attention must be 'qkvo' or 'qkv', got {param_attention!r}")
        if diff_routing and not soft_routing:
            raise ValueError('diff_routing is True but soft_routing False: no gradient could pass, set soft_routing')
        if param_routing and not diff_routing:
            raise ValueError('param_routing is True but diff_routing False: it would not learn, set diff_routing')
        self.soft_routing, self.diff_routing = soft_routing, diff_routing
        self.kv_downsample_mode, self.kv_per_win = kv_downsample_mode, kv_per_win
        self.kv_downsample_ratio = kv_downsample_ratio
        self.router = Linear(qk_dim, qk_dim, **dd) if param_routing else nn.Identity()
        self.qkv = Linear(dim, 2 * qk_dim + dim, bias=qkv_bias, **dd)
        self.proj = Linear(dim, dim, **dd) if param_attention == 'qkvo' else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        grid, size = self.regions_of(height, width)
        q, k, v = self.project(x)
        routes, weights = self.route(q, k)
        out = to_map(self.attend(q, self.pool(k, size), self.pool(v, size), routes, weights), size, grid)
        if self.lepe is not None:
            out = out + self.lepe(to_map(v, size, grid).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj_drop(self.proj(crop(out, (height, width))))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, H, W, C) -> queries, keys and values of the regions, each (B, R, L, N, D)."""
        grid, size = self.regions_of(x.shape[1], x.shape[2])
        windows = self.qkv(to_windows(pad_to_multiple(x, grid), size))
        parts = windows.split([self.qk_dim, self.qk_dim, self.dim], dim=-1)
        return tuple(self.heads_of(part, prod(grid) // prod(size)) for part in parts)

    def regions_of(self, height: int, width: int) -> tuple[Sides, Sides]:
        if self.region_size is not None:
            return round_up((height, width), self.region_size), self.region_size
        grid = round_up((height, width), self.n_win)
        return grid, (grid[0] // self.n_win[0], grid[1] // self.n_win[1])

    def keys_of(self, size: Sides) -> int:
        if self.kv_downsample_mode in ADAPTIVE_POOLS:
            return self.kv_per_win**2
        if self.kv_downsample_mode in PLAIN_POOLS:
            return prod(side // min(self.kv_downsample_ratio, side) for side in size)
        return prod(size)

    def route(self, q: Tensor, k: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(B, R, L, N, D) x 2 -> routes (B, R, T) and, if soft, their weights (B, R, T); no routes if all are taken."""
        regions = q.shape[1]
        if self.all_of(regions) and not self.soft_routing:
            return None, None
        if not self.diff_routing:
            q, k = q.detach(), k.detach()
        q, k = (self.router(x.mean(2).flatten(2)) for x in (q, k))
        weights, routes = find_routes(q, k, regions if self.all_of(regions) else self.topk, self.scale)
        return routes, weights if self.soft_routing else None

    def pool(self, x: Tensor, size: Sides) -> Tensor:
        """(B, R, L, N, D) -> (B, R, M, N, D): the keys or values of each region of `size` pooled to M."""
        if self.kv_downsample_mode == 'identity':
            return x
        B, R, L, N, D = x.shape
        x = x.reshape(B * R, *size, N * D).permute(0, 3, 1, 2)
        if self.kv_downsample_mode in ADAPTIVE_POOLS:
            x = ADAPTIVE_POOLS[self.kv_downsample_mode](x, self.kv_per_win)
        else:
            window = [min(self.kv_downsample_ratio, side) for side in size]
            x = PLAIN_POOLS[self.kv_downsample_mode](x, window)
        return x.permute(0, 2, 3, 1).reshape(B, R, x.shape[2] * x.shape[3], N, D)


class BiLevelRoutingAttention2d(_BiLevelRoutingAttention):
    """(B, C, H, W) -> (B, C, H, W), the authors' later form. Work: as `BiLevelRoutingAttention`.

    A region has H // `n_win` positions a side, so that a map which `n_win` does not divide has more regions, the last
    ones cut off by the border: means are taken inside the map, and the zeros that fill them up behind `qkv` are
    attended to. At sizes that `n_win` divides this is `BiLevelRoutingAttention`.

    Args:
        dim: channels C.
        num_heads: heads N; must divide `dim`.
        n_win: regions along each side of the map, one number or one per axis.
        topk: regions T that a region attends to; -1, or more than there are, for all.
        region_size: positions h w of a region instead of `n_win`: their number then grows with the map.
        side_dwconv: side of the kernel of LePE in positions, 0 for none.
        qkv_bias: give `qkv` a bias.
        qk_scale: factor of the scores; C ** -0.5 when None.
        attn_drop: dropout ratio of the attention weights.
        proj_drop: dropout ratio of the output.
        backend: name of the backend; the first that can run when None.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: a value contradicts another, or is none of those above.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        n_win: int | Sequence[int] = 7,
        topk: int = 4,
        region_size: int | Sequence[int] | None = None,
        side_dwconv: int = 3,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        backend: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        dd: dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__(
            dim, num_heads, n_win, topk, region_size, side_dwconv, dim, qk_scale, attn_drop, proj_drop, backend, dd
        )
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=qkv_bias, **dd)
        self.proj = nn.Conv2d(dim, dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        grid, size = self.regions_of(height, width)
        qkv = self.qkv(x)
        windows = to_windows(pad_to_multiple(qkv.permute(0, 2, 3, 1), grid), size)
        q, k, v = (self.heads_of(part, prod(grid) // prod(size)) for part in windows.chunk(3, dim=-1))
        out = to_map(self.attend(q, k, v, self.route(q, k, (height, width), size)), size, grid)
        out = crop(out, (height, width)).permute(0, 3, 1, 2)
        if self.lepe is not None:
            out = out + self.lepe(qkv.chunk(3, dim=1)[2].contiguous())
        return self.proj_drop(self.proj(out))

    def regions_of(self, height: int, width: int) -> tuple[Sides, Sides]:
        size = self.region_size or (max(1, height // self.n_win[0]), max(1, width // self.n_win[1]))
        return round_up((height, width), size), size

    def route(self, q: Tensor, k: Tensor, sides: Sides, size: Sides) -> Tensor | None:
        """(B, R, L, N, D) x 2, zeros beyond the map -> routes (B, R, T), None if all are taken."""
        if self.all_of(q.shape[1]):
            return None
        # Not by a pooling: torch.compile wants to know its window.
        rows, columns = (positions_inside(length, side, q.device) for length, side in zip(sides, size))
        inside = (rows[:, None] * columns).view(-1, 1)
        work = torch.promote_types(q.dtype, torch.float32)
        sums = (x.detach().sum(2, dtype=work).flatten(2) for x in (q, k))
        q, k = ((x / inside).to(q.dtype) for x in sums)
        return find_routes(q, k, self.topk)[1]
