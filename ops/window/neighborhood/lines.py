"""The bias table spread over the scores of units, and their gradients collected again, in eager calls on the CPU.

The keys of a unit that lie side by side along the last axis are a line of its mask. For one query slot of that axis and
one offset along the others it is always the same one, so that few lines are made, of single entries, and the mask is
put together of whole lines. The gradient goes the same way back.

Letters: N heads, Q queries and S keys of one unit.
"""

from functools import lru_cache, reduce
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ops._scratch import scratch
from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.tiles import Bags, axis_tables, cut_map, flat_index, make_bags, outer


class Lines(NamedTuple):
    """Which entries make a line, and which lines a mask."""

    shape: tuple[int, int, int, int]  # of the mask: kinds of units, N, Q, S
    width: int  # of a line
    hides: bool  # whether a query does not see some key of its unit
    entries: Tensor  # along the last axis, one past the end where hidden, of its lines one after the other
    of_entries: Bags  # places in `entries` of each entry
    lines: Tensor  # of the mask one after the other, past the end where hidden
    of_lines: Bags  # places in `lines` of each line


@lru_cache(maxsize=64)
def cached_lines(size: tuple[int, ...], window: Window, heads: int, whole: bool = False) -> Lines:
    """Of the kinds of units that `cut_map` makes, in the order of `Tables.kinds`."""
    cpu = torch.device('cpu')
    with torch.inference_mode(False):
        steps = zip(cut_map(size, window, whole), window.kernel_size, window.stride, window.is_causal)
        *others, last = (axis_tables(*axis, True, cpu) for axis in steps)
        bounds = [2 * kernel_size - 1 for kernel_size in window.kernel_size]
        kinds, queries, keys = last.entries.shape
        entries = last.entries.masked_fill(last.hidden > 0, bounds[-1]).flatten().int()

        # of the other axes, (kinds, queries, keys): all that a single one has to say
        of_others = flat_index([axis.entries for axis in others], bounds) if others else last.entries.new_zeros(1, 1, 1)
        hidden = reduce(outer, [axis.hidden for axis in others], torch.zeros_like(of_others[:1, :1, :1]))
        of_last = torch.arange(kinds * queries, device=cpu).view(kinds, 1, queries, 1)
        of_head = prod(bounds[:-1]) * kinds * queries
        lines = of_others[:, None, :, None] * (kinds * queries) + of_last
        lines = lines.masked_fill(hidden[:, None, :, None] > 0, heads * of_head).flatten(0, 1).flatten(1, 2)
        lines = lines[:, None] + torch.arange(heads, device=cpu).view(-1, 1, 1) * of_head
        lines = lines.clamp(max=heads * of_head).int()
        return Lines(
            shape=(*lines.shape[:3], lines.shape[3] * keys),
            width=keys,
            hides=bool(hidden.any() or last.hidden.any()),
            entries=entries,
            of_entries=make_bags(entries, bounds[-1]),
            lines=lines.flatten(),
            of_lines=make_bags(lines.flatten(), heads * of_head),
        )


def spread(table: Tensor, lines: Lines, hidden: float) -> Tensor:
    """(N, entries ...) -> (kinds, N, Q, S), in kept memory, `hidden` where a query does not see the key."""
    rows = table.flatten(0, -2)
    if lines.hides:
        rows = F.pad(rows, (0, 1, 0, 1), value=hidden)  # the last row makes the lines that are hidden
    single, mask = scratch(table.dtype, (len(rows), len(lines.entries)), (len(lines.lines), lines.width), use='lines')
    torch.index_select(rows, 1, lines.entries, out=single)
    return torch.index_select(single.view(-1, lines.width), 0, lines.lines, out=mask).view(lines.shape)


def collect(grad: Tensor, lines: Lines, table: Tensor) -> Tensor:
    """Transpose of `spread`: the gradient of the table from that of the mask."""
    rows = lines.of_lines.sums(grad.view(-1, lines.width)).view(-1, len(lines.entries))
    return lines.of_entries.sums(rows.T.contiguous()).T.reshape(table.shape).to(table.dtype)
