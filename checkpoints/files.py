"""Files: hash and size checks, and writing that either completes or leaves nothing behind."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpoints.errors import CheckpointError


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's contents, 64 hex digits. Reads the file once, in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def mismatch(path: Path, sha256: str | None, size: int | None) -> str | None:
    """How a file differs from what is known of it, None when it does not.

    Args:
        path: an existing file.
        sha256: its hash or the first digits of it; None when unknown.
        size: its length in bytes; None when unknown.
    """
    if size is not None and (found := path.stat().st_size) != size:
        return f'has {found} bytes, expected {size}'
    if sha256 is not None and not (digest := sha256_of(path)).startswith(sha256.lower()):
        return f'has sha256 {digest}, expected {sha256}'
    return None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder to write to, which takes the place of `path` when the block ends well.

    When the block fails the temporary file is removed and `path` stays as it was.

    Raises:
        CheckpointError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f'.{path.name}.{secrets.token_hex(4)}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f'{path} was not written: {error.strerror or error}') from error
    finally:
        temporary.unlink(missing_ok=True)
