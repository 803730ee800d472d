"""Downloads from a server on this machine: complete and checked, or one clear error and no file."""

import errno
import hashlib
import os
import random
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from checkpoints import CheckpointError, download, locate
from checkpoints.sources import cached_name, hash_in_name

DATA = random.Random(0).randbytes(700_000)
NEWER = random.Random(1).randbytes(650_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


def part_of(url: str, cache: Path) -> Path:
    return cache / f'{cached_name(url)}.part'


def leave_part(server, cache: Path, data: bytes, path: str = '/w.pth', **how) -> str:
    """A download of `data` that broke off after 200000 bytes, the server whole again."""
    url = server.put(path, data, drop_after=[200_000] * download.ATTEMPTS, ranges=False, **how)
    with pytest.raises(CheckpointError):
        locate(url, cache_dir=cache)
    server.put(path, data, **how)
    server.log.clear()
    return url


def assert_nothing_kept(cache: Path) -> None:
    assert [path.name for path in cache.rglob('*') if path.suffix != '.lock'] == []


def test_downloads_once(server, tmp_path):
    url = server.put('/a/w.pth', DATA)
    path = locate(url, sha256=SHA256, bytes=len(DATA), cache_dir=tmp_path)
    assert path.read_bytes() == DATA
    assert path.suffix == '.pth'
    assert locate(url, sha256=SHA256, cache_dir=tmp_path) == path
    assert [request.status for request in server.log] == [200]
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f'{path.name}.lock']


def test_lost_connection_is_resumed_with_the_rest_only(server, tmp_path):
    url = server.put('/w.pth', DATA, drop_after=[300_000, 100_000])
    assert locate(url, sha256=SHA256, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.status for request in server.log] == [200, 206, 206]
    assert [request.range for request in server.log] == [None, 'bytes=300000-', 'bytes=400000-']
    assert sum(request.sent for request in server.log) == len(DATA)


def test_a_later_call_resumes(server, tmp_path):
    url = server.put('/w.pth', DATA, drop_after=[100_000] * download.ATTEMPTS)
    with pytest.raises(CheckpointError, match='closed after 400000 of 700000 bytes; 400000 bytes are kept'):
        locate(url, cache_dir=tmp_path)
    assert not (tmp_path / cached_name(url)).exists()
    assert part_of(url, tmp_path).read_bytes() == DATA[:400_000]
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert server.log[-1].sent == 300_000


def test_an_interrupted_call_keeps_its_part(server, tmp_path, monkeypatch):
    url = server.put('/w.pth', DATA)

    def interrupted(response):
        yield response.read(100_000)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, '_pieces', interrupted)
        with pytest.raises(KeyboardInterrupt):
            locate(url, cache_dir=tmp_path)
    assert part_of(url, tmp_path).stat().st_size == 100_000
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert server.log[-1].range == 'bytes=100000-'


def test_server_without_ranges_starts_over(server, tmp_path):
    url = server.put('/w.pth', DATA, ranges=False, drop_after=[300_000])
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.status for request in server.log] == [200, 200]


def test_file_without_a_version_mark_starts_over(server, tmp_path):
    url = server.put('/w.pth', DATA, etag=None, drop_after=[300_000])
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.range for request in server.log] == [None, None]


def test_weak_etag_starts_over(server, tmp_path):
    url = server.put('/w.pth', DATA, etag='W/"1"', drop_after=[300_000])
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.range for request in server.log] == [None, None]


@pytest.mark.parametrize(('checks_if_range', 'statuses'), [(True, [200]), (False, [206, 200])])
def test_file_changed_on_the_server_starts_over(server, tmp_path, checks_if_range, statuses):
    url = leave_part(server, tmp_path, DATA)
    server.put('/w.pth', NEWER, etag='"2"', checks_if_range=checks_if_range)
    assert locate(url, cache_dir=tmp_path).read_bytes() == NEWER
    assert server.log[0].range == 'bytes=200000-'
    assert [request.status for request in server.log] == statuses


def test_kill_while_starting_over_mixes_no_versions(server, tmp_path, monkeypatch):
    url = leave_part(server, tmp_path, DATA)
    server.put('/w.pth', NEWER, etag='"2"')

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr('tqdm.tqdm', killed)
        with pytest.raises(KeyboardInterrupt):
            locate(url, cache_dir=tmp_path)
    assert locate(url, cache_dir=tmp_path).read_bytes() == NEWER


def test_wrong_range_starts_over(server, tmp_path):
    url = leave_part(server, tmp_path, DATA, range_shift=-5)
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.status for request in server.log] == [206, 200]


def test_complete_part_is_not_sent_again(server, tmp_path):
    url = leave_part(server, tmp_path, DATA)
    part_of(url, tmp_path).write_bytes(DATA)
    assert locate(url, sha256=SHA256, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.status for request in server.log] == [416]


def test_part_longer_than_the_file_starts_over(server, tmp_path):
    url = leave_part(server, tmp_path, DATA)
    part_of(url, tmp_path).write_bytes(DATA + b'more')
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert [request.status for request in server.log] == [416, 200]


def test_damaged_part_is_found_by_its_hash(server, tmp_path):
    url = leave_part(server, tmp_path, DATA)
    part_of(url, tmp_path).write_bytes(NEWER[:200_000])
    with pytest.raises(CheckpointError, match='sha256'):
        locate(url, sha256=SHA256, cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)
    assert locate(url, sha256=SHA256, cache_dir=tmp_path).read_bytes() == DATA


