"""The bias of agents and positions: the sum of a small plane, of rows and of columns, resized to the map.

Letters: N heads, A agents, P prefix tokens, H W height and width of the map, H0 W0 those the parameters are made for.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._eager import is_ordinary, is_watched
from ops._layout import known_zero

BASE = 7
"""Side of the map that `an_bias` and `na_bias` are learned on, whatever the size of the map."""

MATRIX = 1 << 17
"""Numbers of the largest `bias_matrix`, that of 28 x 28 positions and little more; beyond, `bias_of_axes` is faster."""


AXES_OF_KEYS = ((0, 1, 3), (1, 2, 3), (1, 2, 4), (1, 2, 3))
"""Of `an_bias`, `ah_bias`, `aw_bias` and `ac_bias`: the axes of heads, of agents, and that their numbers end with."""

AXES_OF_QUERIES = ((0, 1, 3), (1, 4, 2), (1, 4, 3), (1, 3, 2))
"""Of `na_bias`, `ha_bias`, `wa_bias` and `ca_bias`."""

Grid = tuple[int, int]


def as_parts(tables: Sequence[Tensor], axes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Parameters as parts of a bias, (N, A, numbers)."""
    parts = []
    for x, (head, agent, last) in zip(tables, axes):
        between = (axis for axis in range(x.ndim) if axis not in (head, agent, last))
        parts.append(x.permute(head, agent, *between, last).flatten(2))
    return parts


def resize_axis(table: Tensor, length: int) -> Tensor:
    """(N, A, L) -> (N, A, length), linear."""
    return table if known_zero(length - table.shape[-1]) else F.interpolate(table, size=length, mode='linear')


def resize_plane(table: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, A, H, W) -> (N, A, *size), bilinear, corners not aligned."""
    fits = known_zero(size[0] - table.shape[-2], size[1] - table.shape[-1])
    return table if fits else F.interpolate(table, size=size, mode='bilinear')


def resized_bias(parts: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Plane (N, A, 49), rows (N, A, H0), columns (N, A, W0) and maybe prefix (N, A, P) -> (N, A, P + H * W)."""
    plane, rows, columns, *prefix = parts
    axes = resize_axis(rows, grid[0])[..., None] + resize_axis(columns, grid[1])[..., None, :]
    bias = (resize_plane(plane.unflatten(2, (BASE, BASE)), grid) + axes).flatten(2)
    return torch.cat([*prefix, bias], dim=2) if prefix else bias


@lru_cache(maxsize=16)
def bias_matrix(sizes: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """What `resized_bias`, being linear, makes of the identity: (49 + H0 + W0 + P, P + H * W)."""
    with torch.inference_mode(False), torch.no_grad():
        identity = torch.eye(sum(sizes), dtype=torch.float32)
        return resized_bias(identity[None].split(sizes, dim=2), grid)[0]


@lru_cache(maxsize=64)
def axis_matrix(length: int, size: int) -> Tensor:
    """What `resize_axis`, and `resize_plane` along an axis, makes of the identity: (length, size)."""
    with torch.inference_mode(False), torch.no_grad():
        return resize_axis(torch.eye(length, dtype=torch.float32)[None], size)[0]


def bias_of_axes(parts: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """`resized_bias` by products: for each head and agent (H, 7 + 2) x (7 + 2, W), of plane, rows and columns."""
    plane, rows, columns, *prefix = parts
    rows, columns = (x @ axis_matrix(x.shape[2], size) for x, size in zip((rows, columns), grid))
    high, wide = (axis_matrix(BASE, size) for size in grid)
    left = [high.T.expand(*rows.shape[:2], -1, -1), rows[..., None], rows.new_ones(*rows.shape, 1)]
    right = [plane.unflatten(2, (BASE, BASE)) @ wide, torch.ones_like(columns)[:, :, None], columns[:, :, None]]
    bias = (torch.cat(left, dim=3) @ torch.cat(right, dim=2)).flatten(2)
    return torch.cat([*prefix, bias], dim=2) if prefix else bias


def agent_bias(parts: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """`resized_bias`, by products where parameters are of float32 on the CPU."""
    sizes = tuple(part.shape[2] for part in parts)
    if is_watched() or not all(map(is_ordinary, parts)):
        return resized_bias(parts, grid)
    if sum(sizes) * grid[0] * grid[1] > MATRIX:
        return bias_of_axes(parts, grid)
    return torch.cat(list(parts), dim=2) @ bias_matrix(sizes, grid)
