"""What authors save, what went wrong with a file, and what a hostile one tries."""

import argparse
import errno
import os
import pathlib
import shutil
from collections import OrderedDict, defaultdict
from datetime import datetime

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from checkpoints import CheckpointError, read_state_dict, save_safetensors, sha256_of

WEIGHTS = OrderedDict({'conv.weight': torch.arange(12.0).reshape(3, 4), 'norm.steps': torch.tensor(7)})
AVERAGED = OrderedDict({key: value + 1 for key, value in WEIGHTS.items()})


def prefixed(prefix: str, weights=WEIGHTS) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in weights.items()}


def assert_same(given, expected=WEIGHTS) -> None:
    assert given.keys() == expected.keys()
    for key in expected:
        assert type(given[key]) is torch.Tensor
        torch.testing.assert_close(given[key], expected[key], rtol=0, atol=0)


@pytest.fixture
def saved(tmp_path):
    """Save an object as torch does and read it back as a state dict."""

    def save_and_read(content, use_ema: bool = True, zipped: bool = True):
        path = tmp_path / 'w.pth'
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        return read_state_dict(path, use_ema=use_ema)

    return save_and_read


@pytest.mark.parametrize(
    'content',
    [
        WEIGHTS,
        {'model': WEIGHTS, 'epoch': 3},
        {'state_dict': WEIGHTS, 'meta': {'epoch': 1, 'cfg': 'model = dict()'}, 'optimizer': {'state': {}}},
        {'model_state_dict': WEIGHTS},
        {'net': WEIGHTS, 'acc': 0.9},
        {'module': WEIGHTS},
        {'params': WEIGHTS},
        {'model': {'state_dict': WEIGHTS}},
        {'checkpoint': None, 'model': {'module': {'state_dict': prefixed('module.')}}},
        {'arch': 'nat_mini', 'model': None, 'state_dict': WEIGHTS},
        {**WEIGHTS, 'epoch': 3, 'best': None, 'history': [0.1, 0.2], 'args': {'lr': torch.tensor(0.1)}},
        {**WEIGHTS, 'params': {'lr': 0.1}, 'module': {}},
        prefixed('module.'),
        prefixed('_orig_mod.'),
        prefixed('_orig_mod.module.'),
        prefixed('module._orig_mod.'),
        {key: nn.Parameter(value, requires_grad=value.is_floating_point()) for key, value in WEIGHTS.items()},
    ],
    ids=lambda content: '-'.join(content)[:40],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_wrappers_and_prefixes(saved, content, zipped):
    assert_same(saved(content, zipped=zipped))


def test_dictionary_inside_itself(saved):
    content: dict = {'epoch': 3}
    content.update(model=content, state_dict=content)
    with pytest.raises(CheckpointError, match='holds no weights'):
        saved(content)


def test_prefix_of_some_keys_stays(saved):
    mixed = {**prefixed('module.'), 'head.weight': torch.ones(1)}
    assert list(saved(mixed)) == list(mixed)


@pytest.mark.parametrize('name', ['state_dict_ema', 'model_ema'])
def test_averaged_weights(saved, name):
    content = {'state_dict': WEIGHTS, name: prefixed('module.', AVERAGED)}
    assert_same(saved(content), AVERAGED)
    assert_same(saved(content, use_ema=False))
    assert_same(saved({'state_dict': WEIGHTS, name: None}))


def test_harmless_objects_beside_the_weights(saved):
    args = argparse.Namespace(lr=1e-3, output=pathlib.Path('/out'), where=pathlib.PureWindowsPath('C:/out'))
    extras = {
        'args': args,
        'accuracy': np.float64(81.8),
        'confusion': np.eye(3),
        'names': np.array(['cat', 'dog']),
        'nothing': np.zeros(0),
        'meters': defaultdict(list, loss=[1.0]),
        'saved': datetime(2022, 9, 29),
        'version': torch.__version__,
        'empty': b'',
    }
    for zipped in (True, False):
        assert_same(saved({'model': WEIGHTS, **extras}, zipped=zipped))


def test_history_of_mmengine(saved):
    buffers = pytest.importorskip('mmengine.logging', reason='mmengine is an extra')
    history = buffers.HistoryBuffer([0.5, 0.4], [1, 1])
    assert_same(saved({'state_dict': WEIGHTS, 'message_hub': {'log_scalars': {'loss': history}}}))


class Hostile:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_pickle_is_not_run(saved, tmp_path, zipped):
    marker = tmp_path / 'marker'
    attacks = {
        f'{os.name}.system': Hostile(os.system, f'touch {marker}'),
        'eval': Hostile(eval, f'open({str(marker)!r}, "w")'),
        'pathlib.Path': Hostile(pathlib.Path.touch, marker),
        'shutil.copy': Hostile(shutil.copy, __file__, str(marker)),
    }
    for refused, attack in attacks.items():
        with pytest.raises(
            CheckpointError, match=rf'w\.pth refers to the Python object {refused}, .* save the weights'
        ):
            saved({'model': WEIGHTS, 'args': attack}, zipped=zipped)
        assert not marker.exists()


def test_stand_ins_do_nothing(saved, monkeypatch):
    """Names that are let through give empty objects: not even the harmless originals are called."""
    called = []
    monkeypatch.setattr(argparse.Namespace, '__init__', lambda self, **values: called.append(values))
    assert_same(saved({'model': WEIGHTS, 'args': Hostile(getattr, Hostile(argparse.Namespace), 'missing')}))
    assert called == []


def test_whole_module_is_refused_by_name(saved):
    with pytest.raises(CheckpointError, match=r'torch\.nn\.modules\.linear\.Linear'):
        saved(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], 'holds no weights but a list'),
        ({}, 'holds no weights but no entries'),
        ({'model': {}}, r'holds no weights but the entries model \(dict\)'),
        ({'epoch': 3, 'loss': None}, r'holds no weights but the entries epoch \(int\), loss \(NoneType\)'),
        ({'backbone': WEIGHTS}, r'holds no weights but the entries backbone \(OrderedDict\)'),
        ({0: torch.ones(1)}, 'holds no weights'),
        (torch.ones(3), 'holds no weights but a Tensor'),
        ({'model': {**WEIGHTS, 'count': 3}}, "'count' among the weights is no tensor but int"),
        ({'model': {**WEIGHTS, 'scale': None}}, "'scale' among the weights is no tensor but NoneType"),
    ],
)
def test_no_weights(saved, content, message):
    with pytest.raises(CheckpointError, match=message):
        saved(content)


