"""Agent attention in float32 on the CPU in C++ (agent_native.cpp): no copies of heads, no scores beyond a tile of them.

Letters: B batch, L tokens, C channels, N heads, D channels per head, A agents.
"""

import ctypes
import struct
from collections.abc import Sequence
from functools import partial
from math import gcd
from typing import Any

import torch
from torch import Tensor

from ops import _native
from ops._eager import as_own, needs_grad
from ops._native import WIDTHS, address, call, rounded
from ops._products import is_special, plain_gradients
from ops._scratch import scratch
from ops._split import empty_alike
from ops.linear.agent_products import Form, Inputs, convolve, convolve_backward, plain

MOST_AGENTS, TILE = 128, 64  # as in agent_native.cpp


def takes(x: Inputs, form: Form) -> bool:
    """Whether `agent_attention` may be called, where `agent_products` may."""
    width, agents = x.q.shape[2] // form.heads, form.agents[0] * form.agents[1]
    return _native.kernels() is not None and width in WIDTHS and agents <= MOST_AGENTS


def parts(tokens: int, heads: int, threads: int) -> int:
    """Into how many parts the tokens go, so that parts of all heads are as many for each thread."""
    return min(threads // gcd(heads, threads), -(-tokens // TILE))


def run(name: str, form: Form, tables: Sequence[Tensor | None], x: Inputs, maps: Sequence[Tensor | None]) -> None:
    """Call a function of agent_native.cpp, with what its `AgentCall` holds: `tables`, and maps (B, L or A, C)."""
    (B, L, C), N, threads = x.q.shape, form.heads, torch.get_num_threads()
    numbers = [B, N, form.agents[0] * form.agents[1], L, parts(L, N, threads), threads]
    numbers += (form.prefix, *form.grid, *form.agents)
    kept = []  # until the call is over
    for y in (*x[:3], *maps):
        if y is not None:
            y = y.resolve_neg() if y.stride(2) == 1 else y.contiguous()
        kept.append(y)
        numbers += (0, 0, 0, 0) if y is None else (y.data_ptr(), y.stride(0), y.stride(1), C // N)
    places = [address(table) for table in tables]
    (space,) = scratch(torch.float32, (space_of([*places, 0, *numbers], C // N),), use='agents')
    call(name, [*places, space.data_ptr(), *numbers], C // N, ctypes.c_float(form.scale))


def space_of(numbers: Sequence[int], width: int) -> int:
    """How many numbers a call works in."""
    library: Any = _native.kernels()
    library.agent_space.restype = ctypes.c_int64
    return library.agent_space(struct.pack(f'{len(numbers)}q', *numbers), width)


def run_forward(x: Inputs, form: Form) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, L, C), and what the backward pass is to be given: agents, what they gathered, and sums of their weights."""
    (B, _, C), A = x.q.shape, form.agents[0] * form.agents[1]
    agents, gathered = x.q.new_empty(B, A, C), x.q.new_empty(B, A, C)
    out = convolve(x, form).contiguous()
    sums = x.q.new_empty(B, form.heads, 2, rounded(A))
    tables = (x.of_keys.contiguous(), x.of_queries.contiguous(), None, None, sums)
    run('agent_forward', form, tables, x, (out, agents, gathered, None, None, None, None))
    return out, agents, gathered, sums


class NativeAgents(torch.autograd.Function):
    """Agent attention and the convolution of the values. Kept for the backward pass: the inputs, agents and sums."""

    @staticmethod
    def forward(ctx: Any, form: Form, *tensors: Any) -> Tensor:
        out, *kept = run_forward(Inputs(*tensors), form)
        ctx.save_for_backward(*tensors, *kept)
        ctx.form = form
        return as_own(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # unpacked once: checkpoints allow no more
        form, x, (agents, gathered, sums) = ctx.form, Inputs(*saved[:7]), saved[7:]
        needed = ctx.needs_input_grad[1:]
        if is_special(grad):
            return None, *plain_gradients(partial(plain, form=form), x, needed, grad)
        to_q, to_k, to_v = empty_alike(*x[:3])
        to_agents = torch.empty_like(agents)
        to_biases = [torch.empty_like(y, memory_format=torch.contiguous_format) for y in (x.of_keys, x.of_queries)]
        tables = (x.of_keys.contiguous(), x.of_queries.contiguous(), *to_biases, sums)
        run('agent_backward', form, tables, x, (grad, agents, gathered, to_q, to_k, to_v, to_agents))
        return None, to_q, to_k, to_v, *to_biases, *convolve_backward(x, form, grad, to_v, needed[5:])


def agent_attention(x: Inputs, form: Form) -> Tensor:
    """(B, L, C), of queries, keys and values of one map."""
    return NativeAgents.apply(form, *x) if needs_grad(*x) else run_forward(x, form)[0]
