"""Where code that knows neither autograd nor transforms may stand in for torch's operators.

Only where nothing beyond autograd watches: in calls that are not compiled, exported, traced, transformed, under
autocast or a mode, and whose tensors are ordinary ones.
"""

import torch
from torch import Tensor, nn

ORDINARY = (Tensor, nn.Parameter)


def is_transformed() -> bool:
    """Whether, in an eager call, `torch.func` or forward mode are at work, which know no gradients written by hand."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def is_watched() -> bool:
    """Whether something beyond autograd looks at the operators that are called."""
    return torch.is_autocast_enabled('cpu') or is_intercepted()


def is_intercepted() -> bool:
    """Whether something beyond autograd and autocast looks at the operators that are called."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
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
