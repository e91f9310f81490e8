"""`lookalike serve` as a command, and while snapshots are published and removed under it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.pipelines.cli import main
from tests.conftest import picture
from tests.serving import WAIT_S, Served, serving
from tests.test_serve import png
from tests.vector_stores import clustered

DIM, EACH = 16, 40
VECTORS = clustered(EACH * 8, DIM, seed=3)


def add(folder: Path, number: int, vectors: np.ndarray = VECTORS) -> None:
    """A table of some more vectors, and a run that publishes them."""
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    which = range(number * EACH, (number + 1) * EACH)
    flat = pa.array(vectors[which].reshape(-1))
    columns = {
        "uri": [f"v/{row}" for row in which],
        "embedding": pa.FixedSizeListArray.from_arrays(flat, DIM),
    }
    pq.write_table(pa.table(columns), tables / f"{number}.parquet")
    given = ["--embeddings", str(tables), "--store", str(folder / "store")]
    assert main(["index", *given]) == 0


@pytest.mark.slow
def test_publications_and_removals_fail_no_request(tmp_path: Path) -> None:
    add(tmp_path, 0)
    store, failed, answered = tmp_path / "store", list[str](), list[str]()
    over = threading.Event()

    def ask(served: Served, thread: int) -> None:
        for turn in range(10**9):
            if over.is_set():
                return
            uri = f"v/{(turn * 7 + thread) % EACH}"
            found = served.post({"uri": uri, "k": 3})
            good = found.status == 200 and found.json()["neighbours"][0]["uri"] == uri
            if not good:
                failed.append(f"{uri}: {found.status} {found.body!r}")
            else:
                answered.append(found.json()["snapshot"])
            if served.ask("/api/browse?k=5").status != 200:
                failed.append("browse")

    with serving(store) as served:
        threads = [threading.Thread(target=ask, args=(served, one)) for one in range(3)]
        for one in threads:
            one.start()
        try:
            for number in (1, 2, 3):
                add(tmp_path, number)
                gc = ["gc", "--store", str(store), "--keep-last", "1", "--keep-days", "0"]
                assert main([*gc, "--grace", "0"]) == 0  # at once, while it may be open
            published = served.get("/api/stats")["snapshot"]
            deadline = time.monotonic() + WAIT_S
            while served.get("/api/stats")["images"] != 4 * EACH and time.monotonic() < deadline:
                time.sleep(0.05)
            assert served.get("/api/stats")["images"] == 4 * EACH
            published = served.get("/api/stats")["snapshot"]
            while answered[-1] != published and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            over.set()
            for one in threads:
                one.join(WAIT_S)
    assert failed == []
    assert len(set(answered)) >= 2
    assert answered[-1] == published


@pytest.mark.slow
def test_a_published_snapshot_that_cannot_be_opened_is_told_and_passed_by(tmp_path: Path) -> None:
    add(tmp_path, 0)
    with serving(tmp_path / "store") as served:
        before = served.get("/api/stats")
        assert before["problem"] == ""
        current = tmp_path / "store" / "CURRENT"
        kept = current.read_bytes()
        current.write_text("20990101T000000Z-abcdef\n")
        deadline = time.monotonic() + WAIT_S
        while not served.get("/api/stats")["problem"] and time.monotonic() < deadline:
            time.sleep(0.05)
        now = served.get("/api/stats")
        assert now["problem"]
        assert now["snapshot"] == before["snapshot"]
        assert served.search(uri="v/3", k=1)["neighbours"][0]["uri"] == "v/3"
        assert "lookalike_serve_stuck 1.0" in served.ask("/metrics").body.decode()
        current.write_bytes(kept)
        while served.get("/api/stats")["problem"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert served.get("/api/stats")["problem"] == ""


# --- the command --------------------------------------------------------------------------------


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lookalike.pipelines.cli", "serve", *map(str, arguments)]


@contextmanager
def started(
    *arguments: object, token: str | None = None
) -> Iterator[tuple[Served, subprocess.Popen[str]]]:
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **({"LOOKALIKE_TOKEN": token} if token else {})},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(("http://", "{")), process.communicate(timeout=WAIT_S)
        url = json.loads(line)["url"] if line.startswith("{") else line.split(";")[0].strip()
        yield Served(int(url.rstrip("/").rpartition(":")[2]), token), process
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal(indexed: tuple[Path, Path], how: signal.Signals) -> None:
    with started("--store", indexed[0], "--port", 0, "--json") as (served, process):
        found = served.send([("image", png(picture(5)))], k=1)
        assert found.json()["neighbours"][0]["uri"].endswith("/first/5.png")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        decoders = children.read_text().split() if children.exists() else []
        # one that is being answered does not keep it
        with socket.create_connection(("127.0.0.1", served.port)) as waiting:
            waiting.sendall(
                b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
                b"Content-Type: application/json\r\n\r\n"
            )
            began = time.monotonic()
            process.send_signal(how)
            out, err = process.communicate(timeout=WAIT_S)
            assert time.monotonic() - began < 8  # by itself, and not by the command's last resort
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err
        deadline = time.monotonic() + WAIT_S
        while any(Path(f"/proc/{one}/cmdline").exists() for one in decoders):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_token_of_the_environment(indexed: tuple[Path, Path]) -> None:
    token = "token-of-the-environment"
    with started("--store", indexed[0], "--port", 0, "--host", "0.0.0.0", token=token) as (one, _):
        assert one.get("/api/stats")["images"] == 20
        one.token = None
        assert one.ask("/api/stats").status == 401


def test_what_cannot_be_served_is_one_line(
    indexed: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(indexed[0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, words in (
            (["--store", store, "--port", port], "something else listens there"),
            (["--store", store, "--port", "99999"], "0 to 65535"),
            (["--store", store, "--port", "0", "--host", "0.0.0.0"], "needs a --token"),
            (["--store", store, "--port", "0", "--token", "short"], "16 to 200 characters"),
            (
                [
                    "--store",
                    store,
                    "--port",
                    "0",
                    "--host",
                    "no such host.invalid",
                    "--token",
                    "x" * 20,
                ],
                "no address of this machine",
            ),
            (["--store", str(tmp_path / "none"), "--port", "0"], "none"),
        ):
            assert main(["serve", *arguments]) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert words in err
            assert err.count("\n") == 1


def test_what_it_needs_is_named_where_it_is_not_installed(
    indexed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lookalike.serve.server", None)
    assert main(["serve", "--store", str(indexed[0]), "--port", "0"]) == 2
    assert "pip install 'lookalike[serve]'" in capsys.readouterr().err
