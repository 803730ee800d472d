"""Every kind of source: paths, urls, the hub and catalogue entries."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

import checkpoints
from checkpoints import CheckpointError, locate, verify

DATA, OTHER = b'weights', b'other weights'
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def entry():
    """A catalogue entry without a source."""
    return replace(checkpoints.catalogue('nat')['nat_mini']['shi_in1k'], url=None, sha256=SHA256, bytes=len(DATA))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder that takes the place of the package's, for files that ship with it."""
    monkeypatch.setattr('checkpoints.entries.FOLDER', tmp_path / 'package')
    (tmp_path / 'package').mkdir()
    return tmp_path / 'package'


def test_local_path(tmp_path, monkeypatch):
    path = tmp_path / 'w.pth'
    path.write_bytes(DATA)
    monkeypatch.setenv('HOME', str(tmp_path))
    for source in (path, str(path), path.as_uri(), '~/w.pth', os.path.relpath(path)):
        assert locate(source, sha256=SHA256.upper(), bytes=len(DATA)).samefile(path)


def test_local_file_with_wrong_contents_is_refused_and_kept(tmp_path):
    path = tmp_path / 'w.pth'
    path.write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=f'sha256 .* expected {SHA256}'):
        locate(path, sha256=SHA256)
    with pytest.raises(CheckpointError, match='has 13 bytes, expected 7'):
        locate(path, bytes=len(DATA))
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('nowhere/w.pth', r'nowhere/w\.pth does not exist'),
        (Path(__file__).parent, 'is a folder'),
        ('file:///nowhere/w.pth', 'does not exist'),
        ('s3://bucket/w.pth', 's3 urls are not supported'),
        ('hf-hub:name', 'hf-hub:organisation/name'),
        ('hf-hub:a/b@c@d', 'hf-hub:organisation/name'),
        ('hf-hub:a/../b', 'hf-hub:organisation/name'),
    ],
)
def test_no_such_source(source, message):
    with pytest.raises(CheckpointError, match=message):
        locate(source)


@pytest.fixture
def hub(server, monkeypatch):
    """The file server in the place of the hub; returns how to upload."""
    monkeypatch.setattr(
        'huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE',
        server.url('/{repo_id}/resolve/{revision}/{filename}'),
    )

    def upload(name: str, data: bytes, revision: str = 'main') -> None:
        server.put(f'/org/net/resolve/{revision}/{name}', data, headers={'X-Repo-Commit': '0' * 40})

    return upload


def test_hub_prefers_safetensors(hub, tmp_path):
    hub('pytorch_model.bin', OTHER)
    assert locate('hf-hub:org/net', cache_dir=tmp_path / 'one').read_bytes() == OTHER
    hub('model.safetensors', DATA)
    path = locate('hf-hub:org/net', cache_dir=tmp_path / 'two', sha256=SHA256)
    assert path.name == 'model.safetensors'
    assert path.read_bytes() == DATA


def test_hub_revision(hub, tmp_path):
    hub('model.safetensors', OTHER)
    hub('model.safetensors', DATA, revision='v1.0')
    assert locate('hf-hub:org/net@v1.0', cache_dir=tmp_path).read_bytes() == DATA


def test_hub_without_weights(hub, tmp_path):
    with pytest.raises(CheckpointError, match=r'neither model\.safetensors nor pytorch_model\.bin: 404'):
        locate('hf-hub:org/net', cache_dir=tmp_path)


def test_hub_file_with_wrong_contents(hub, tmp_path):
    hub('model.safetensors', OTHER)
    with pytest.raises(CheckpointError, match='expected 7'):
        locate('hf-hub:org/net', cache_dir=tmp_path, bytes=7)


def test_entry_by_its_name():
    assert locate('nat_pico.attnzoo_cifar10') == checkpoints.catalogue('nat')['nat_pico']['attnzoo_cifar10'].local_file
    with pytest.raises(CheckpointError, match=r'nat_pico\.attnzoo does not exist'):
        locate('nat_pico.attnzoo')


def test_entry_is_found_where_it_ships(server, entry, package):
    (package / 'w.pth').write_bytes(DATA)
    entry = replace(entry, file='w.pth', url=server.put('/w.pth', OTHER))
    assert locate(entry) == package / 'w.pth'
    assert server.log == []


def test_entry_is_downloaded_where_it_does_not_ship(server, entry, package, tmp_path):
    entry = replace(entry, file='w.pth', url=server.put('/w.pth', DATA))
    assert locate(entry, cache_dir=tmp_path).read_bytes() == DATA


def test_entry_is_checked_by_its_own_hash(server, entry, tmp_path):
    entry = replace(entry, url=server.put('/w.pth', OTHER[: len(DATA)]))
    with pytest.raises(CheckpointError, match=SHA256):
        locate(entry, cache_dir=tmp_path)


def test_entry_on_the_hub(hub, entry, tmp_path):
    hub('model.safetensors', DATA)
    assert locate(replace(entry, hf_hub_id='org/net'), cache_dir=tmp_path).read_bytes() == DATA


def test_entry_whose_file_is_gone(entry, package):
    with pytest.raises(CheckpointError, match=r'w\.pth does not exist'):
        locate(replace(entry, file='w.pth'))


def test_verify(server, entry, package, tmp_path):
    entry = replace(entry, file='w.pth', url=server.put('/w.pth', DATA))
    with pytest.raises(CheckpointError, match='not on this machine'):
        verify(entry, cache_dir=tmp_path)
    downloaded = locate(entry, cache_dir=tmp_path)
    verify(entry, cache_dir=tmp_path)
    downloaded.write_bytes(OTHER[: len(DATA)])
    with pytest.raises(CheckpointError, match=f'sha256 .* expected {SHA256}'):
        verify(entry, cache_dir=tmp_path)
    (package / 'w.pth').write_bytes(DATA)
    verify(entry, cache_dir=tmp_path)
    with pytest.raises(CheckpointError, match='has no sha256'):
        verify(replace(entry, sha256=None))
