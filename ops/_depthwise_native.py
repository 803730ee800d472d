"""Depthwise convolutions of float32 maps on the CPU in C++ (_depthwise.cpp), with their gradients.

Letters: B batch, H W height and width, C channels, K side of the kernels.
"""

import torch
from torch import Tensor

from ops import _native
from ops._native import LANES, address, call
from ops._scratch import scratch

SIDES = (3, 5, 7)  # as in _depthwise.cpp


def fits(weight: Tensor) -> bool:
    """Whether kernels, (C, 1, K, K), are of a form that it takes."""
    channels, _, high, wide = weight.shape
    return _native.kernels() is not None and high == wide and wide in SIDES and channels % LANES == 0


def channels_last(x: Tensor) -> Tensor:
    """(B, H, W, C), copied where channels do not lie side by side."""
    return x.resolve_neg() if x.stride(3) == 1 else x.contiguous()


def run(
    name: str, weight: Tensor, others: tuple[Tensor | None, ...], maps: tuple[Tensor | None, ...], add: bool
) -> None:
    """Call a function of _depthwise.cpp: `others` are bias and gradients, maps the input, the output and a gradient."""
    x = next(y for y in maps if y is not None)
    (B, H, W, C), K, threads = x.shape, weight.shape[-1], torch.get_num_threads()
    (space,) = scratch(torch.float32, ((threads + 1) * (K * K + 1) * C,), use='depthwise')
    numbers = [weight.data_ptr(), *map(address, others), space.data_ptr(), B, H, W, C, threads, add]
    for y in maps:
        numbers += (0, 0, 0, 0) if y is None else (y.data_ptr(), *y.stride()[:3])
    call(name, numbers, K)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """(B, H, W, C), (C, 1, K, K) -> `out`, (B, H, W, C)."""
    x, bias = channels_last(x), None if bias is None else bias.contiguous()
    run('depthwise_forward', weight.contiguous(), (bias, None, None), (x, out, None), add=False)


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, to_x: Tensor | None, needed: tuple[bool, bool], add: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the kernels and of a bias, as `needed`; that of the input fills `to_x`, or is added to it."""
    of_weight = torch.empty_like(weight, memory_format=torch.contiguous_format) if any(needed) else None
    of_bias = weight.new_empty(len(weight)) if needed[1] else None
    maps = (channels_last(x), channels_last(grad), to_x)
    run('depthwise_backward', weight.contiguous(), (None, of_weight, of_bias), maps, add)
    return of_weight if needed[0] else None, of_bias
