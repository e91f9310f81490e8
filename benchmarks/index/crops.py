"""Real embeddings: crops of photographs through the project's decoding and a real model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.launch import make_task
from benchmarks.pictures import gather
from benchmarks.processes import worker_threads
from benchmarks.task import Task
from lookalike.distances import Vectors
from lookalike.images import preparing as images
from lookalike.images.pixels import Pixels
from lookalike.pipelines.config import Config

SHARES = (0.03, 0.7)  # of a photograph's area
ASPECTS = (0.75, 1.33)  # of a crop's sides, relative to the photograph's
_MOST_PHOTOGRAPHS = 100_000
_DETAIL = 2  # photographs are decoded at so many times the sides that models need


def embed_crops(config: Config, source: str | None, count: int, work: Path) -> tuple[Path, str]:
    """Embed `count` crops, as many of each photograph, into work/crops.parquet.

    Raises:
        RequestError: There is no photograph, or the model cannot be had.
        WayError: The model could not be resolved.
    """
    photographs = gather(source, _MOST_PHOTOGRAPHS, work / "photographs", repeat=False)
    paths = photographs.paths[:count]
    each = -(-count // len(paths))
    task = make_task(config, paths, work, least=1)
    shares = [paths[number :: task.processes] for number in range(task.processes)]
    with (
        worker_threads(task.threads),
        ProcessPoolExecutor(task.processes, get_context("spawn")) as pool,
    ):
        parts = [
            part.result()
            for part in [pool.submit(_embed, task, share, each) for share in shares if share]
        ]
    names = [name for part, _ in parts for name in part]
    vectors = np.concatenate([found for _, found in parts])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    output = work / "crops.parquet"
    pq.write_table(pa.table({"uri": names, "embedding": flat}), output, use_dictionary=False)
    return output, f"{each} crops of each of {len(paths):,} pictures ({photographs.describe()})"


def boxes(data: bytes, width: int, height: int, count: int) -> list[tuple[int, int, int, int]]:
    """Random crops (left, top, right, bottom) of a picture, the same for the same bytes."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    random = np.random.default_rng(seed)
    found = []
    for side, aspect in zip(
        random.uniform(*SHARES, count) ** 0.5, random.uniform(*ASPECTS, count) ** 0.5, strict=True
    ):
        across = min(width, max(1, round(width * side * aspect)))
        down = min(height, max(1, round(height * side / aspect)))
        left, top = (int(random.integers(0, room + 1)) for room in (width - across, height - down))
        found.append((left, top, left + across, top + down))
    return found


def _embed(task: Task, paths: list[Path], each: int) -> tuple[list[str], Vectors]:
    """One process: names and vectors of the crops of its photographs; unusable ones left out."""
    embedder = task.embedder()
    names: list[str] = []
    vectors: list[Vectors] = []
    waiting: list[tuple[str, tuple[Pixels, ...]]] = []

    def flush() -> None:
        found, sound = embedder.embed([prepared for _, prepared in waiting])
        vectors.append(found[sound])
        names.extend(name for (name, _), good in zip(waiting, sound, strict=True) if good)
        waiting.clear()

    for path in paths:
        for name, pixels in _crops(task, path, embedder.min_side, each):
            waiting.append((name, embedder.prepare(pixels)))
            if len(waiting) == embedder.batch:
                flush()
    if waiting:
        flush()
    return names, np.concatenate(vectors)


def _crops(task: Task, path: Path, side: int, each: int) -> Iterator[tuple[str, Pixels]]:
    data = path.read_bytes()
    decoded = images.decode(data, path.name, limits=task.limits, min_side=_DETAIL * side)
    height, width = decoded.pixels.shape[:2]
    for number, (left, top, right, bottom) in enumerate(boxes(data, width, height, each)):
        yield f"{path.name}#{number}", np.ascontiguousarray(decoded.pixels[top:bottom, left:right])