@pytest.mark.parametrize(
    ('name', 'contents', 'message'),
    [
        ('w.pth', b'', 'is empty'),
        ('w.safetensors', b'', 'is empty'),
        ('w.pth', b'\n<!DOCTYPE html><html></html>', 'is a web page'),
        ('w.safetensors', b'<html></html>', 'is a web page'),
        ('w.pth', b'version https://git-lfs.github.com/spec/v1\noid sha256:0', 'git-lfs pointer'),
        ('w.pth', b'not a checkpoint at all', 'truncated, damaged or no checkpoint'),
        ('w.pth', bytes(range(256)) * 8, 'truncated, damaged or no checkpoint'),
        ('w.safetensors', bytes(range(256)) * 8, 'truncated, damaged or no safetensors'),
    ],
)
def test_no_checkpoint(tmp_path, name, contents, message):
    path = tmp_path / name
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize('kind', ['zip', 'legacy', 'safetensors'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path, kind, share):
    whole, part = tmp_path / 'whole', tmp_path / ('w.safetensors' if kind == 'safetensors' else 'w.pth')
    weights = {'a': torch.ones(1000), 'b': torch.ones(1000)}
    if kind == 'safetensors':
        save_safetensors(weights, whole, {})
    else:
        torch.save(weights, whole, _use_new_zipfile_serialization=kind == 'zip')
    part.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(CheckpointError, match=r'w\.\w+ (is truncated, damaged or no|refers to)'):
        read_state_dict(part)


def test_no_file(tmp_path):
    with pytest.raises(CheckpointError, match=r'w\.pth cannot be read: No such file'):
        read_state_dict(tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='is a folder'):
        read_state_dict(tmp_path)


def test_safetensors_roundtrip(tmp_path):
    path = tmp_path / 'new' / 'w.safetensors'
    weights = {
        **WEIGHTS,
        'half': torch.randn(3, 5).to(torch.bfloat16),
        'strided': torch.arange(12.0).reshape(3, 4).t(),
        'expanded': torch.ones(1, 3).expand(4, 3),
        'tied': WEIGHTS['conv.weight'],
        'view': WEIGHTS['conv.weight'][1:],
        'empty': torch.zeros(0, 2),
        'parameter': nn.Parameter(torch.ones(2)),
    }
    save_safetensors(weights, path, {'license': 'MIT', 'source': 'https://example.org'})
    given = read_state_dict(path)
    assert set(given) == set(weights)
    for key, value in weights.items():
        torch.testing.assert_close(given[key], value.detach(), rtol=0, atol=0)
    with safe_open(path, 'pt') as file:
        assert file.metadata() == {'format': 'pt', 'license': 'MIT', 'source': 'https://example.org'}
    assert [p.name for p in path.parent.iterdir()] == ['w.safetensors']


def test_same_weights_same_file(tmp_path):
    metadata = {'license': 'MIT', 'Größe': '3 × "4"\n', 'source': 'a', 'config': 'b'}
    for order in (1, -1) * 5:
        save_safetensors(WEIGHTS, tmp_path / f'{order}.safetensors', dict(list(metadata.items())[::order]))
        assert sha256_of(tmp_path / f'{order}.safetensors') == sha256_of(tmp_path / '1.safetensors')
    with safe_open(tmp_path / '-1.safetensors', 'pt') as file:
        assert file.metadata() == {'format': 'pt', **metadata}
    assert_same(read_state_dict(tmp_path / '1.safetensors'))


def test_nothing_to_save(tmp_path):
    with pytest.raises(CheckpointError, match='the state dict is empty'):
        save_safetensors({}, tmp_path / 'w.safetensors')
    with pytest.raises(CheckpointError, match="'epoch' is no tensor but int"):
        save_safetensors({**WEIGHTS, 'epoch': 3}, tmp_path / 'w.safetensors')
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'w.safetensors'
    save_safetensors(WEIGHTS, path)

    def save_half(tensors, filename, metadata):
        pathlib.Path(filename).write_bytes(b'half')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr('checkpoints.state.save_file', save_half)
    with pytest.raises(CheckpointError, match=r'w\.safetensors was not written: No space left on device'):
        save_safetensors(AVERAGED, path)
    assert_same(read_state_dict(path))
    assert list(tmp_path.iterdir()) == [path]


def test_write_refused_by_the_system_leaves_nothing(tmp_path):
    resource = pytest.importorskip('resource', reason='limits are set as on Unix')
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CheckpointError, match=r'w\.safetensors was not written'):
            save_safetensors({'a': torch.ones(10_000)}, tmp_path / 'w.safetensors')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_saved_weights_are_as_readable_as_any_new_file(tmp_path):
    (tmp_path / 'any').touch()
    save_safetensors({'a': torch.zeros(1)}, tmp_path / 'a.safetensors')
    assert (tmp_path / 'a.safetensors').stat().st_mode == (tmp_path / 'any').stat().st_mode
