"""Weights of units on the CPU: e ** scores, times that of the bias and 0 where a key is hidden, over their sum.

The exponentials are those of the scores themselves. A softmax would subtract the largest of each row first, which costs
as much as all the rest; where scores are so large that it has to, it is called. Hidden keys are a factor of 0 and no
score of -inf, on which MKL's exponentials take 30 times as long.

Letters: N heads, D channels per head, U units, Q queries and S keys of one unit; g units and heads of a call.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ops._products import product
from ops._scratch import scratch
from ops.window.neighborhood.geometry import Window
from ops.window.neighborhood.lines import Lines, cached_lines, collect, spread
from ops.window.neighborhood.tiles import Call, cached_tables

LARGEST_SUM = 1e25  # of exponentials, as the smallest is its reciprocal: products with them stay in float32's range


@lru_cache(maxsize=64)
def cached_seen(size: tuple[int, ...], window: Window, dtype: torch.dtype) -> Tensor | None:
    """What `Tables.mask` is as a factor, (kinds, 1, Q, S): 1, 0 where hidden."""
    with torch.inference_mode(False):
        mask = cached_tables(size, window, False, dtype, torch.device('cpu')).mask
        return None if mask is None else (mask == 0)[:, None].to(dtype)


class Weights:
    """What the scores of the units of a map become, some at a time: those of whole images, or of a part of one."""

    def __init__(self, query: Tensor, bias: Tensor | None, call: Call, dtype: torch.dtype) -> None:
        """The query is (B, *size, N, D); weights are of the `dtype`."""
        self.call, self.bias, self.dtype = call, bias, dtype
        self.size, self.heads = tuple(query.shape[1:-2]), query.shape[-2]
        self.lines: Lines | None = None
        if bias is not None:
            self.lines = cached_lines(self.size, call.window, self.heads)
        self.careful = False
        self.mask = self.make_factors()

    def make_factors(self) -> Tensor | None:
        """Of exponentials, (U or 1, N or 1, Q, S), in kept memory."""
        if self.lines is not None and self.bias is not None:
            return self.by_units(spread(self.bias.to(self.dtype).exp(), self.lines, 0.0))
        seen = cached_seen(self.size, self.call.window, self.dtype)
        return None if seen is None else self.by_units(seen)

    def make_addends(self) -> Tensor | None:
        """Their logarithms, which no bias takes out of the range of numbers."""
        if self.lines is not None and self.bias is not None:
            return self.by_units(spread(self.bias.to(self.dtype), self.lines, float('-inf')))
        mask = self.call.tables.mask
        return None if mask is None else self.by_units(mask[:, None])

    def by_units(self, mask: Tensor) -> Tensor:
        """(kinds, ...) -> (U or 1, ...)."""
        kinds = self.call.tables.kinds
        if kinds is None:
            return mask
        (of_units,) = scratch(self.dtype, (len(kinds), *mask.shape[1:]), use='mask')
        return torch.index_select(mask, 0, kinds, out=of_units)

    def of_units(self, mask: Tensor, some: slice) -> Tensor:
        """Return what of a mask, (U or 1, N or 1, Q, S), falls to `some` units and heads."""
        units = slice(some.start // self.heads, some.stop // self.heads)
        return mask[units] if 1 < mask.shape[0] > units.stop - units.start else mask

    def fill(self, q: Tensor, k: Tensor, some: slice, out: Tensor) -> Tensor:
        """(g, Q, D), (g, S, D) -> weights (g, Q, S) in `out` and the factors, (g, Q, 1), that they still need."""
        mask = None if self.mask is None else self.of_units(self.mask, some)
        by_unit = out if mask is None else out.view(-1, mask.shape[0], self.heads, *out.shape[1:])
        product(q, k.mT, out, self.call.scale)
        if self.careful:
            if mask is not None:
                by_unit += mask
            torch.softmax(out, -1, out=out)
            return out.new_ones(*out.shape[:2], 1)
        out.exp_()
        if mask is not None:
            by_unit *= mask
        sums = out.sum(-1, keepdim=True)
        smallest, largest = sums.aminmax()
        if smallest.item() > 1 / LARGEST_SUM and largest.item() < LARGEST_SUM:
            return sums.reciprocal_()
        self.careful, self.mask = True, self.make_addends()
        return self.fill(q, k, some, out)

    def bias_gradient(self, grad: Tensor) -> Tensor:
        """(N, ...) from the gradient of the mask."""
        assert self.lines is not None
        assert self.bias is not None
        kinds = self.call.tables.kinds
        if kinds is not None:
            (of_kinds,) = scratch(self.dtype, self.lines.shape, use='mask')
            grad = of_kinds.zero_().index_add_(0, kinds, grad)
        return collect(grad, self.lines, self.bias)
