"""Neighborhood attention by the CUDA kernels of the natten package, where it is installed with them.

Code: https://github.com/SHI-Labs/NATTEN (MIT)
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ops.window.neighborhood.geometry import Window


@lru_cache(maxsize=1)
def package() -> Any:
    """Return the natten package, None where it is not installed."""
    try:
        import natten
    except ImportError:
        return None
    return natten


def attend(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> Tensor:
    """(B, *size, N, D) x 3 -> (B, *size, N, D)."""
    run = getattr(package(), f'na{len(window.kernel_size)}d')
    return run(query, key, value, **window._asdict(), scale=scale)


def why_not(
    query: Tensor, key: Tensor, value: Tensor, window: Window, scale: float, bias: Tensor | None, dropout_p: float
) -> str | None:
    """Return why natten's kernels cannot serve the call."""
    if query.device.type != 'cuda':
        return f'its kernels run on CUDA only, the query is on {query.device}'
    if bias is not None:
        return 'it takes no relative position bias'
    if dropout_p > 0.0:
        return 'it has no dropout of the weights'
    if query.numel() == 0:
        return 'it takes no empty batch'
    if torch.compiler.is_compiling():
        return 'it is not traced by torch.compile'
    if package() is None:
        return 'natten is not installed'
    if not package().HAS_LIBNATTEN:
        return 'natten is installed without its kernels (natten.HAS_LIBNATTEN is False)'
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16) or query.shape[-1] % 8:
        return (
            'it takes float32, float16 and bfloat16 and multiples of 8 channels per head, '
            f'not {query.dtype} and {query.shape[-1]}'
        )
    return None
