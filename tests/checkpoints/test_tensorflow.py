"""TensorFlow's checkpoints, written here byte by byte."""

import struct

import numpy as np
import pytest
import torch

from checkpoints import CheckpointError, read_state_dict

NUMBERS = {'float32': 1, 'float64': 2, 'int32': 3, 'int64': 9, 'float16': 19}


def varint(number):
    out = b''
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, value):
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def block(entries, compression=b'\0'):
    """A block of a sorted table: keys without the beginning they share with the key before, a restart every third."""
    content, restarts, before = b'', [], b''
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % 3 == 0:
            restarts.append(len(content))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    content += struct.pack(f'<{len(restarts) + 1}I', *restarts, len(restarts))
    return content, content + compression + b'crc3'


def write_bundle(index, variables, shards=1, compression=b'\0', slices=b''):
    """Writes `index` and its data files."""
    data = [bytearray() for _ in range(shards)]
    entries = [(b'', field(1, shards) + field(3, field(1, 1)))]
    for i, (name, array) in enumerate(sorted(variables.items())):
        shape = b''.join(field(2, field(1, side)) for side in array.shape)
        shard, content = i % shards, np.ascontiguousarray(array).tobytes()
        message = field(1, NUMBERS.get(array.dtype.name, 7)) + field(2, shape)
        message += (field(3, shard) if shard else b'') + (field(4, len(data[shard])) if data[shard] else b'')
        entries.append((name.encode(), message + field(5, len(content)) + b'\x35\1\2\3\4' + slices))
        data[shard] += content
    table, handles = bytearray(), []
    for part in (entries[: len(entries) // 2], entries[len(entries) // 2 :]):
        content, stored = block(part, compression)
        handles.append((part[-1][0], varint(len(table)) + varint(len(content))))
        table += stored
    content, stored = block(handles, compression)
    footer = varint(0) + varint(0) + varint(len(table)) + varint(len(content))
    index.write_bytes(table + stored + footer.ljust(40, b'\0') + struct.pack('<Q', 0xDB4775248B80FB57))
    for i, content in enumerate(data):
        index.with_suffix(f'.data-{i:05d}-of-{shards:05d}').write_bytes(content)


VARIABLES = {
    'net/conv/kernel': np.arange(24.0, dtype=np.float32).reshape(2, 3, 4),
    'net/conv/kernel_half': np.ones((3, 1), np.float16),
    'net/dense/bias': np.array([1.5, -2.0]),
    'net/dense/empty': np.zeros((0, 4), np.float32),
    'global_step': np.array(2**40),
}


@pytest.mark.parametrize('shards', [1, 3])
def test_bundles_of_any_number_of_files(tmp_path, shards):
    write_bundle(tmp_path / 'model.ckpt-7.index', VARIABLES, shards)
    read = read_state_dict(tmp_path / 'model.ckpt-7.index')
    assert read.keys() == VARIABLES.keys()
    assert all(torch.equal(read[name], torch.from_numpy(value)) for name, value in VARIABLES.items())


def test_archives_and_texts(tmp_path):
    np.savez(tmp_path / 'w.npz', **VARIABLES)
    assert torch.equal(read_state_dict(tmp_path / 'w.npz')['global_step'], torch.tensor(2**40))
    write_bundle(tmp_path / 'w.index', {**VARIABLES, 'note': np.array(['text'])})
    assert 'note' not in read_state_dict(tmp_path / 'w.index')


def test_averages_stand_for_their_variables(tmp_path):
    pair = {'w': np.zeros(2), 'w/ExponentialMovingAverage': np.ones(2), 'only': np.zeros(1)}
    np.savez(tmp_path / 'w.npz', **pair)
    assert {key: float(value[0]) for key, value in read_state_dict(tmp_path / 'w.npz').items()} == {'w': 1, 'only': 0}
    raw = read_state_dict(tmp_path / 'w.npz', use_ema=False)
    assert {key: float(value[0]) for key, value in raw.items()} == {'w': 0, 'only': 0}


def test_what_is_not_read_is_said(tmp_path):
    index = tmp_path / 'w.index'
    write_bundle(index, VARIABLES, compression=b'\1')
    with pytest.raises(CheckpointError, match='compressed'):
        read_state_dict(index)
    write_bundle(index, VARIABLES, slices=field(7, b''))
    with pytest.raises(CheckpointError, match='slices'):
        read_state_dict(index)
    write_bundle(index, VARIABLES)
    index.with_suffix('.data-00000-of-00001').unlink()
    with pytest.raises(CheckpointError, match='data-00000-of-00001'):
        read_state_dict(index)
    for content in (b'', b'short', bytes(100), index.read_bytes()[:-60]):
        index.write_bytes(content)
        with pytest.raises(CheckpointError, match=r'w\.index'):
            read_state_dict(index)
    (tmp_path / 'w.npz').write_bytes(b'PK no')
    with pytest.raises(CheckpointError, match='archive'):
        read_state_dict(tmp_path / 'w.npz')
