"""The bare loop: what the pipeline's decoding and models can do with nothing around them.

As many plain processes as the pipeline has workers, each with its share of the files: read, decode
and resize, embed in the same micro-batches, keep the vectors. No Beam, no Parquet, no hashing, no
ledger, no process apart for decoding. And the same with one half of that left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from random import Random
from threading import Barrier, BrokenBarrierError
from time import time

import numpy as np

from benchmarks.task import Lot, Task, Timing, timing_of
from lookalike.distances import Vectors
from lookalike.images.pixels import Pixels

Read = Callable[[Path], tuple[Pixels, ...]]

_barrier: Barrier  # where the processes of one measurement meet; each has its own end of it
_PATIENCE_S = 600.0
_AT_HAND = 8  # batches of pictures that the models alone are given in turn


def bare(task: Task) -> tuple[Timing, Vectors | None]:
    """Embed everything."""
    return _in_processes(task, task.prepare, embeds=True)


def decode_only(task: Task) -> tuple[Timing, Vectors | None]:
    """The same without the models."""
    return _in_processes(task, task.prepare, embeds=False)


def pillow_only(task: Task) -> tuple[Timing, Vectors | None]:
    """The same without the models, and with Pillow's open, convert and resize."""
    return _in_processes(task, task.prepare_by_pillow, embeds=False)


def model_only(task: Task) -> tuple[Timing, Vectors | None]:
    """The same without decoding: the models, given as many pictures decoded before."""
    return _in_processes(task, None, embeds=True)


def _in_processes(task: Task, read: Read | None, embeds: bool) -> tuple[Timing, Vectors | None]:
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(task.threads)  # as the pipeline's workers have it
    order = list(range(len(task.files)))
    Random(0).shuffle(order)
    shares = [order[number :: task.processes] for number in range(task.processes)]
    context = get_context("spawn")
    barrier = context.Barrier(task.processes)
    with ProcessPoolExecutor(task.processes, context, _meet_at, (barrier,)) as pool:
        futures = [pool.submit(_work, task, share, read, embeds) for share in shares]
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
            raise error  # the cause before those that waited for it in vain
        parts = [future.result() for future in futures]
    timing = timing_of([lots for lots, _ in parts])
    if read is None or not embeds:
        return timing, None
    found = np.concatenate([vectors for _, vectors in parts])
    vectors = np.empty_like(found)
    vectors[np.concatenate(shares)] = found
    return timing, vectors


def _meet_at(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _work(
    task: Task, share: list[int], read: Read | None, embeds: bool
) -> tuple[list[Lot], Vectors]:
    """One process: its lots, from when all are warm, and its vectors in the share's order."""
    try:
        embedder = task.embedder() if embeds else None
        first = [] if read else share[: _AT_HAND * task.batch]
        at_hand = cycle([task.prepare(task.files[i]) for i in first])

        def embed(some: list[int]) -> Vectors:
            prepared = [read(task.files[i]) if read else next(at_hand) for i in some]
            return embedder.embed(prepared)[0] if embedder else np.empty((0, 0), np.float32)

        embed(share[: task.batch])
        _barrier.wait(_PATIENCE_S)
    except BaseException:
        _barrier.abort()
        raise
    lots, vectors = [(time(), 0)], []
    for start in range(0, len(share), task.batch):
        some = share[start : start + task.batch]
        vectors.append(embed(some))
        lots.append((time(), len(some)))
    return lots, np.concatenate(vectors)
