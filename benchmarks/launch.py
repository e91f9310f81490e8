"""Launching the ways of embedding, one process (and its children) at a time, and watching them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from time import time

import numpy as np

from benchmarks.memory import Watcher
from benchmarks.task import HAND_BATCH, Task, Vectors, load
from lookalike.errors import RequestError
from lookalike.pipelines.config import Config

WAYS = {
    "pipeline": "the pipeline's embed stage",
    "bare": "bare loop, same decode and engine",
    "hub": "hub.load with tf.data, by hand",
    "runinference": "RunInference, hub.load in the handler",
    "runinference-engine": "RunInference, same decode and engine",
    "decode": "decode only",
    "model": "models only, pictures decoded before",
}
"""What each way is called in the table."""

_TOLD_LINES = 15
_LEAST_LOOKS = 3  # the first finds a process that has not begun to import
_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
)  # fmt: skip


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
            pages that they share count for each. None where the system does not tell, or it was
            over before it had been looked at often enough.
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


def make_task(config: Config, files: Sequence[Path], work: Path, least: int = 0) -> Task:
    """Resolve the models (in a process of its own, into work/models), and check the request.

    Args:
        config: What to embed with.
        files: The pictures.
        work: A scratch folder.
        least: How many pictures there must be; 0 for as many as it takes to time ways.

    Raises:
        RequestError: A model cannot be had or used, or the pictures are too few.
    """
    processes = config.runner.processes
    least = least or least_files(processes)
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
    sizes = [size for when, size in samples if when <= timing.ended]
    return Measured(
        timing.rate,
        timing.images,
        timing.warm_s,
        max(0.0, timing.ended - launched - timing.images / timing.rate),
        timing.start_up_s,
        max(sizes) if len(sizes) >= _LEAST_LOOKS else None,
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


def environment() -> dict[str, str]:
    """This process's environment, with the project where Python finds it."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def worker_threads(threads: int) -> Iterator[None]:
    """Let processes that are started in a block have the thread counts of the pipeline's workers.

    And no others: what is measured later has the environment that users have.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def launch(way: str, task: Task, out: Path) -> list[tuple[float, int]]:
    """Run one way in a process of its own; returns its memory, (when, bytes), as it went.

    Raises:
        RequestError: What it says about the request.
        WayError: It failed.
    """
    out.mkdir()
    (out / "task.pickle").write_bytes(pickle.dumps(task))
    with open(out / "stderr.txt", "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", way, out / "task.pickle", out],
            env=environment(),
            stdout=stderr,
            stderr=stderr,
        )
        with Watcher(process) as watcher:
            try:
                status = process.wait()
            finally:
                process.terminate()  # where it was not waited for to the end
    if (out / "error.txt").exists():
        raise RequestError((out / "error.txt").read_text())
    if status:
        said = (out / "stderr.txt").read_text(errors="replace").splitlines()[-_TOLD_LINES:]
        raise WayError("\n".join([f"{WAYS.get(way, way)} ended with status {status}:", *said]))
    return [(sample.when, sample.resident) for sample in watcher.samples]
