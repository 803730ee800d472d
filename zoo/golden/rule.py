"""Deterministic numbers: whoever knows a key, or a seed, has the same weights, inputs and sampled positions.

Every number comes from NumPy's Mersenne Twister, whose stream is frozen, seeded by the CRC-32 of a name.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream(seed: int | str) -> np.random.RandomState:
    """The random stream of a seed, or of the CRC-32 of a name."""
    number = zlib.crc32(seed.encode()) if isinstance(seed, str) else seed
    return np.random.RandomState(number)


def normal(seed: int | str, shape: Sequence[int]) -> np.ndarray:
    """Standard normal numbers of `shape`, float32."""
    return np.asarray(stream(seed).standard_normal(tuple(shape)), np.float32)


def images(shape: Sequence[int]) -> Tensor:
    """The input (B, 3, H, W) of every network."""
    return torch.from_numpy(normal(0, shape))


def weight(key: str, shape: Sequence[int], scale: float = 1.0) -> np.ndarray:
    """Value of one entry of a state dict, from its key alone.

    Matrices and kernels have standard deviation scale / sqrt(fan in), vectors of factors lie around 1 and all other
    vectors around 0, so that the activations of a deep network stay of the order of 1.
    """
    noise = normal(key, shape)
    if key.endswith('running_var'):
        return 1 + 0.1 * np.abs(noise)
    if len(shape) >= 2:
        return scale * noise / np.float32(math.sqrt(math.prod(shape[1:])))
    leaf = key.rsplit('.', 1)[-1]
    if leaf == 'weight' or 'gamma' in leaf or 'layer_scale' in leaf:
        return 1 + 0.1 * noise
    return 0.1 * noise


def state_dict(
    keys: Mapping[str, Sequence[int]],
    kept: Mapping[str, Tensor],
    scale: float = 1.0,
    post_fill: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Tensor]:
    """Key -> shape becomes key -> tensor.

    Args:
        keys: the authors' state dict.
        kept: buffers that have their own value instead of one of the rule.
        scale: factor of matrices and kernels.
        post_fill: `key_endswith` (a list of endings) with `multiply` or `add`, applied to the filled values.
    """
    filled = dict(kept)
    for key, shape in keys.items():
        if key in kept:
            continue
        value = torch.from_numpy(np.asarray(weight(key, shape, scale), np.float32))
        for change in post_fill:
            if key.endswith(tuple(change['key_endswith'])):
                value = value * change.get('multiply', 1) + change.get('add', 0)
        filled[key] = value
    return {key: filled[key] for key in keys}
