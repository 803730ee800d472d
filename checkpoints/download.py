"""Downloads over http(s): streamed to a `.part` file, resumed where the server allows it, checked, then put in place.

The `.part` file outlives a lost connection or a kill and the next call goes on from it; the final name appears only
with complete and checked contents. A lock file keeps two processes from writing the same part.
"""

import os
import re
import shutil
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from checkpoints.errors import CheckpointError
from checkpoints.files import mismatch

ATTEMPTS = 4
BACKOFF = 0.5  # seconds before the second attempt, doubled before each further one
TIMEOUT = 20.0  # seconds without an answer
PIECE = 1 << 18  # bytes
TRANSIENT = (408, 416, 425, 429, 500, 502, 503, 504)  # HTTP answers worth another attempt


class _LostConnection(Exception):
    """The transfer broke off; another attempt may succeed."""


class _Part:
    """The unfinished file and, beside it, the server's mark (ETag or date) of the version it is a part of."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f'{target.name}.part')
        self.mark_path = target.with_name(f'{target.name}.part.mark')

    def resume_point(self) -> tuple[int, str]:
        """Bytes already here and the mark of their version; (0, '') when there is nothing to go on from."""
        if self.path.is_file() and self.mark_path.is_file() and (mark := self.mark_path.read_text()):
            return self.path.stat().st_size, mark
        return 0, ''

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.mark_path.unlink(missing_ok=True)


def download(
    url: str, target: Path, *, sha256: str | None = None, size: int | None = None, progress: bool = True
) -> None:
    """Fetch `url` into `target`, unless it is there with the expected contents.

    Args:
        url: http or https.
        target: final path; its folder is made.
        sha256: expected hash or the first digits of it.
        size: expected bytes.
        progress: show a bar where standard error is a terminal.

    Raises:
        CheckpointError: the server refuses, the connection fails `ATTEMPTS` times, the contents are not the expected
            ones (then nothing is kept), or the disk refuses (then nothing is kept).
    """
    from filelock import FileLock

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):
            if not target.is_file() or mismatch(target, sha256, size):
                _replace(url, target, sha256, size, progress)
    except OSError as error:
        reason = error.strerror or error
        raise CheckpointError(
            f'{url} was not saved to {target.parent}: {reason}; ATTNZOO_CACHE names another folder'
        ) from error


def _replace(url: str, target: Path, sha256: str | None, size: int | None, progress: bool) -> None:
    """Complete the part, check it and give it its final name."""
    part = _Part(target)
    try:
        _transfer(url, part, size, progress)
        if problem := mismatch(part.path, sha256, size):
            part.discard()
            raise CheckpointError(f'the file at {url} {problem}; the download was removed')
        os.replace(part.path, target)
    except OSError:
        part.discard()
        raise
    part.discard()


def _transfer(url: str, part: _Part, size: int | None, progress: bool) -> None:
    """Bring the part to completion in at most `ATTEMPTS` connections."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _connect(url, part, size, progress)
        except _LostConnection as error:
            if attempt == ATTEMPTS:
                kept, _ = part.resume_point()
                again = f'; {kept} bytes are kept, call again to resume' if kept else ''
                raise CheckpointError(f'{url} was not downloaded in {attempt} attempts: {error}{again}') from error
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        else:
            return


def _connect(url: str, part: _Part, size: int | None, progress: bool) -> None:
    """One connection: ask for what is missing, append it or start over, and see that all of it came."""
    have, mark = part.resume_point()
    wanted = {'Range': f'bytes={have}-', 'If-Range': mark} if have else {}
    request = Request(url, headers={'User-Agent': 'attnzoo', 'Accept-Encoding': 'identity', **wanted})
    try:
        response = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            if have and error.code == 416 and error.headers.get('Content-Range') == f'bytes */{have}':
                return  # the part was complete
            if error.code == 416:
                part.discard()
            if error.code in TRANSIENT:
                raise _LostConnection(f'the server answers {error.code} {error.reason}') from error
            raise CheckpointError(f'{url}: the server answers {error.code} {error.reason}') from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise CheckpointError(f'{url}: {reason}') from error
        raise _LostConnection(reason) from error
    with response:
        if response.headers.get_content_type() == 'text/html':
            raise CheckpointError(f'{url}: the server answers with a web page, not a file')
        if response.status == 206:
            start, total = _content_range(response)
            if start != have or _mark_of(response) not in ('', mark):
                part.discard()
                raise _LostConnection('the server resumed another file')
        else:
            have, total = 0, int(response.headers.get('Content-Length', 0)) or None
        if size is not None and total not in (None, size):
            part.discard()
            raise CheckpointError(f'the file at {url} has {total} bytes, expected {size}; it was not downloaded')
        _append(response, part, have, total, progress)


def _content_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte and total of a partial answer, None where the server does not say."""
    found = re.match(r'bytes (\d+)-\d+/(\d+|\*)', response.headers.get('Content-Range', ''))
    return (int(found[1]), None if found[2] == '*' else int(found[2])) if found else (None, None)


def _mark_of(response: HTTPResponse) -> str:
    """What identifies this version of the file in `If-Range`; '' when the server gives nothing reliable."""
    tag = response.headers.get('ETag', '')
    return tag if tag and not tag.startswith('W/') else response.headers.get('Last-Modified', '')


def _append(response: HTTPResponse, part: _Part, have: int, total: int | None, progress: bool) -> None:
    """Write the body behind the first `have` bytes of the part."""
    from tqdm import tqdm

    if total is not None and (free := shutil.disk_usage(part.path.parent).free) < total - have:
        raise OSError(f'{total - have} bytes are to come and the disk has {free}')
    if not have:
        part.discard()  # first, so that an old part never meets a new mark
        part.mark_path.write_text(_mark_of(response))
    bar = tqdm(
        desc=part.path.stem, total=total, initial=have, unit='B', unit_scale=True, disable=None if progress else True
    )
    with part.path.open('ab' if have else 'wb') as file, bar:
        for piece in _pieces(response):
            file.write(piece)
            bar.update(len(piece))
    if total is not None and (found := part.path.stat().st_size) != total:
        raise _LostConnection(f'the connection closed after {found} of {total} bytes')


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece; network errors become `_LostConnection` so that those of the disk stand alone."""
    while True:
        try:
            piece = response.read(PIECE)
        except (OSError, HTTPException) as error:
            raise _LostConnection(str(error) or type(error).__name__) from error
        if not piece:
            return
        yield piece
