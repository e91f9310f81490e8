"""Launching the ways of embedding, one process (and its children) at a time, and watching them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from time import time

import numpy as np

from lookalike.errors import RequestError
from pipelines.bench.task import HAND_BATCH, Task, Vectors, load
from pipelines.config import Config

WAYS = {
    "pipeline": "the pipeline's embed stage",
    "bare": "bare loop, same decode and engine",
    "hub": "hub.load with tf.data, by hand",
    "runinference": "RunInference, hub.load in the handler",
    "runinference-engine": "RunInference, same decode and engine",
    "decode": "decode only",
}
"""What each way is called in the table."""

_LOOK_EVERY_S = 0.5
_TOLD_LINES = 15


class WayError(RuntimeError):
    """A way that is measured failed."""


@dataclass(frozen=True)
class Measured:
    """One way in one round.

    Attributes:
        rate: Images/s once warm.
        images: Pictures that it finished.
        warm_s: Seconds that the rate is measured over.
        start_up_s: Seconds from its launch to its last picture that the warm rate does not explain.
        stage_start_up_s: The same from the beginning of the embed stage; None but for the pipeline.
        peak_bytes: Resident memory of its processes together at its highest until the last picture;
            pages that they share count for each. None where the system does not tell.
        engines: What computed each feature in the pipeline, which chooses in every run; None else.
        cosine: Mean and least cosine of its vectors to those compared with; None without any.
    """

    rate: float
    images: int
    warm_s: float
    start_up_s: float
    stage_start_up_s: float | None
    peak_bytes: int | None
    engines: list[str] | None
    cosine: tuple[float, float] | None = None


def least_files(processes: int) -> int:
    """How many pictures so many processes need to be timed: three batches each."""
    return 3 * HAND_BATCH * processes


def make_task(config: Config, files: Sequence[Path], work: Path) -> Task:
    """Resolve the models (in a process of its own, into work/models), and check the request.

    Raises:
        RequestError: A model cannot be had or used, or the pictures are too few.
    """
    processes = config.runner.processes
    least = least_files(processes)
    if len(files) < least:
        raise RequestError(
            f"too few pictures to time: {len(files):,} files for {processes} processes; give at "
            f"least {least:,} with --files"
        )
    store = work / "models"
    task = Task(tuple(files), config.metric, config.limits, processes, config.runner.threads,
                pickle.dumps(config), store)  # fmt: skip
    launch("models", task, store)
    resolved: Task = pickle.loads((store / "resolved.pickle").read_bytes())
    return resolved


def measure_way(way: str, task: Task, out: Path) -> Measured:
    """Run one way from its launch to its end; what it made is left in `out`."""
    launched = time()
    samples = launch(way, task, out)
    timing, _ = load(out)
    return Measured(
        timing.rate,
        timing.images,
        timing.warm_s,
        max(0.0, timing.ended - launched - timing.images / timing.rate),
        timing.start_up_s,
        max((size for when, size in samples if when <= timing.ended), default=None),
        timing.engines,
    )


def measure_round(
    ways: Sequence[str], task: Task, work: Path, say: Callable[[str], None]
) -> dict[str, Measured]:
    """Each way once, in the order given; vectors are compared with the pipeline's."""
    found = {}
    for way in ways:
        found[way] = measure_way(way, task, work / way)
        say(f"{WAYS[way]}: {found[way].rate:,.1f} images/s")
    ours = load(work / "pipeline")[1]
    for way in ways:
        vectors = load(work / way)[1]
        if vectors is not None and ours is not None:
            found[way] = replace(found[way], cosine=_cosines(vectors, ours))
    rmtree(work)
    return found


def _cosines(one: Vectors, other: Vectors) -> tuple[float, float]:
    """Mean and least cosine of the rows; NaN where a row of either is missing."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1, dtype=np.float64) / lengths
    return float(cosines.mean()), float(cosines.min())


def launch(way: str, task: Task, out: Path) -> list[tuple[float, int]]:
    """Run one way in a process of its own; returns its memory, (when, bytes), as it went.

    Raises:
        RequestError: What it says about the request.
        WayError: It failed.
    """
    out.mkdir()
    (out / "task.pickle").write_bytes(pickle.dumps(task))
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    with open(out / "stderr.txt", "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.bench.child", way, out / "task.pickle", out],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=stderr,
            stderr=stderr,
        )
        samples: list[tuple[float, int]] = []
        watcher = threading.Thread(target=_watch, args=(process, samples), daemon=True)
        watcher.start()
        try:
            status = process.wait()
        finally:
            process.terminate()  # where it was not waited for to the end
            watcher.join()
    if (out / "error.txt").exists():
        raise RequestError((out / "error.txt").read_text())
    if status:
        said = (out / "stderr.txt").read_text(errors="replace").splitlines()[-_TOLD_LINES:]
        raise WayError("\n".join([f"{WAYS.get(way, way)} ended with status {status}:", *said]))
    return samples


def _watch(process: subprocess.Popen[bytes], samples: list[tuple[float, int]]) -> None:
    while process.poll() is None:
        size = _resident(process.pid)
        if size is None:
            return
        samples.append((time(), size))
        threading.Event().wait(_LOOK_EVERY_S)


def _resident(root: int) -> int | None:
    """Bytes of memory of a process and all below it; None where there is no /proc."""
    parents: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return None
    for name in filter(str.isdigit, names):
        fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split()
        if fields:  # else it has ended meanwhile
            parents[int(name)] = int(fields[1])
    family, total = {root}, 0
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in family:
        fields = _read(f"/proc/{pid}/statm").split()
        total += int(fields[1]) if fields else 0
    return total * os.sysconf("SC_PAGE_SIZE")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
