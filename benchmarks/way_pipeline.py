"""The embed stage of the real pipeline, timed by the files it leaves."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.task import Task, Timing, timing_of
from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.models.features import Feature
from lookalike.pipelines.config import Config, PublishConfig
from lookalike.pipelines.index import run_index
from lookalike.pipelines.progress import Progress
from lookalike.store import snapshot
from lookalike.store.manifest import FileLine
from lookalike.store.objects import open_store


def pipeline(task: Task) -> tuple[Timing, Vectors]:
    """Index the pictures into a store beside those of the models."""
    config: Config = pickle.loads(task.config)
    clear = replace(config, publish=PublishConfig(min_recall=0, max_rejected_share=1))
    clock = _EmbedClock(quiet=True)
    with TemporaryDirectory(dir=task.store.parent) as folder:
        store = Path(folder) / "store"
        run_index(clear, [str(task.files[0].parent)], str(store), clock)
        manifest = snapshot.read_manifest(open_store(store))
        shards = snapshot.files_of(manifest, "embedding")
        timing = _timing(store, shards, config.runner.processes, clock.began)
        engines = [Feature.from_json(feature).engine.name for feature in manifest["features"]]
        return replace(timing, engines=engines), _vectors(store, shards, task)


class _EmbedClock(Progress):
    """Says nothing; notes when the embed stage began."""

    began = 0.0

    @contextmanager
    def stage(self, name: str, *_: Any, **__: Any) -> Iterator[None]:
        if name == "embed":
            self.began = self.began or time()  # a lost worker makes it begin again
        yield


def _timing(store: Path, shards: list[FileLine], processes: int, began: float) -> Timing:
    """A process's lots are its work units, which end as their shards are finished."""
    if len(shards) < 2 * processes:
        raise RequestError(
            f"the pictures make {len(shards)} work units, and {processes} processes need two each "
            "to be timed; give more --files"
        )
    units = sorted(shards, key=lambda line: line["file_no"])
    lots = [((store / line["path"]).stat().st_mtime, line["rows"]) for line in units]
    # The local engine deals units out in turn, one after another to each process.
    timing = timing_of([sorted(lots[number::processes]) for number in range(processes)])
    start_up = timing.ended - began - timing.images / timing.rate
    return replace(timing, stage_start_up_s=max(0.0, start_up))


def _vectors(store: Path, shards: list[FileLine], task: Task) -> Vectors:
    """(n, d) in the order of the files; rows of files that were not embedded are NaN."""
    rows = {os.fspath(path.resolve()): row for row, path in enumerate(task.files)}
    dim = sum(feature.info.dim for feature in task.features)
    vectors = np.full((len(rows), dim), np.nan, np.float32)
    for line in shards:
        table = pq.read_table(store / line["path"], columns=["uri", "embedding"])
        where = [rows[os.path.realpath(uri)] for uri in table["uri"].to_pylist()]
        flat = table["embedding"].combine_chunks().flatten()
        vectors[where] = flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
    return vectors
