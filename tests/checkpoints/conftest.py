"""A file server that can do everything real ones do wrong, and a record of what it was asked."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Served:
    """One file on the server and how the server treats it."""

    data: bytes
    etag: str | None = '"1"'
    ranges: bool = True  # answers Range requests
    checks_if_range: bool = True  # sends the whole file when If-Range names another version
    range_shift: int = 0  # bytes by which it misses the start of a range
    content_type: str = 'application/octet-stream'
    announces_length: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    drop_after: list[int] = field(default_factory=list)  # bytes of the body after which it hangs up, one per request
    statuses: list[int] = field(default_factory=list)  # answers before it serves, one per request


@dataclass
class Request:
    """What was asked and how many bytes of a body were sent."""

    path: str
    range: str | None
    status: int = 0
    sent: int = 0


class FileServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.files: dict[str, Served] = {}
        self.log: list[Request] = []

    def put(self, path: str, data: bytes, **how) -> str:
        self.files[path] = Served(data, **how)
        return self.url(path)

    def url(self, path: str) -> str:
        return f'http://127.0.0.1:{self.server_port}{path}'


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        request = Request(self.path, self.headers['Range'])
        self.server.log.append(request)
        served = self.server.files.get(self.path)
        if served is None or served.statuses:
            request.status = served.statuses.pop(0) if served else 404
            self.send_response(request.status)
            self.send_header('X-Error-Code', 'EntryNotFound')  # the hub's own
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        start, body, headers = 0, served.data, {'Content-Type': served.content_type, **served.headers}
        if served.etag:
            headers['ETag'] = served.etag
        current = not served.checks_if_range or self.headers['If-Range'] in (None, served.etag)
        if request.range and served.ranges and current:
            start = int(request.range.removeprefix('bytes=').removesuffix('-')) + served.range_shift
            if start >= len(body):
                request.status = 416
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(body)}')
                self.end_headers()
                return
            headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
        request.status = 206 if 'Content-Range' in headers else 200
        self.send_response(request.status)
        if served.announces_length:
            headers['Content-Length'] = str(len(body) - start)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        body = body[start:][: served.drop_after.pop(0) if served.drop_after else None]
        if self.command == 'GET':
            request.sent = len(body)
            with suppress(ConnectionError):  # the client had seen enough
                self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr('checkpoints.download.BACKOFF', 0.0)
    server = FileServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