def test_wrong_hash(server, tmp_path):
    url = server.put('/w.pth', NEWER)
    with pytest.raises(CheckpointError) as caught:
        locate(url, sha256=SHA256, cache_dir=tmp_path)
    for part in (url, SHA256, hashlib.sha256(NEWER).hexdigest(), 'removed'):
        assert part in str(caught.value)
    assert_nothing_kept(tmp_path)


def test_announced_size_is_checked_before_the_transfer(server, tmp_path):
    url = server.put('/w.pth', NEWER)
    with pytest.raises(CheckpointError, match='has 650000 bytes, expected 700000'):
        locate(url, bytes=len(DATA), cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)


def test_size_of_an_unannounced_body_is_checked(server, tmp_path):
    url = server.put('/w.pth', DATA, announces_length=False, drop_after=[300_000])
    with pytest.raises(CheckpointError, match='has 300000 bytes, expected 700000'):
        locate(url, bytes=len(DATA), cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)


def test_damaged_cache_is_replaced(server, tmp_path):
    url = server.put('/w.pth', DATA)
    path = locate(url, cache_dir=tmp_path)
    path.write_bytes(DATA[:-1])
    assert locate(url, sha256=SHA256, cache_dir=tmp_path).read_bytes() == DATA


@pytest.mark.parametrize('status', [401, 403, 404, 410])
def test_refusal_is_final(server, tmp_path, status):
    url = server.put('/w.pth', DATA, statuses=[status])
    with pytest.raises(CheckpointError, match=f'answers {status}'):
        locate(url, cache_dir=tmp_path)
    assert len(server.log) == 1
    assert_nothing_kept(tmp_path)


def test_busy_server_is_asked_again(server, tmp_path):
    url = server.put('/w.pth', DATA, statuses=[503, 429])
    assert locate(url, cache_dir=tmp_path).read_bytes() == DATA
    assert len(server.log) == 3


def test_no_server(monkeypatch, tmp_path):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(download, 'BACKOFF', 0.0)
    with socket.create_server(('127.0.0.1', 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(CheckpointError, match=f'not downloaded in {download.ATTEMPTS} attempts: .*refused'):
        locate(f'http://127.0.0.1:{port}/w.pth', cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)


def test_web_page_instead_of_a_file(server, tmp_path):
    url = server.put('/w.pth', b'<html>Sign in</html>', content_type='text/html; charset=utf-8')
    with pytest.raises(CheckpointError, match='web page'):
        locate(url, cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)


def test_full_disk_leaves_nothing(server, tmp_path, monkeypatch):
    url = server.put('/w.pth', DATA)

    class Full:
        """The part's file after the disk has filled."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, piece):
            self.file.write(piece[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    plain = Path.open
    monkeypatch.setattr(Path, 'open', lambda p, mode='r', **k: Full(plain(p, mode)) if 'b' in mode else plain(p, mode))
    with pytest.raises(CheckpointError, match=os.strerror(errno.ENOSPC)):
        locate(url, cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)


def test_too_small_disk_is_seen_before_the_transfer(server, tmp_path, monkeypatch):
    url = server.put('/w.pth', DATA)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10, 9, 1000))
    with pytest.raises(CheckpointError, match='700000 bytes are to come and the disk has 1000'):
        locate(url, cache_dir=tmp_path)
    assert_nothing_kept(tmp_path)


def test_unusable_cache_folder(server, tmp_path):
    url = server.put('/w.pth', DATA)
    (tmp_path / 'cache').write_text('a file')
    with pytest.raises(CheckpointError, match='ATTNZOO_CACHE'):
        locate(url, cache_dir=tmp_path / 'cache')
    assert server.log == []


def test_cache_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv('ATTNZOO_CACHE', str(tmp_path / 'mine'))
    assert locate(server.put('/w.pth', DATA)).parent == tmp_path / 'mine'


def test_many_at_once_transfer_once(server, tmp_path):
    url = server.put('/w.pth', DATA, drop_after=[300_000])
    with ThreadPoolExecutor(6) as pool:
        paths = list(pool.map(lambda _: locate(url, sha256=SHA256, cache_dir=tmp_path), range(6)))
    assert len(set(paths)) == 1
    assert sum(request.sent for request in server.log) == len(DATA)


def test_urls_with_the_same_file_name_stay_apart(server, tmp_path):
    first = locate(server.put('/one/w.pth?download=1', DATA), cache_dir=tmp_path)
    second = locate(server.put('/two/w.pth', NEWER), cache_dir=tmp_path)
    assert first.read_bytes() == DATA
    assert second.read_bytes() == NEWER


def test_hash_in_the_file_name_is_checked(server, tmp_path):
    assert locate(server.put(f'/w-{SHA256[:8]}.pth', DATA), cache_dir=tmp_path).read_bytes() == DATA
    with pytest.raises(CheckpointError, match=f'expected {SHA256[:8]}'):
        locate(server.put(f'/x-{SHA256[:8]}.pth', NEWER), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ('name', 'found'),
    [
        ('nat-3f2a91c0.pth', '3f2a91c0'),
        ('nat_20230101-3f2a91c0.pth', '3f2a91c0'),
        ('nat-20230101.pth', None),
        ('nat-224.pth', None),
        ('nat_mini.pth', None),
    ],
)
def test_hash_in_name(name, found):
    assert hash_in_name(f'https://example.org/{name}?x=1') == found


def test_cached_names_are_plain():
    for url in ('https://e.org/', 'https://e.org/a%20b/%2e%2e%2fw?.pth', 'https://e.org/' + 'w' * 300 + '.pth'):
        name = cached_name(url)
        assert len(name) < 130
        assert Path(name).name == name
        assert not name.startswith('.')
