"""Launching the ways of embedding, one process (and its children) at a time, and watching them."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from time import time

import numpy as np

from benchmarks.command import say
from benchmarks.processes import Process
from benchmarks.task import HAND_BATCH, Task, Timing
from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.models.features import Feature
from lookalike.models.resolving import install, resolve_features
from lookalike.pipelines.config import Config
from lookalike.pipelines.models import choose_engines
from lookalike.sources.units import unit_rows_for
from lookalike.store.objects import open_store

WAYS = {
    "pipeline": ("the pipeline's embed stage", "benchmarks.way_pipeline:pipeline"),
    "bare": ("bare loop, same decode and engine", "benchmarks.way_bare:bare"),
    "hub": ("hub.load with tf.data, by hand", "benchmarks.way_hub:tf_data"),
    "runinference": (
        "RunInference, hub.load in the handler",
        "benchmarks.way_runinference:hand_written",
    ),
    "decode": ("decode only", "benchmarks.way_bare:decode_only"),
    "pillow": ("decode only, by Pillow", "benchmarks.way_bare:pillow_only"),
    "model": ("models only, pictures decoded before", "benchmarks.way_bare:model_only"),
}
"""What each way is called in the table, and its function, which is given the task."""

_LEAST_LOOKS = 3  # the first finds a process that has not begun to import


def least_files(processes: int) -> int:
    """How many pictures so many processes need to be timed: three batches each, and two units."""
    return max(3 * HAND_BATCH, 5 * unit_rows_for(0) // 2) * processes  # units are not all equal


def make_task(config: Config, files: Sequence[Path], work: Path, least: int = 0) -> Task:
    """Resolve the models into work/models, and check the request.

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
    store, scratch = work / "models", work / "resolving"
    for folder in (store, scratch):
        folder.mkdir()
    features = resolve_features(config.features, scratch, _quiet)
    features = choose_engines(features, config.engine, config.metric, scratch, _quiet)
    install(open_store(store), features, scratch)
    task = Task(
        files=tuple(files),
        metric=config.metric,
        limits=config.limits,
        processes=processes,
        threads=config.runner.threads,
        config=pickle.dumps(config),
        store=store,
        features=tuple(features),
        by_hand=tuple(_by_hand(feature, store) for feature in features),
    )
    return replace(task, batch=task.embedder().batch)


def _by_hand(feature: Feature, store: Path) -> Path:
    """A feature's SavedModel; of builtin:photo the network in float32, as such models are had."""
    if feature.handle != "builtin:photo":
        return store / feature.folder
    from lookalike.models import photo  # loads TensorFlow

    photo.export(store / "photo-float32", grid=None)
    return store / "photo-float32"


def _quiet(line: str) -> None:
    """The pipeline says the same of its own."""


def measure_way(way: str, task: Task, out: Path) -> tuple[Timing, Vectors | None]:
    """Run one way in a process of its own, in the folder `out`; its timing and vectors.

    So no way inherits another's threads, memory or imports, and its memory can be told.

    Raises:
        RequestError: What it says about the request.
        WayError: It failed.
    """
    out.mkdir()
    (out / "task.pickle").write_bytes(pickle.dumps(task))
    launched, (title, function) = time(), WAYS[way]
    with Process(title, "benchmarks.task:answer", [function, out], out / "stderr.txt") as process:
        timing = Timing(**process.ask())
    sizes = [sample.resident for sample in process.samples if sample.when <= timing.ended]
    start_up = timing.ended - launched - timing.images / timing.rate
    peak = max(sizes) if len(sizes) >= _LEAST_LOOKS else None
    saved = out / "vectors.npy"
    vectors = np.load(saved) if saved.exists() else None
    return replace(timing, start_up_s=max(0.0, start_up), peak_bytes=peak), vectors


def measure_round(ways: Sequence[str], task: Task, work: Path) -> dict[str, Timing]:
    """Each way once, in the order given; vectors are compared with the pipeline's."""
    found = {}
    for way in ways:
        found[way] = measure_way(way, task, work / way)
        say(f"{WAYS[way][0]}: {found[way][0].rate:,.1f} images/s")
    rmtree(work)
    ours = found["pipeline"][1]
    return {
        way: timing if vectors is None else replace(timing, cosine=_cosines(vectors, ours))
        for way, (timing, vectors) in found.items()
    }


def _cosines(one: Vectors, other: Vectors | None) -> tuple[float, float]:
    """Mean and least cosine of the rows; NaN where a row of either is missing."""
    assert other is not None
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1, dtype=np.float64) / lengths
    return float(cosines.mean()), float(cosines.min())
