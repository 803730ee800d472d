"""The bias of agents and positions in C++ (agent_bias.cpp), of keys and queries in one step of autograd.

Letters: N heads, A agents, P prefix tokens, H W height and width of the map.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ops import _native
from ops._eager import is_ordinary, is_watched, needs_grad
from ops._products import is_special, plain_gradients
from ops.linear.agent_bias import AXES_OF_KEYS, AXES_OF_QUERIES, Grid, as_parts, resized_bias


def takes(tables: Sequence[Tensor]) -> bool:
    """Whether `agent_biases` may be called."""
    return (
        not is_watched() and _native.kernels() is not None and all(is_ordinary(x) and x.is_contiguous() for x in tables)
    )


def run(name: str, tables: Sequence[Tensor], axes: Sequence[tuple[int, ...]], grid: Grid, bias: Tensor) -> None:
    """Call a function of agent_bias.cpp, with what its `BiasCall` holds."""
    numbers: list[int] = []
    for x, (head, agent, number) in zip(tables, axes):
        numbers += (x.data_ptr(), x.stride(head), x.stride(agent), x.stride(number))
    numbers += (0, 0, 0, 0)[: 4 * (len(axes) - len(tables))]
    rows, columns = (x.shape[axis[2]] for x, axis in zip(tables[1:], axes[1:3]))
    tokens = bias.shape[2] - grid[0] * grid[1]
    sizes = (bias.data_ptr(), *bias.shape[:2], tokens, *grid, rows, columns, torch.get_num_threads())
    _native.call(name, (*numbers, *sizes))


def both(grids: Sequence[Grid], tables: Sequence[Tensor]) -> list[tuple[Sequence[Tensor], Any, Grid]]:
    """Tables of keys and of queries, their axes and the grid of each."""
    half = len(tables) // 2
    return [(tables[:half], AXES_OF_KEYS, grids[0]), (tables[half:], AXES_OF_QUERIES, grids[1])]


def run_forward(grids: Sequence[Grid], tables: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The biases (N, A, P + H * W) of keys and of queries."""
    biases = []
    for own, axes, grid in both(grids, tables):
        tokens = own[3].shape[axes[3][2]] if len(own) > 3 else 0
        biases.append(own[0].new_empty(*own[0].shape[:2], tokens + grid[0] * grid[1]))
        run('agent_bias_forward', own, axes, grid, biases[-1])
    return tuple(biases)


def plain(grids: Sequence[Grid], *tables: Tensor) -> Tensor:
    """The same by torch, that of queries behind that of keys."""
    biases = [resized_bias(as_parts(own, axes), grid) for own, axes, grid in both(grids, tables)]
    return torch.cat(biases, dim=2)


class NativeBias(torch.autograd.Function):
    """The biases of keys and of queries. Kept for the backward pass: the tables."""

    @staticmethod
    def forward(ctx: Any, grids: Sequence[Grid], *tables: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*tables)
        ctx.grids = grids
        return run_forward(grids, tables)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tables, grids = ctx.saved_tensors, ctx.grids
        if any(map(is_special, grads)) or not all(map(is_ordinary, grads)):
            joined = torch.cat(grads, dim=2)
            return None, *plain_gradients(partial(plain, grids), tables, ctx.needs_input_grad[1:], joined)
        found = [torch.empty_like(x) for x in tables]
        for (own, axes, grid), grad in zip(both(grids, found), grads):
            run('agent_bias_backward', own, axes, grid, grad.contiguous())
        return None, *found


def agent_biases(grids: Sequence[Grid], tables: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Tables of keys, then of queries, and the grids (H, W) of both -> (N, A, P + H * W) of each."""
    return NativeBias.apply(grids, *tables) if needs_grad(*tables) else run_forward(grids, tables)
