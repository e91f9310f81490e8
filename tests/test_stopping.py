"""A run that is told to stop, or may not write any more, ends soon and in order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.pipelines.cli import main
from tests.file_limits import files_of_at_most

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals and limits")
STOPPED = "; the same command continues where it was"
SECONDS = 10
# Python code that runs before the command's own.
SLOW_NATIVE = """
import ctypes, signal, sys
from lookalike.store import snapshot
def publish(*arguments, **options):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    print("in native code", file=sys.stderr, flush=True)
    libc = ctypes.CDLL(None)
    while libc.sleep(60):  # one call after the other, as code that does not look at signals
        pass
snapshot.point = snapshot.write_manifest = publish
from lookalike.pipelines.cli import main
sys.exit(main())
"""


def start(arguments: list[object], log: Path, code: str = "") -> subprocess.Popen[bytes]:
    command = [sys.executable, *(["-c", code] if code else ["-m", "lookalike.pipelines.cli"])]
    with open(log, "w") as file:
        return subprocess.Popen(
            [*command, *map(str, arguments)], stdout=file, stderr=file, start_new_session=True
        )


def group(process: subprocess.Popen[bytes]) -> list[str]:
    """What is left of a process and all that it started."""
    lines = subprocess.check_output(["ps", "-ww", "-eo", "pgid=,stat=,args="], text=True)
    rows = [line.split(maxsplit=2) for line in lines.splitlines()]
    return [row[-1] for row in rows if row[0] == str(process.pid) and row[1][0] != "Z"]


def stop(process: subprocess.Popen[bytes], everybody: bool = False) -> tuple[int, float]:
    """Send SIGTERM; the status, and how long until nothing is left of it."""
    began = time.monotonic()
    if everybody:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    status = process.wait(3 * SECONDS)
    while group(process) and time.monotonic() < began + 3 * SECONDS:
        time.sleep(0.05)
    return status, time.monotonic() - began


def wait_for(ready: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.01)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Vectors, which need no model: runs of a second."""
    rows = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    path = tmp_path / "vectors.parquet"
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 64)
    names = [f"/{number}.jpg" for number in range(300)]
    pq.write_table(pa.table({"uri": names, "embedding": embedding}), path)
    (tmp_path / "vectors.yaml").write_text("runner: {workers: 1}\n")
    return path


def index_vectors(table: Path, store: Path) -> list[object]:
    config = table.with_suffix(".yaml")
    return ["index", "--config", config, "--embeddings", table, "--store", store]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "everybody"), [(2, False), (2, True), (1, True)])
def test_sigterm_while_embedding(
    workers: int, everybody: bool, pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """To the launching process alone, as by `kill`, or to all of them, as by a service manager."""
    config, store, log = tmp_path / "config.yaml", tmp_path / "store", tmp_path / "log"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\n"
        f"engine: tensorflow\nrunner: {{workers: {workers}}}\nembed: {{unit_files: 4}}\n"
    )
    arguments = ["index", "--config", config, "--images", pictures(80), "--store", store]
    process = start(arguments, log)
    wait_for(lambda: list(store.glob("runs/*/*/embedded/*.json")), process, log)
    status, seconds = stop(process, everybody)
    assert (status, group(process)) == (1, [])
    assert seconds < SECONDS
    assert log.read_text().splitlines()[-1] == f"lookalike: stopped{STOPPED}"
    assert not (store / "CURRENT").exists()
    done = {path.name for path in store.glob("runs/*/*/embedded/*.json")}
    assert done
    assert main([*map(str, arguments)]) == 0
    assert main(["verify", "--store", str(store)]) == 0
    ledger = [pq.read_table(path) for path in store.glob("snapshots/*/ledger/*.parquet")]
    assert {*pa.concat_tables(ledger)["status"].to_pylist()} == {"embedded"}


@pytest.mark.slow
def test_sigterm_in_native_code_that_puts_signals_off(table: Path, tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    process = start(index_vectors(table, store), log, SLOW_NATIVE)
    wait_for(lambda: "in native code" in log.read_text(), process, log)
    status, seconds = stop(process)
    assert (status, group(process)) == (1, [])
    assert seconds < SECONDS
    assert log.read_text().splitlines()[-1].endswith(STOPPED)
    assert main([*map(str, index_vectors(table, store))]) == 0


@pytest.mark.slow
def test_only_what_goes_on_is_said_to_go_on(table: Path, tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    assert main([*map(str, index_vectors(table, store))]) == 0
    slow = SLOW_NATIVE.replace("import snapshot", "import retention")
    slow = slow.replace("SIG_UNBLOCK", "SIG_BLOCK")  # another thread takes it
    slow = slow.replace("snapshot.point = snapshot.write_manifest", "retention.gc")
    process = start(["gc", "--store", store], log, slow)
    wait_for(lambda: "in native code" in log.read_text(), process, log)
    assert stop(process)[0] == 1
    assert log.read_text().splitlines()[-1] == "lookalike: stopped in the midst of its work"


def test_sigterm_before_anything_is_done(table: Path, tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "log"
    process = start(index_vectors(table, store), log)
    wait_for(store.exists, process, log)
    assert stop(process)[0] == 1
    assert log.read_text().splitlines()[-1] == f"lookalike: stopped{STOPPED}"


@pytest.fixture
def small_files() -> Iterator[None]:
    with files_of_at_most(20_000):
        yield


def test_no_room_ends_with_one_line(
    table: Path, tmp_path: Path, small_files: None, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert main([*map(str, index_vectors(table, store))]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"lookalike: {re.escape(str(store))}/\S+: cannot be written: file too large; raise .*",
        last,
    ), last
    assert not list(store.rglob("*.tmp"))


@pytest.mark.slow
def test_a_run_of_two_workers_tells_the_reason_too(
    table: Path, tmp_path: Path, small_files: None, capfd: pytest.CaptureFixture[str]
) -> None:
    table.with_suffix(".yaml").write_text("runner: {workers: 2}\nembed: {unit_files: 150}\n")
    assert main([*map(str, index_vectors(table, tmp_path / "store"))]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"lookalike: {tmp_path}/\S+: cannot be written: file too large.*", last)


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may do all")
@pytest.mark.parametrize("folder", ["embeddings", "snapshots", "runs", "."])
def test_a_folder_that_may_not_be_written(
    table: Path, tmp_path: Path, folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert main([*map(str, index_vectors(table, store))]) == 0
    table.with_suffix(".yaml").write_text("embed: {unit_files: 100}\nmetric: l2\n")
    (store / folder).chmod(0o500)
    try:
        assert main([*map(str, index_vectors(table, store))]) in (1, 2)
        last = capfd.readouterr().err.splitlines()[-1]
        assert last.startswith("lookalike: ")
        assert "Traceback" not in last
    finally:
        (store / folder).chmod(0o700)
    assert main(["verify", "--store", str(store)]) == 0
