"""A real server of a store in a thread, and requests to it byte by byte as they are meant."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import lookalike
from lookalike.serve.api import make_app
from lookalike.serve.limits import Limits
from lookalike.serve.server import make_server

WAIT_S = 60.0


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A client of one server."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port, self.token = port, token
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(
                method or ("GET" if body is None else "POST"),
                path,
                body,
                {**own, **(headers or {})},
            )
            found = connection.getresponse()
            told = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, told, found.read())
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        found = self.ask(f"{path}?{urlencode(query, doseq=True)}" if query else path)
        assert found.status == 200, found.body
        return found.json()

    def search(self, **asked: Any) -> Any:
        found = self.post(asked)
        assert found.status == 200, found.body
        return found.json()

    def post(self, asked: Any) -> Answer:
        kind = {"Content-Type": "application/json"}
        return self.ask("/api/search", json.dumps(asked).encode(), kind)

    def send(self, files: Sequence[tuple[str, bytes]], **fields: Any) -> Answer:
        body, kind = form(files, fields)
        return self.ask("/api/search", body, {"Content-Type": kind})

    def raw(self, data: bytes) -> bytes:
        """What comes back for bytes that may be no HTTP."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S) as sent:
            sent.sendall(data)
            parts = []
            while part := sent.recv(1 << 16):
                parts.append(part)
            return b"".join(parts)


def form(files: Sequence[tuple[str, bytes]], fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """A multipart body and its type."""
    edge = uuid.uuid4().hex
    parts = [
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="../../{n}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for n, (name, data) in enumerate(files)
    ]
    parts += [
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    return b"".join([*parts, f"--{edge}--\r\n".encode()]), f"multipart/form-data; boundary={edge}"


@contextmanager
def serving(
    store: Path, *, token: str | None = None, limits: Limits | None = None
) -> Iterator[Served]:
    """A server of a store until the end of the block."""
    server = make_server(make_app(lookalike.open(store), token=token, limits=limits))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + WAIT_S
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            yield Served(port, token)
        finally:
            server.should_exit = True
            thread.join(WAIT_S)
    assert not thread.is_alive()
