"""A real S3 server in a process of its own, and a proxy before it that fails as it is told.

The server is the one that LOOKALIKE_S3_SERVER names (a binary of versitygw), else a versitygw that
is on the path, else that of moto.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest"}
BUCKET = "bucket"
FAULTS = (
    "500 before",  # not executed, and the server says so
    "500 after",  # executed, and the server says that it failed
    "cut before",  # the connection ends before the request is executed
    "cut after",  # it is executed, and the answer lost
    "half a request",  # the server gets half of the body
    "half an answer",
    "stall",  # the answer stops in the middle, and the connection stays
)
STALL_S = 3.0
DELAYED = (
    "late",  # executed right after the client has asked again
    "kill before",  # the client is killed before the request is executed
    "kill after",
    "kill, late",  # and the request is executed right after the next client has asked for the same
)
"""What else may happen to a request of a client in a process of its own."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def store_uri(port: int, prefix: str) -> str:
    """A store's name on the server (or the proxy) at a port."""
    where = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    return f"s3://{BUCKET}/{prefix}?{where}"


@contextmanager
def s3_server(folder: Path, moto: bool = False) -> Iterator[int]:
    """The port of a server with one bucket; its files lie below `folder`, where it has any.

    With `moto` it is that of moto in any case: for keys that no file can have, say.
    """
    port = free_port()
    gateway = os.environ.get("LOOKALIKE_S3_SERVER") or shutil.which("versitygw")
    gateway = None if moto else gateway
    if gateway:
        (folder / BUCKET).mkdir(parents=True)
        keys = ["--access", KEYS["AWS_ACCESS_KEY_ID"], "--secret", KEYS["AWS_SECRET_ACCESS_KEY"]]
        command = [gateway, "--quiet", *keys, "--port", f"127.0.0.1:{port}", "posix", str(folder)]
    else:
        command = [sys.executable, str(Path(__file__).with_name("moto_server.py")), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not _answers(port):
                assert process.poll() is None, f"{command[0]} ended: {process.returncode}"
                assert time.monotonic() < deadline, f"{command[0]} does not answer"
                time.sleep(0.05)
            if not gateway:
                made = http.client.HTTPConnection("127.0.0.1", port)
                made.request("PUT", f"/{BUCKET}")
                assert made.getresponse().status == 200
                made.close()
            yield port
        finally:
            process.kill()


def _answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Faults:
    """Which requests fail; the proxy counts them.

    Attributes:
        kind: One of FAULTS or DELAYED, or "" for none.
        first: The request that fails, from 0.
        lasting: Whether all after it fail too.
        heedless: Whether conditions of puts are kept from the server.
        watch: Told of every request before it is passed on, and of the client's port.
        denied: Which requests the client has no permission for.
        counts: Which requests count: one that does not never fails.
        kill: Kills the client.
        held: Requests that are still to be passed on: when the same is asked for again.
        seen: What was asked for so far.
        counted: How many of these count.
        failed: How many of these failed.
        sent: Bytes of all answers, without their headers.
        received: Bytes of all requests, without their headers.
    """

    kind: str = ""
    first: int = 0
    lasting: bool = False
    heedless: bool = False
    watch: Callable[[str, int], None] = field(default=lambda request, port: None)
    denied: Callable[[str], bool] = field(default=lambda request: False)
    counts: Callable[[str], bool] = field(default=lambda request: True)
    kill: Callable[[], None] = field(default=lambda: None)
    held: list[tuple[str, Callable[[], object]]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    counted: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, kind: str = "", first: int = 0, lasting: bool = False) -> None:
        """Begin to count anew."""
        with self._turn:
            self.kind, self.first, self.lasting = kind, first, lasting
            self.seen, self.failed, self.sent, self.received = [], 0, 0, 0
            self.counted = 0

    def count(self, received: int, sent: int) -> None:
        """A request of so many bytes came, and an answer of so many goes out."""
        with self._turn:
            self.received += received
            self.sent += sent

    def pass_on(self, request: str = "") -> None:
        """Pass on what is held, or of it what this request, which was just done, asks for."""
        with self._turn:
            passed = [one for one in self.held if request in ("", one[0])]
            self.held = [one for one in self.held if one not in passed]
        for _, forward in passed:
            forward()

    def next(self, request: str) -> str:
        """The fault of this request, or ""."""
        with self._turn:
            self.seen.append(request)
            if not self.counts(request):
                return ""
            number = self.counted
            self.counted += 1
            hit = number >= self.first if self.lasting else number == self.first
            self.failed += bool(self.kind and hit)
            return self.kind if hit else ""


Answer = Callable[[str, str], tuple[int, bytes]]


@contextmanager
def stub_server(answer: Answer) -> Iterator[int]:
    """The port of a server that answers (method, path with query) with (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = answer(self.command, self.path)
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/xml")
            self.send_header("ETag", '"1"')
            self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()


@contextmanager
def faulty_proxy(server: int) -> Iterator[tuple[int, Faults]]:
    """The port of a proxy before a server, and what it does wrong."""
    faults = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else every answer waits for an acknowledgement

        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            fault = faults.next(f"{self.command} {self.path}")
            faults.watch(f"{self.command} {self.path}", self.client_address[1])
            if faults.denied(f"{self.command} {self.path}"):
                return self.fail(403, b"<Error><Code>AccessDenied</Code></Error>")
            if fault == "500 before":
                return self.fail()
            if fault == "cut before":
                return self.cut()
            if fault.startswith("kill") and fault != "kill after":
                faults.kill()
            if fault in ("late", "kill, late"):
                faults.held.append((f"{self.command} {self.path}", partial(self.forward, body)))
                return self.cut()
            if fault == "kill before":
                return self.cut()
            if fault == "half a request":
                self.forward_half(body)
                return self.cut()
            status, headers, answer = self.forward(body)
            if faults.held:
                faults.pass_on(f"{self.command} {self.path}")
            if fault == "500 after":
                return self.fail()
            if fault == "kill after":
                faults.kill()
            if fault in ("cut after", "kill after"):
                return self.cut()
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    self.send_header(name, value)
            size = next((v for n, v in headers if n.lower() == "content-length"), len(answer))
            self.send_header("Content-Length", str(size if self.command == "HEAD" else len(answer)))
            self.end_headers()
            if fault in ("half an answer", "stall"):
                self.wfile.write(answer[: len(answer) // 2])
                self.wfile.flush()
                time.sleep(STALL_S if fault == "stall" else 0)
                return self.cut()
            faults.count(len(body), len(answer))
            self.wfile.write(answer)
            return None

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def fail(self, status: int = 500, why: bytes = b"") -> None:
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(why)))
            self.end_headers()
            self.wfile.write(why)

        def cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            onward = self.onward(len(body))
            onward.send(body)
            answer = onward.getresponse()
            data = answer.read()
            onward.close()
            return answer.status, answer.getheaders(), data

        def forward_half(self, body: bytes) -> None:
            onward = self.onward(max(len(body), 1))  # an empty one never ends
            onward.send(body[: len(body) // 2])
            onward.close()

        def onward(self, length: int) -> http.client.HTTPConnection:
            onward = http.client.HTTPConnection("127.0.0.1", server, timeout=30)
            onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                heeded = not (faults.heedless and name.lower().startswith("if-"))
                if name.lower() not in ("content-length", "connection") and heeded:
                    onward.putheader(name, value)
            if length or "Content-Length" in self.headers:
                onward.putheader("Content-Length", str(length))
            onward.endheaders()
            return onward

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    class Proxy(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Connections are cut on purpose."""

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, daemon=True)
        thread.start()
        try:
            yield int(proxy.server_address[1]), faults
        finally:
            proxy.shutdown()
