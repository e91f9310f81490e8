"""A web server on this machine, and archives of models for it to send."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lookalike.errors import RequestError
from lookalike.models.handles import resolve

WAYS_ON = ("kaggle models instances versions download", "builtin:photo")
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on this machine; `answers` maps a path to what happens."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answers[self.path.partition("?")[0]](self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"

    def sends(self, path: str, data: bytes, announced: int | None = None, status: int = 200) -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header(
                "Content-Length", str(len(data) if announced is None else announced)
            )
            request.end_headers()
            request.wfile.write(data)

        self.answers[path] = answer
        return self.address + path

    def redirects(self, path: str, target: str, status: int = 302) -> str:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Location", target)
            request.send_header("Content-Length", "0")
            request.end_headers()

        self.answers[path] = answer
        return self.address + path


@contextmanager
def running() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.http.shutdown()
        found.http.server_close()


def pack(folder: Path, archive: Path, inside: str = ".", mode: str = "w:gz") -> Path:
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, inside)
    return archive


def packed(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:  # type: ignore[call-overload]
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def write_model(folder: Path) -> Path:
    """The files of a SavedModel, as far as resolving looks at them."""
    for name, data in {
        "saved_model.pb": b"graph",
        "fingerprint.pb": b"print",
        "keras_metadata.pb": b"keras",
        "README.md": b"read me",
        "variables/variables.index": b"index",
        "variables/variables.data-00000-of-00001": bytes(range(256)) * 400,
        "variables/.DS_Store": b"litter",
        "assets/words/list.txt": b"a\nb\n",
        "assets.extra/notes": b"more",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def line(caught: pytest.ExceptionInfo[RequestError], handle: str) -> str:
    """What an error says, in one line that names the handle."""
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    assert handle in text
    return text


def fails(handle: str, work: Path, message: str) -> None:
    """That a handle is refused with this message and the ways on, and leaves nothing behind."""
    with pytest.raises(RequestError, match=message) as caught:
        resolve(handle, work)
    assert all(way in line(caught, handle) for way in WAYS_ON)
    assert not list(work.iterdir())
