"""Products and convolutions of oneDNN on CPU that eager torch does not call by itself, and when they may be.

In bfloat16 torch calls oneDNN itself, but never with a GELU.

They know no autograd and no transform, so they are called only where `ops._eager` allows it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ops._eager import has_hooks, is_ordinary, is_watched

AVAILABLE = (
    torch.backends.mkldnn.is_available()
    and torch.backends.mkl.is_available()
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
)
HAS_BFLOAT16 = AVAILABLE and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def takes(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype = torch.float32) -> bool:
    """Whether the functions below may be called."""
    return (
        AVAILABLE
        and not is_watched()
        and is_ordinary(x, dtype)
        and is_ordinary(weight, dtype)
        and is_ordinary(bias, dtype)
        and bool(torch.backends.mkldnn.enabled)
    )


def fused_dtype(x: Tensor) -> torch.dtype:
    """The type for `takes` where a GELU follows: without one torch itself calls oneDNN in bfloat16."""
    return torch.bfloat16 if HAS_BFLOAT16 and x.dtype is torch.bfloat16 else torch.float32


def form_of(act: nn.Module) -> str | None:
    """What `product` and `convolution` call the form of a GELU, None where the module is none or must be called."""
    return act.approximate if type(act) is nn.GELU and not has_hooks(act) else None


def product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: str | None = None) -> Tensor:
    """(..., C) x (D, C) -> (..., D), and its GELU where a form of it is given."""
    activation = ('none', '') if gelu is None else ('gelu', gelu)
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, activation[0], [], activation[1])


class Sliding(NamedTuple):
    """How the kernel of a convolution moves, as `F.conv2d` takes it."""

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, sliding: Sliding, gelu: str) -> Tensor:
    """The GELU of `F.conv2d`, in the form given."""
    stride, padding, dilation, groups = sliding
    return torch.ops.mkldnn._convolution_pointwise.default(
        x, weight, bias, padding, stride, dilation, groups, 'gelu', [], gelu
    )
