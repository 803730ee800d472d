"""Products and convolutions of oneDNN on CPU that eager torch does not call by itself, and when they may be.

In bfloat16 torch calls oneDNN itself, but never with a GELU.

They know no autograd and no transform. So they are called only where nothing beyond autograd watches, in calls that are
not compiled, exported, traced, transformed, under autocast or a mode, and whose tensors are ordinary ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

AVAILABLE = (
    torch.backends.mkldnn.is_available()
    and torch.backends.mkl.is_available()
    and hasattr(torch.ops.mkldnn, '_linear_pointwise')
    and hasattr(torch.ops.mkldnn, '_convolution_pointwise')
)
HAS_BFLOAT16 = AVAILABLE and torch.ops.mkldnn._is_mkldnn_bf16_supported()
ORDINARY = (Tensor, nn.Parameter)


def is_transformed() -> bool:
    """Whether, in an eager call, `torch.func` or forward mode are at work, which know no gradients written by hand."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def is_watched() -> bool:
    """Whether something beyond autograd looks at the operators that are called."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch.is_autocast_enabled('cpu')
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._len_torch_function_stack() > 0
        or is_transformed()
    )


def is_ordinary(x: Tensor | None, dtype: torch.dtype = torch.float32) -> bool:
    """Whether a tensor is no subclass, dense, of the type and on CPU; or there is none."""
    return x is None or (
        type(x) in ORDINARY
        and x.dtype is dtype
        and x.is_cpu
        and x.layout is torch.strided
        and x.numel() > 0
        and not torch._C._functorch.is_legacy_batchedtensor(x)
    )


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


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd is to follow what comes of the tensors."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def has_hooks(module: nn.Module) -> bool:
    """Whether something waits for what goes into or comes out of a module."""
    own = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(own) or torch.nn.modules.module._has_any_global_hook()


def as_own(x: Tensor) -> Tensor:
    """A result of a function with gradients written by hand, no view, so that its caller may change it in place."""
    return torch.ops.aten._unsafe_view(x, x.shape)


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
