"""Neighborhood attention on the CPU in C++ (native.cpp): no copies of keys and values, no mask, scores of one query.

Letters: B batch, L positions of an axis, P of the map, N heads, D channels per head, K keys of one query.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops import _native
from ops._eager import is_intercepted, is_ordinary, needs_grad
from ops._native import WIDTHS, address, rounded
from ops._products import is_special
from ops._scratch import scratch
from ops.window.neighborhood.geometry import Window, slot_windows
from ops.window.neighborhood.reference import special_gradients

MOST_KEYS, MOST_WHOLE = 512, 128  # as in native.cpp
MANY_KEYS = 96
SPACE = 1 << 18  # numbers for each thread, about, that the backward pass of some images and heads leaves in its cache
BESIDE = 8  # numbers behind the last that are read and written
ZERO = torch.zeros(1, dtype=torch.long, device='cpu')
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Map(ctypes.Structure):
    """`Map` of native.cpp, and the tensors that it points to."""

    numbers = ('rows', 'length', 'lines', 'run', 'step', 'entries', 'whole')
    tables = (
        *('line_position', 'line_entry', 'start', 'entry', 'row_seen', 'seen_by_row'),
        *('first', 'times', 'slot', 'start_slot', 'row_order', 'order'),
    )
    _fields_ = [(name, ctypes.c_int32) for name in numbers] + [(name, ctypes.c_void_p) for name in tables]

    def __init__(self, tables: Sequence[Tensor], **numbers: int) -> None:
        self.kept = [table.int().contiguous() for table in tables]
        pointers = {name: table.data_ptr() for name, table in zip(self.tables, self.kept)}
        super().__init__(**numbers, **pointers)


class Axis(NamedTuple):
    """One axis of a map, or several flattened."""

    start: Tensor  # position of the first key of each query, (L,)
    entry: Tensor  # of the bias, of that key, (L,)
    positions: Tensor  # of the keys of a query behind its first, (K,)
    entries: Tensor  # likewise, (K,)
    groups: Tensor  # the dilation group of each query, (L,)


def make_axis(length: int, kernel_size: int, stride: int, dilation: int) -> Axis:
    """Tables of one axis."""
    position, key = torch.arange(length, device='cpu'), torch.arange(kernel_size, device='cpu')
    group, slot = position % dilation, position // dilation
    start, _ = slot_windows(slot, (length - 1 - group) // dilation + 1, kernel_size, stride, False)
    return Axis(start * dilation + group, start - slot + kernel_size - 1, key * dilation, key, group)


def flatten(outer: Axis, inner: Axis, kernel_size: int) -> Axis:
    """Two axes as one, the inner with windows of `kernel_size`."""

    def both(a: Tensor, b: Tensor, bound: int) -> Tensor:
        return (a[:, None] * bound + b).flatten()

    length, bound = len(inner.start), 2 * kernel_size - 1
    return Axis(
        start=both(outer.start, inner.start, length),
        entry=both(outer.entry, inner.entry, bound),
        positions=both(outer.positions, inner.positions, length),
        entries=both(outer.entries, inner.entries, bound),
        groups=both(outer.groups, inner.groups, length),
    )


def seen_by(rows: Axis) -> tuple[Tensor, Tensor]:
    """Up to where in the second each row's are, (L + 1,): rows that see it, as pairs of them and of the line."""
    keys, count = (rows.start[:, None] + rows.positions).flatten(), len(rows.positions)
    order = keys.argsort(stable=True)
    bounds = keys.bincount(minlength=len(rows.start)).cumsum(0)
    return torch.cat([bounds.new_zeros(1), bounds]), torch.stack([order // count, order % count], 1)


def seen_along(axis: Axis, kernel_size: int, dilation: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each position the first query that sees it, how many do, its slot, and the first slot that it sees itself."""
    slot, start_slot = torch.arange(len(axis.start), device='cpu') // dilation, axis.start // dilation
    first, end = torch.empty_like(slot), torch.empty_like(slot)
    for group in range(dilation):
        own, starts = slot[group::dilation].contiguous(), start_slot[group::dilation].contiguous()
        first[group::dilation] = torch.searchsorted(starts + kernel_size, own, right=True)
        end[group::dilation] = torch.searchsorted(starts, own, right=True)
    groups = torch.arange(len(slot), device='cpu') % dilation
    return first * dilation + groups, end - first, slot, start_slot


@lru_cache(maxsize=64)
def cached_map(size: tuple[int, ...], window: Window) -> Map:
    """Tables of a map for native.cpp; it is one row where every query sees all of it."""
    with torch.inference_mode(False):
        axes = [make_axis(*axis) for axis in zip(size, *window[:3])]
        outer = Axis(ZERO, ZERO, ZERO, ZERO, ZERO)
        for axis, kernel_size in zip(axes[:-1], window.kernel_size):
            outer = flatten(outer, axis, kernel_size)
        last, kernel_size = axes[-1], window.kernel_size[-1]
        queries, rows = last, outer
        whole = window.kernel_size == size and prod(size) <= MOST_WHOLE
        if whole:
            queries, rows = flatten(outer, last, kernel_size), outer._replace(start=ZERO, entry=ZERO)
        lines = (rows.start[:, None] + outer.positions) * len(last.start)
        line_entries = (rows.entry[:, None] + outer.entries) * (2 * kernel_size - 1)
        along = seen_along(last, kernel_size, window.dilation[-1])
        orders = [axis.groups.argsort(stable=True) for axis in (rows, queries)]
        return Map(
            (lines, line_entries, queries.start, queries.entry, *seen_by(outer), *along, *orders),
            rows=len(lines),
            length=len(queries.start),
            lines=lines.shape[1],
            run=kernel_size,
            step=window.dilation[-1],
            entries=prod(2 * kernel_size - 1 for kernel_size in window.kernel_size),
            whole=whole,
        )


class Call(NamedTuple):
    """What is not a tensor."""

    window: Window
    scale: float
    map: Map


def layout(x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """(B, *size, N, D), copied where positions or channels do not lie evenly, and its `View` for native.cpp."""
    shape, strides = x.shape, x.stride()
    even = strides[-1] == 1
    for i in range(1, len(shape) - 3):
        even = even and strides[i] == strides[i + 1] * shape[i + 1]
    if not even:
        x = x.clone(memory_format=torch.contiguous_format)
        strides = x.stride()
    return x, (x.data_ptr(), strides[0], strides[-3], strides[-2])


def run(name: str, call: Call, tensors: Sequence[Tensor], others: Sequence[Tensor | None], chunk: int = 0) -> None:
    """Call a function of native.cpp, with what its `Call` holds."""
    images, *_, heads, width = tensors[0].shape
    numbers = [*map(address, others), images, heads, chunk, torch.get_num_threads()]
    kept = []  # until the call is over
    for x in tensors:
        x, view = layout(x.resolve_neg())
        kept.append(x)
        numbers += view
    _native.call(name, [ctypes.addressof(call.map), *numbers], width, ctypes.c_float(call.scale))


def attend_forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D). 16-bit inputs are computed in float32."""
    q, k, v = (x.float() for x in (query, key, value))
    table = None if bias is None else bias.float().contiguous()
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    run('neighborhood_forward', call, (q, k, v, out), (table, None, None, None))
    return out.to(query.dtype)


def empty_alike(query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
    """Memory for their gradients, in one piece where they themselves lie in one."""
    if len({x.untyped_storage().data_ptr() for x in (query, key, value)}) > 1:
        return [torch.empty(query.shape, device='cpu') for _ in range(3)]
    *positions, heads, width = query.shape
    return torch.empty(*positions, 3, heads, width, device='cpu').unbind(-3)


class NativeAttention(torch.autograd.Function):
    """`attend_forward` for autograd; nothing is kept but its inputs."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        ctx.save_for_backward(query, key, value, bias)
        ctx.call = call
        return attend_forward(query, key, value, bias, call)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Extra memory: the gradients, and K weights and scores of each query of some images and heads."""
        if is_special(grad):
            return special_gradients(ctx, grad)
        query, key, value, bias = ctx.saved_tensors
        call: Call = ctx.call
        images, *_, heads, width = query.shape
        q, k, v, g = (x.float() for x in (query, key, value, grad))
        table = of_table = None
        if bias is not None:
            table = bias.float().contiguous()
            of_table = torch.empty_like(table) if ctx.needs_input_grad[3] else None
        grads = empty_alike(query, key, value)
        unit = 2 * call.map.rows * call.map.length * rounded(call.map.lines * call.map.run)
        chunk = min(images * heads, max(1, torch.get_num_threads() * SPACE // unit))
        parts = 0 if of_table is None else images * heads * call.map.rows * (call.map.entries + BESIDE)
        space, of_rows = scratch(torch.float32, (chunk * unit + BESIDE,), (parts,), use='neighborhood')
        others = (table, of_table, of_rows, space)
        run('neighborhood_backward', call, (q, k, v, g, *grads), others, chunk)
        of_bias = None if of_table is None else of_table.to(bias.dtype)
        return *(x.to(query.dtype) for x in grads), of_bias, None


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    call = Call(window, scale, cached_map(tuple(query.shape[1:-2]), window))
    if needs_grad(query, key, value, bias):
        return NativeAttention.apply(query, key, value, bias, call)
    return attend_forward(query, key, value, bias, call)


def why_not(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: Window,
    scale: float,
    bias: Tensor | None,
    dropout_p: float,
) -> str | None:
    """Return why it cannot serve the call."""
    if is_intercepted():
        return 'it runs in eager calls that nothing but autograd follows'
    if query.device.type != 'cpu':
        return f'query is on {query.device}, it runs on CPUs'
    if _native.kernels() is None:
        return 'its C++ was not built for this processor: install attnzoo again where there is a C++ compiler'
    if query.dtype not in DTYPES or not all(is_ordinary(x, query.dtype) for x in (query, key, value)):
        return f'query is a {type(query).__name__} of {query.dtype}: it takes plain tensors of 32 or 16 bits'
    if bias is not None and not (bias.dtype in DTYPES and is_ordinary(bias, bias.dtype)):
        return f'rel_pos_bias is a {type(bias).__name__} of {bias.dtype}: it takes plain tensors of 32 or 16 bits'
    if query.shape[-1] not in WIDTHS:
        return f'heads have {query.shape[-1]} channels, it takes {", ".join(map(str, WIDTHS))}'
    if prod(window.kernel_size) > MOST_KEYS:
        return f'{prod(window.kernel_size)} keys of one query, it takes {MOST_KEYS}'
    if any(window.is_causal):
        return 'windows are causal'
    if dropout_p > 0.0:
        return 'it has no dropout'
    return None


def is_worth(query: Tensor, key: Tensor, value: Tensor, window: Window, *_: object) -> bool:
    """Whether it is faster than products of whole units, which many keys serve better that are most of a map."""
    keys, size = prod(window.kernel_size), query.shape[1:-2]
    seen = prod(-(-length // dilation) for length, dilation in zip(size, window.dilation))
    return keys <= MANY_KEYS or 2 * keys <= seen or keys == seen <= MOST_WHOLE
