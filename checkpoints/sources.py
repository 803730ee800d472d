"""From a source of weights (path, url, hub id, catalogue entry) to a checked file on this machine."""

import hashlib
import os
import re
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import torch

from checkpoints.download import download
from checkpoints.entries import HUB_ID, Checkpoint, entry_named
from checkpoints.errors import CheckpointError
from checkpoints.files import mismatch

HUB_FILES = ('model.safetensors', 'pytorch_model.bin')


def default_cache() -> Path:
    """Where downloads go: the environment variable ATTNZOO_CACHE, else a folder of torch's own cache."""
    return Path(os.environ.get('ATTNZOO_CACHE') or Path(torch.hub.get_dir(), 'attnzoo')).expanduser()


def cached_name(url: str) -> str:
    """File name of a download: that of the url, with a hash of the whole url so that two urls never share one."""
    name = PurePosixPath(re.sub(r'[^\w.-]', '_', PurePosixPath(unquote(urlsplit(url).path)).name) or 'checkpoint')
    return f'{name.stem[:100]}.{hashlib.sha256(url.encode()).hexdigest()[:10]}{name.suffix}'


def hash_in_name(url: str) -> str | None:
    """The first digits of the SHA-256 that a name such as `nat_mini-3f2a91c0.pth` carries, as torch's hub has it.

    Digits alone are more often a date and are not taken for one.
    """
    found = re.search(r'-([0-9a-f]{8,64})\.[\w.]+$', PurePosixPath(urlsplit(url).path).name)
    return found[1] if found and not found[1].isdigit() else None


def locate(
    source: str | Path | Checkpoint,
    *,
    sha256: str | None = None,
    bytes: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """A local file with the weights of `source`, downloaded at the first call and checked at every one.

    Args:
        source: a local path, an http(s) or file url, `hf-hub:organisation/name[@revision]` (its `model.safetensors`,
            else its `pytorch_model.bin`), or a catalogue entry, itself or its name `model.tag`: the file that ships
            with it, else its url, else its hub id.
        sha256: expected hash or the first digits of it; the entry's own when None, or what the url's file name says.
        bytes: expected size; the entry's own when None.
        cache_dir: folder of downloads; `default_cache()` when None, and the hub's own for `hf-hub:`.
        progress: show a bar where standard error is a terminal.

    Raises:
        CheckpointError: nothing there, not to be had, or not the expected contents. A download with wrong contents is
            removed, a file of the user never.
    """
    if isinstance(source, str):
        source = entry_named(source) or source
    if isinstance(source, Checkpoint):
        sha256, bytes = sha256 or source.sha256, bytes or source.bytes
        source = _source_of(source)
    text = str(source)
    scheme = urlsplit(text).scheme if '://' in text else ''
    if scheme in ('http', 'https'):
        return _from_web(text, sha256 or hash_in_name(text), bytes, cache_dir, progress)
    if scheme not in ('', 'file'):
        raise CheckpointError(f'{text}: {scheme} urls are not supported; http, https, file and hf-hub: are')
    if text.startswith('hf-hub:'):
        path = _from_hub(text.removeprefix('hf-hub:'), cache_dir)
    else:
        path = Path(url2pathname(urlsplit(text).path) if scheme else text).expanduser()
    if not path.is_file():
        kind = 'is a folder, not a file' if path.is_dir() else 'does not exist'
        raise CheckpointError(f'the checkpoint {path} {kind}')
    if problem := mismatch(path, sha256, bytes):
        raise CheckpointError(f'{path} {problem}')
    return path


def verify(checkpoint: Checkpoint, cache_dir: str | Path | None = None) -> None:
    """Check the local file of a catalogue entry, shipped or downloaded, against its SHA-256. Downloads nothing.

    Raises:
        CheckpointError: the hash differs or is not known, or there is no local file.
    """
    if checkpoint.sha256 is None:
        raise CheckpointError(f'{checkpoint.name} has no sha256 in the catalogue to verify it against')
    path = checkpoint.local_file
    if checkpoint.url and not (path and path.is_file()):
        path = Path(cache_dir or default_cache(), cached_name(checkpoint.url))
    if path is None or not path.is_file():
        raise CheckpointError(f'{checkpoint.name} is not on this machine: {path or checkpoint.hf_hub_id}')
    if problem := mismatch(path, checkpoint.sha256, checkpoint.bytes):
        raise CheckpointError(f'{path} {problem}')


def _source_of(checkpoint: Checkpoint) -> str | Path:
    """The nearest source of a catalogue entry."""
    if checkpoint.local_file and (checkpoint.local_file.is_file() or not (checkpoint.url or checkpoint.hf_hub_id)):
        return checkpoint.local_file
    return checkpoint.url or f'hf-hub:{checkpoint.hf_hub_id}'


def _from_web(url: str, sha256: str | None, size: int | None, cache_dir: str | Path | None, progress: bool) -> Path:
    path = Path(cache_dir or default_cache(), cached_name(url))
    if not path.is_file() or mismatch(path, sha256, size):
        download(url, path, sha256=sha256, size=size, progress=progress)
    return path


def _from_hub(hub_id: str, cache_dir: str | Path | None) -> Path:
    if not re.fullmatch(HUB_ID, hub_id):
        raise CheckpointError(
            f"'hf-hub:{hub_id}' is not 'hf-hub:organisation/name' or 'hf-hub:organisation/name@revision'"
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    except ImportError as error:
        raise CheckpointError(f'hf-hub:{hub_id} needs the package huggingface_hub') from error
    name, _, revision = hub_id.partition('@')
    reason, offline = '', False
    for filename in HUB_FILES:
        try:
            return Path(
                hf_hub_download(
                    name, filename, revision=revision or None, cache_dir=cache_dir, local_files_only=offline
                )
            )
        except EntryNotFoundError as error:
            reason = reason or str(error).strip().split('\n')[0]
            offline = isinstance(error, LocalEntryNotFoundError)  # the hub was not reached: no second wait for it
        except Exception as error:  # its http library is an implementation detail of the hub's client
            raise CheckpointError(f'hf-hub:{hub_id}: {str(error).strip()}') from error
    raise CheckpointError(f'hf-hub:{hub_id} gives neither {" nor ".join(HUB_FILES)}: {reason}')
