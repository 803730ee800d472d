"""Which keys a query sees: the neighborhood rule, one axis at a time.

An axis of `length` positions is split into `dilation` groups (group = position % dilation); inside its group a position
has a slot (position // dilation), and its window is a run of at most `kernel_size` slots. A window never leaves its
group: at a border it slides inwards. Positions of one stride block of slots share the window of the block's leader.

Papers: https://arxiv.org/abs/2204.07143 (NA), https://arxiv.org/abs/2209.15001 (dilation), https://arxiv.org/abs/2504.16922
(stride)
Checked against: SHI-Labs/NATTEN 0.14.6 and 0.21.7
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """Shape of a neighborhood, one entry per axis."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]


def slot_windows(
    slot: Tensor, size: Tensor, kernel_size: int, stride: int, is_causal: bool
) -> tuple[Tensor, Tensor]:  # script-friendly: no unions, no keyword-only arguments
    """First slot and end slot (exclusive) of the window of each slot, in a group of `size` slots.

    Bidirectional windows hold exactly `kernel_size` slots, an even one reaches one further back than forward.
    Causal windows end with the query's own slot and hold fewer slots near the start.
    """
    block = slot // stride * stride
    if is_causal:
        leader = torch.minimum(block + stride - 1, size - 1)
        return (leader - kernel_size + 1).clamp(min=0), slot + 1
    leader = torch.minimum(block + stride // 2, size - 1)
    start = torch.minimum((leader - kernel_size // 2).clamp(min=0), size - kernel_size)
    return start, start + kernel_size
