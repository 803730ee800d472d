"""Checkpoints of TensorFlow, read without it: `NAME.index` and `NAME.data-00000-of-00001`, or an archive of arrays.

An index is a sorted table of LevelDB whose values are messages of protocol buffers. Compressed tables and variables
saved in slices, which TensorFlow does not write by default, are refused.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints.errors import CheckpointError

AVERAGE = '/ExponentialMovingAverage'
MAGIC = 0xDB4775248B80FB57
FOOTER = 48
DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 19: np.float16}
"""TensorFlow's numbers of types; those that are missing here (texts, resources) hold no weights."""


def read_archive(path: Path) -> dict[str, Tensor]:
    """The arrays of an .npz file, name -> tensor.

    Raises:
        CheckpointError: damaged, or it holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:  # zipfile and numpy raise several types
        raise CheckpointError(f'{path} is truncated, damaged or no archive of arrays ({error})') from error


def read_bundle(index: Path) -> dict[str, Tensor]:
    """The variables of a checkpoint by the path of its index, name -> tensor.

    Raises:
        CheckpointError: damaged, a file of its data is missing, or it is stored in a way that is not read here.
    """
    try:
        entries = dict(_table(index.read_bytes()))
        shards = dict(_fields(entries.pop(b''))).get(1, 1)
        files = [index.with_suffix(f'.data-{i:05d}-of-{shards:05d}') for i in range(shards)]
        data = [np.memmap(file, np.uint8, 'r') for file in files]
        found = {name.decode(): _variable(entry, data) for name, entry in entries.items()}
        return {name: tensor for name, tensor in found.items() if tensor is not None}
    except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
        raise CheckpointError(f'{index} is truncated, damaged or no index of TensorFlow ({error})') from error


def choose_averages(variables: Mapping[str, Tensor], use_ema: bool) -> dict[str, Tensor]:
    """Where a variable and its moving average are both there, one of them, under the variable's name."""
    averages = {name.removesuffix(AVERAGE): value for name, value in variables.items() if name.endswith(AVERAGE)}
    raw = {name: value for name, value in variables.items() if not name.endswith(AVERAGE)}
    return {**raw, **averages} if use_ema else {**averages, **raw}


def _variable(entry: bytes, data: list[np.memmap]) -> Tensor | None:
    """The tensor that a message `BundleEntryProto` describes; None where it is none of numbers."""
    message = dict(_fields(entry))
    if 7 in message:
        raise ValueError('a variable is stored in slices')
    if message.get(1) not in DTYPES:
        return None
    shape = [dict(_fields(size)).get(1, 0) for field, size in _fields(message.get(2, b'')) if field == 2]
    start, dtype = message.get(4, 0), np.dtype(DTYPES[message[1]])
    values = data[message.get(3, 0)][start : start + message.get(5, 0)]
    return torch.from_numpy(values.view(dtype).reshape(shape).copy())


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a sorted table."""
    footer = content[-FOOTER:]
    if struct.unpack('<Q', footer[-8:])[0] != MAGIC:
        raise ValueError('the number at its end is another')
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    for _, handle in _block(content, footer[at:]):
        yield from _block(content, handle)


def _block(content: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of the block that a handle (offset, size) points to; keys share their beginnings."""
    start, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    block = content[start : start + size]
    if content[start + size]:
        raise ValueError('its blocks are compressed')
    restarts = struct.unpack('<I', block[-4:])[0]
    key, at = b'', 0
    while at < size - 4 * (restarts + 1):
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh + length
        yield key, block[at - length : at]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protocol buffer."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
        else:
            length = {1: 8, 5: 4}.get(kind)
            if length is None:
                length, at = _varint(message, at)
            at += length
            yield tag >> 3, message[at - length : at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits per byte, and the position behind it."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
