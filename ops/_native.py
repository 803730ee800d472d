"""The kernels in C++, which an installation builds where it finds a compiler, once for each kind of processor.

They include no header of torch or Python and so do not depend on the version of either. Where they were not built,
torch's operators do their work.
"""

import ctypes
import struct
from collections.abc import Sequence
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WIDTHS = (16, 32, 48, 64)
"""Channels of a head that attention is made for, `by_channels` of _products.h."""

LANES = 16
"""Numbers that the widest vectors hold."""

LIBRARIES = {'AVX512': '_kernels_avx512', 'AVX2': '_kernels_avx2'}
INTERFACE = 3
"""What `interface` of a library returns that takes what this version of the package hands over."""


@lru_cache(maxsize=4)
def load(capability: str) -> ctypes.CDLL | None:
    """Return the library for processors of a capability, by its name in torch, None where there is none."""
    name = LIBRARIES.get(capability)
    for path in (Path(__file__).with_name(f'{name}{suffix}') for suffix in EXTENSION_SUFFIXES):
        if path.exists():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:  # built against what this torch does not bring, such as its OpenMP
                return None
            return library if library.interface() == INTERFACE else None
    return None


def kernels() -> ctypes.CDLL | None:
    """Return the library for this processor, None where there is none."""
    return load(torch.backends.cpu.get_cpu_capability())


def call(name: str, numbers: Sequence[int], *others: Any) -> None:
    """Call a function of the library with a struct of `numbers`, of 64 bits each, and what follows it."""
    if getattr(kernels(), name)(struct.pack(f'{len(numbers)}q', *numbers), *others) != 1:
        raise RuntimeError(f'{name} of the C++ is not made for {others}: it should not have been called')


def rounded(count: int) -> int:
    """Numbers that whole vectors hold, at least `count`."""
    return -(-count // LANES) * LANES


def address(x: Tensor | None) -> int:
    """Where its numbers lie; 0 is nowhere."""
    return 0 if x is None else x.data_ptr()
