"""Depthwise convolutions, with a faster gradient of wide kernels in float32 on CPU.

oneDNN finds the gradient of a kernel of up to three columns in about the time of the convolution. For wider ones torch
takes 5 to 20 times as long, so theirs is put together from slices of columns.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops._eager import needs_grad
from ops._onednn import Sliding, takes

COLUMNS = 3
"""Columns of a kernel that oneDNN has a fast gradient for."""

LEAST_NUMBERS = 2**15
"""Numbers in a map from which on slices are faster."""


def kernel_gradient(x: Tensor, grad: Tensor, size: tuple[int, int]) -> Tensor:
    """Input and gradient of the output, (B, C, H, W) -> (C, 1, *size), `size` being odd and the padding half of it.

    A slice of the kernel is a kernel of its own, of a map that is shifted by its distance from the middle.
    """
    channels, (height, width) = x.shape[1], size
    slices = []
    for start in range(0, width, COLUMNS):
        columns, left = min(COLUMNS, width - start), width // 2 - start
        shifted = F.pad(x, (left, columns - 1 - left))
        kernel = x.new_empty(channels, 1, height, columns)
        slices.append(gradients(grad, shifted, kernel, (height // 2, 0), (False, True))[1])
    return torch.cat(slices, dim=3)


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], which: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Those of the input and of the kernel of a depthwise convolution, `which` are asked for."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], x.shape[1], (*which, False)
    )[:2]


class WideKernel(torch.autograd.Function):
    """A depthwise convolution of an odd kernel, padded to keep the size of the map."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=half(weight), groups=weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            gradients(grad, x, weight, half(weight), (True, False))[0] if for_x else None,
            kernel_gradient(x, grad, weight.shape[2:]) if for_weight else None,
            grad.sum((0, 2, 3)) if for_bias else None,
        )


def half(weight: Tensor) -> tuple[int, int]:
    """The padding that keeps the size of a map."""
    return weight.shape[2] // 2, weight.shape[3] // 2


def is_wide(x: Tensor, weight: Tensor, bias: Tensor | None, sliding: Sliding) -> bool:
    """Whether a convolution is one of `WideKernel` and gains by it."""
    return (
        takes(x, weight, bias)
        and weight.shape[3] > COLUMNS
        and needs_grad(weight)
        and x.ndim == 4
        and x.numel() >= LEAST_NUMBERS
        and x.shape[1] == weight.shape[0] == sliding.groups
        and x.shape[3] >= weight.shape[3]
        and weight.shape[2] % 2 == weight.shape[3] % 2 == 1
        and tuple(sliding.padding) == half(weight)
        and tuple(sliding.stride) == tuple(sliding.dilation) == (1, 1)
    )


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, sliding: Sliding) -> Tensor:
    """`F.conv2d`, with the faster gradient where there is one."""
    if is_wide(x, weight, bias, sliding):
        return WideKernel.apply(x, weight, bias)
    return F.conv2d(x, weight, bias, *sliding)


class DepthwiseConv2d(nn.Conv2d):
    """(B, C, H, W) -> (B, C, H, W): each channel by a kernel of its own, the map zero-padded.

    Args:
        dim: channels C.
        kernel_size: side of the kernels in positions, odd.
        bias: add one per channel.
        device: where the parameters are made.
        dtype: of the parameters.

    Raises:
        ValueError: `kernel_size` is not an odd number above 0.
    """

    def __init__(self, dim: int, kernel_size: int, bias: bool = True, **dd: Any) -> None:
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and above 0, got {kernel_size}')
        super().__init__(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim, bias=bias, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, Sliding(self.stride, half(self.weight), self.dilation, self.groups))
