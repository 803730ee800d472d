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
    # Not -length % size: torch.compile simplifies quotients, of positive numbers without a mistake.
    return (length + size - 1) // size * size - length


def known_zero(*lengths: int) -> bool:
    """Whether all are 0. Not so in a graph compiled for many sizes: it serves maps that fit and maps that do not."""
    return all(known(length == 0) for length in lengths)


def known(fact: bool) -> bool:
    """Whether it holds. In a graph compiled for many sizes: for each of them, False where it holds for some only."""
    if not torch.compiler.is_compiling():
        return fact
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # slow to load

    return statically_known_true(fact)


def is_fixed(length: int) -> bool:
    """Whether it is one number. Not so in a graph compiled for many sizes, where it stands for a range."""
    if not torch.compiler.is_compiling():
        return True
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return has_static_value(length)


def spatial_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C), over H and W.

    A sum that is divided: its gradient stays one number for a channel. That of `mean` is written out for each position,
    in NCHW even where the map is NHWC in memory.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    return (x.sum((2, 3), dtype=dtype) / (x.shape[2] * x.shape[3])).to(x.dtype)


def pad_to_multiple(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B, H', W', C): zeros at the bottom and right until both sides are multiples of `size`."""
    bottom, right = missing(x.shape[1], size[0]), missing(x.shape[2], size[1])
    return x if known_zero(bottom, right) else F.pad(x, (0, 0, 0, right, 0, bottom))


def crop(x: Tensor, size: tuple[int, int], before: tuple[int, int] = (0, 0)) -> Tensor:
    """(B, H', W', C) -> (B, H, W, C): the part of `size` (H, W) that lies behind so many rows and columns."""
    (top, left), (H, W) = before, size
    part = x[:, top : top + H, left : left + W]
    if not torch.compiler.is_compiling() or known_zero(x.shape[1] - H, x.shape[2] - W):
        return part
    # The strides of a view would tell maps that were padded from those that were not, in graphs for both.
    return part.clone(memory_format=torch.contiguous_format)


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
