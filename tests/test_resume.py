"""One run, stopped in every way a run can be stopped, and continued to the same result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.locks import StoreBusyError, hold
from lookalike.store.objects import open_store
from lookalike.store.shards import iter_blocks

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs process groups")
COUNT = 200
CONFIG = """
features: [{name: low, handle: 'builtin:color-texture'}]
runner: {workers: %d}
embed: {unit_files: 10}
engine: tensorflow  # slow enough to be stopped in the middle
"""
OURS = (
    "scan:",
    "model ",
    "making the models ready",
    "engine:",
    "continuing ",
    "embed:",
    "index:",
    "encode:",
    "certify:",
    "lookalike:",
)


class Job:
    """An index command in a process group of its own."""

    def __init__(self, arguments: list[str], store: Path, log: Path) -> None:
        self.store, self._log = store, log
        with open(log, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lookalike.pipelines.cli", *arguments],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def until(self, ready: Callable[[], object]) -> None:
        for _ in range(6000):
            if ready():
                return
            assert self.process.poll() is None, self.said()
            time.sleep(0.01)
        raise AssertionError(f"nothing happened: {self.said()}")

    def group(self, what: str = "") -> list[int]:
        """Living processes of the group, those whose command holds `what`."""
        command = ["ps", "-ww", "-eo", "pid=,pgid=,stat=,args="]
        lines = subprocess.check_output(command, text=True, errors="replace").splitlines()
        rows = [line.split(maxsplit=3) for line in lines]
        own = str(self.process.pid)
        return [
            int(pid)
            for pid, group, stat, *words in rows
            if group == own and stat[0] != "Z" and what in "".join(words)
        ]

    def ended(self) -> int:
        """Its status, once nothing of the group is left."""
        status = self.process.wait(30)
        for _ in range(100):
            if not self.group():
                return status
            time.sleep(0.1)
        raise AssertionError(f"still there: {self.group()}")

    def said(self) -> list[str]:
        """What it wrote, which must be lines of ours and nothing else."""
        lines = self._log.read_text().splitlines()
        strange = [line for line in lines if not line.startswith(OURS)]
        assert not strange, lines
        return lines


def units(store: Path) -> dict[str, tuple[int, int]]:
    """Shards of finished units: inode and time of change."""
    found = {}
    for path in store.glob("runs/*/*/embedded/*.json"):
        shard = store / json.loads(path.read_text())["shard"]["path"]
        found[shard.name] = (shard.stat().st_ino, shard.stat().st_mtime_ns)
    return found


def vectors(store: Path) -> dict[int, np.ndarray]:
    lines = snapshot.files_of(snapshot.read_manifest(open_store(store)), "embedding")
    blocks = [block for line in lines for block in iter_blocks(store / line["path"])]
    return {int(i): v for ids, rows in blocks for i, v in zip(ids, rows, strict=True)}


@pytest.mark.slow
def test_a_run_stopped_in_every_way_is_continued_to_the_same_result(
    pictures: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(COUNT)
    configs = {}
    for workers in (1, 2):
        configs[workers] = tmp_path / f"{workers}.yaml"
        configs[workers].write_text(CONFIG % workers)
    store = tmp_path / "store"

    def arguments(workers: int, store: Path) -> list[str]:
        flags = ["--config", configs[workers], "--images", folder, "--store", store]
        return ["index", *map(str, flags)]

    def started() -> tuple[Job, dict[str, tuple[int, int]]]:
        before = units(store)
        job = Job(arguments(2, store), store, tmp_path / "log")
        job.until(lambda: len(units(store)) >= len(before) + 2)
        return job, before

    # worker processes are killed, as for want of memory: the run goes on, until it is too often
    job = Job(arguments(2, store), store, tmp_path / "log")
    seen = set[int]()  # one of the last try may still be ending
    for times in (1, 2, 3):
        job.until(lambda: len(set(job.group("lookalike.pipelines.worker")) - seen) == 2)  # noqa: B023
        workers = set(job.group("lookalike.pipelines.worker")) - seen
        seen |= workers
        os.kill(min(workers), signal.SIGKILL)
        if times < 3:
            line = "a worker process was killed by signal 9"
            job.until(lambda line=line, times=times: str(job.said()).count(line) == times)
    assert job.ended() == 1
    assert "a worker process was killed by signal 9" in job.said()[-1]
    assert "for the 3. time; run the same command again" in job.said()[-1]

    # Ctrl-C on a terminal goes to all processes
    job, done = started()
    os.killpg(job.process.pid, signal.SIGINT)
    assert job.ended() == 1
    assert job.said()[-1] == "lookalike: stopped; the same command continues where it was"
    assert done.items() <= units(store).items()

    # a second run is refused; the launching process alone is killed: its workers end by themselves
    job, done = started()
    os.killpg(job.process.pid, signal.SIGSTOP)  # or it would be through before the answer
    capfd.readouterr()
    with pytest.raises(StoreBusyError, match=f"process {job.process.pid} on "), hold(store):
        pass
    os.killpg(job.process.pid, signal.SIGCONT)
    job.process.kill()
    assert job.ended() == -signal.SIGKILL
    assert not job.said()[-1].startswith("lookalike:")  # and the workers said nothing
    assert done.items() <= units(store).items()

    # all of it is killed while the index is built
    done = units(store)
    job = Job(arguments(1, store), store, tmp_path / "log")
    job.until(lambda: list(store.glob("runs/*/*/index-*/trained.json")))
    os.killpg(job.process.pid, signal.SIGKILL)
    assert job.ended() == -signal.SIGKILL
    assert not (store / "CURRENT").exists()
    assert done.items() <= units(store).items()
    done = units(store)

    # and the last one finishes
    assert main(arguments(1, store)) == 0
    assert "published" in capfd.readouterr().err
    assert [path.name for path in (store / "runs").iterdir()] == ["lock"]
    for name, (inode, changed) in done.items():
        info = (store / "embeddings" / name).stat()
        assert (info.st_ino, info.st_mtime_ns) == (inode, changed)
    assert not list(store.rglob("*.tmp"))
    assert main(["verify", "--store", str(store)]) == 0

    assert main(arguments(1, tmp_path / "uninterrupted")) == 0
    expected, found = vectors(tmp_path / "uninterrupted"), vectors(store)
    assert found.keys() == expected.keys()
    assert len(found) == COUNT
    for i, vector in expected.items():
        np.testing.assert_allclose(found[i], vector, atol=1e-6)
