"""Depthwise convolutions, with faster gradients on CPU.

In float32, on a map NHWC in memory, the gradients are those of _depthwise.cpp where that was built. Otherwise oneDNN
finds the gradient of a kernel of up to three columns in about the time of the convolution. For wider ones torch takes 5
to 20 times as long, so theirs is put together from slices of columns. The gradient of the input of a strided
convolution takes 8 to 200 times as long in bfloat16 as in float32, so it is found in float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ops import _depthwise_native as native
from ops._eager import is_ordinary, needs_grad
from ops._onednn import Sliding, fused_dtype, takes
from ops._products import is_special

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
        sliding = Sliding(padding=(height // 2, 0), groups=channels)
        slices.append(gradients(grad, shifted, kernel, sliding, (False, True))[1])
    return torch.cat(slices, dim=3)


def input_gradient(grad: Tensor, x: Tensor, weight: Tensor, sliding: Sliding) -> Tensor:
    """(B, D, H', W') -> (B, C, H, W)."""
    if x.dtype is torch.bfloat16 and is_strided(sliding):
        found, _ = gradients(grad.float(), x.float(), weight.float(), sliding, (True, False))
        return found.to(x.dtype)
    return gradients(grad, x, weight, sliding, (True, False))[0]


def gradients(
    grad: Tensor, x: Tensor, weight: Tensor, sliding: Sliding, which: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Those of the input and of the kernel of a convolution, `which` are asked for."""
    stride, padding, dilation, groups = sliding
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, (*which, False)
    )[:2]


class DepthwiseProduct(torch.autograd.Function):
    """`F.conv2d` of one kernel for each channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sliding: Sliding) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sliding = sliding
        return F.conv2d(x, weight, bias, *sliding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        if is_native(x, weight, ctx.sliding) and is_ordinary(grad) and not is_special(grad):
            nhwc = (0, 2, 3, 1)
            of_x = torch.empty_like(x, memory_format=torch.channels_last) if for_x else None
            to_x = None if of_x is None else of_x.permute(nhwc)
            needed = (for_weight, for_bias)
            return of_x, *native.backward(grad.permute(nhwc), x.permute(nhwc), weight, to_x, needed), None
        of_weight = None
        if for_weight and is_wide(x, weight, ctx.sliding):
            of_weight = kernel_gradient(x, grad, weight.shape[2:])
        elif for_weight:
            of_weight = gradients(grad, x, weight, ctx.sliding, (False, True))[1]
        return (
            input_gradient(grad, x, weight, ctx.sliding) if for_x else None,
            of_weight,
            grad.sum((0, 2, 3)) if for_bias else None,
            None,
        )


def half(weight: Tensor) -> tuple[int, int]:
    """The padding that keeps the size of a map."""
    return weight.shape[2] // 2, weight.shape[3] // 2


def is_strided(sliding: Sliding) -> bool:
    """Whether the kernel leaves out positions."""
    return tuple(sliding.stride) != (1, 1)


def is_wide(x: Tensor, weight: Tensor, sliding: Sliding) -> bool:
    """Whether the gradient of the kernel gains by slices: odd sides, and the map keeps its size."""
    return (
        weight.shape[3] > COLUMNS
        and x.numel() >= LEAST_NUMBERS
        and x.shape[3] >= weight.shape[3]
        and weight.shape[2] % 2 == weight.shape[3] % 2 == 1
        and tuple(sliding.padding) == half(weight)
        and tuple(sliding.stride) == tuple(sliding.dilation) == (1, 1)
    )


def is_native(x: Tensor, weight: Tensor, sliding: Sliding) -> bool:
    """Whether its gradients are those of _depthwise.cpp."""
    return (
        x.dtype is torch.float32
        and x.stride(1) == 1
        and x.numel() >= LEAST_NUMBERS
        and tuple(sliding.padding) == half(weight)
        and tuple(sliding.stride) == tuple(sliding.dilation) == (1, 1)
        and native.fits(weight)
    )


def gains(x: Tensor, weight: Tensor, bias: Tensor | None, sliding: Sliding) -> bool:
    """Whether a convolution is one of `DepthwiseProduct` and faster there."""
    return (
        takes(x, weight, bias, fused_dtype(x))
        and x.ndim == 4
        and x.shape[1] == weight.shape[0] == sliding.groups
        and (
            (needs_grad(x, weight) and is_native(x, weight, sliding))
            or (needs_grad(weight) and is_wide(x, weight, sliding))
            or (needs_grad(x) and is_strided(sliding) and x.dtype is torch.bfloat16)
        )
    )


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, sliding: Sliding) -> Tensor:
    """`F.conv2d`, with the faster gradients where there are any."""
    if gains(x, weight, bias, sliding):
        return DepthwiseProduct.apply(x, weight, bias, sliding)
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
