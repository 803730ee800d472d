"""Maps (B, H, W, C) cut into windows and put together again.

Letters: B batch, H W height and width of the map, h w of a window, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """One number for both axes, or one per axis.

    Raises:
        ValueError: anything but one or two numbers above 0; the message begins with `name`.
    """
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f'{name} must be one or two numbers above 0, got {value!r}')
    return sides


def missing(length: int, size: int) -> int:
    """How many positions `length` lacks to be a multiple of `size`."""
    # Not -length % size: torch.compile simplifies quotients, and knows no remainder of a negative number.
    return -(-length // size) * size - length


def pad_to_multiple(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B, H', W', C): zeros at the bottom and right until both sides are multiples of `size`."""
    bottom, right = missing(x.shape[1], size[0]), missing(x.shape[2], size[1])
    # No choice in a compiled graph, which is to serve maps that fit and maps that do not.
    wanted = torch.compiler.is_dynamo_compiling() or bottom or right
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if wanted else x


def to_windows(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B * H/h * W/w, h * w, C), windows and positions row by row; h and w must divide H and W."""
    (B, H, W, C), (h, w) = x.shape, size
    return x.reshape(B, H // h, h, W // w, w, C).transpose(2, 3).reshape(B * (H // h) * (W // w), h * w, C)


def from_windows(windows: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(B * H/h * W/w, h * w, C) -> (B, H, W, C), the inverse of `to_windows` for a map of `grid` (H, W)."""
    (h, w), (H, W), C = size, grid, windows.shape[-1]
    rows, columns = H // h, W // w
    B = windows.shape[0] // (rows * columns)
    return windows.reshape(B, rows, columns, h, w, C).transpose(2, 3).reshape(B, H, W, C)
