"""The GELU of a float32 map in memory that is used again, and its gradient in the same pass where the C++ was built."""

import ctypes

import torch
from torch import Tensor

from ops import _native
from ops._scratch import scratch


def passing_gelu(x: Tensor, form: str) -> Tensor:
    """`F.gelu` in memory that the next call takes."""
    out = scratch(x.dtype, tuple(x.shape), use='gelu')[0]
    return torch.ops.aten.gelu.out(x, approximate=form, out=out)


def gelu_backward(x: Tensor, gradient: Tensor, form: str) -> Tensor:
    """`passing_gelu`; `gradient`, that of its result, becomes that of `x`."""
    library = _native.kernels()
    if library is not None and form == 'none' and fits(x) and fits(gradient):
        (out,) = scratch(x.dtype, tuple(x.shape), use='gelu')
        places = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, gradient, out))
        library.gelu_backward(*places, ctypes.c_int64(x.numel()), torch.get_num_threads())
        return out
    torch.ops.aten.gelu_backward.grad_input(gradient, x, approximate=form, grad_input=gradient)
    return passing_gelu(x, form)


def fits(x: Tensor) -> bool:
    """Whether the C++ takes a tensor: float32, without gaps, of whole vectors."""
    return x.dtype is torch.float32 and x.is_contiguous() and x.numel() % _native.LANES == 0 and not x.is_neg()
