"""What building and searching an index will take: arithmetic on a spec and on measured rates."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from lookalike.distances import Vectors, candidate_vectors
from lookalike.ivf.coarse import FLAT_BELOW, Coarse
from lookalike.ivf.codes import probes
from lookalike.ivf.planner import DEFAULT_TARGET
from lookalike.ivf.rotation import rotate
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.train import train
from lookalike.ivf.trained_index import TrainedIndex

ROW_BYTES = 160  # of an embedding file beside the vector: uri, hash, size, format
_TRIAL_ROWS = 2048
_TRIAL_LISTS = 1024
_TRIAL_BYTES = 32 << 20
_TRIAL_S = 0.1
_MOST_TRIAL_S = 1.0  # with what measuring itself takes
_CODEBOOKS = 4.0  # training rotation and codes in full takes so many times as long as the trial
_PASSES = 10  # of k-means over the sample
_GROUPS = 8  # that a row is compared with, where lists are assigned through groups
_VISIT_S = 7e-7  # to gather a row for a group
_SCANNED_PER_S = 20e6  # codes, one thread; Faiss's published logs have 12 to 70 million
_DISK_S = 1e-4  # reading one stored vector from a disk
_MEMORY_S = 3e-6  # the same from the cache of files
_SWEEP = 4  # times the chosen setting, for all settings that the certificate tries


@dataclass(frozen=True)
class Rates:
    """What this machine does, with all cores that this process may use.

    Attributes:
        products: Multiplications and additions per second, in comparing rows with centroids.
        prepare_s: Seconds to normalise and rotate one vector.
        codebooks_s: Seconds to train rotation and codes.
        bytes_s: Bytes per second read from files.
        memory_bytes: Of the machine; files of that size are read from it. 0 if unknown.
    """

    products: float
    prepare_s: float
    encode_s: float
    codebooks_s: float
    bytes_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Prediction:
    """What an index of n vectors takes: bytes, seconds, and the work of one query.

    Attributes:
        embeddings_bytes: The embedding files.
        index_bytes: The files of inverted lists.
        trained_bytes: Centroids, rotation, codebooks.
        searcher_bytes: What a searching process holds.
        training_bytes: What the training process holds, beside the libraries.
        train_s: Reading the sample and training on it.
        encode_s: Assigning, coding and writing all vectors.
        truth_s: Exact neighbours of the held-out queries, found while encoding.
        certify_s: Measuring recall.
        lists: Looked into by a query.
        codes: Compared by a query.
        reranked: Vectors read and scored exactly by a query.
    """

    embeddings_bytes: int
    index_bytes: int
    trained_bytes: int
    searcher_bytes: int
    training_bytes: int
    train_s: float
    encode_s: float
    truth_s: float
    certify_s: float
    lists: int
    codes: int
    reranked: int

    def to_json(self) -> dict[str, Any]:
        """As `lookalike plan --json` prints it."""
        return asdict(self)


def calibrate(spec: IndexSpec, work: Path) -> Rates:
    """Measure this machine with the real steps on made-up vectors; takes a few seconds.

    Args:
        spec: What is to be built; decides dimensions and codes.
        work: A scratch folder.
    """
    rows = max(_TRIAL_ROWS, spec.rotation_dim)  # no rotation can be trained on fewer
    vectors = _made_up(rows, spec.dim)
    prepare_s = _seconds(lambda: candidate_vectors(vectors, spec.metric))
    if spec.kind == "ivf_pq":
        matrix = vectors[: spec.rotation_dim]
        prepare_s += _seconds(lambda: rotate(vectors, matrix))
    codebooks_s, encode_s = 0.0, 0.0
    prepared = _made_up(rows, spec.rotation_dim)
    if spec.kind != "exact":
        small = replace(spec, dim=spec.rotation_dim, nlist=min(spec.nlist, 16), train_rows=rows)
        began = perf_counter()
        data, _ = train(small, prepared)
        codebooks_s = _CODEBOOKS * (perf_counter() - began)
        trained = TrainedIndex(data, small)
        lists = trained.assign(prepared)
        encode_s = _seconds(lambda: trained.encode(prepared, lists))
    coarse = Coarse(prepared[:_TRIAL_LISTS])
    pairs = len(prepared) * _TRIAL_LISTS * prepared.shape[1]
    return Rates(
        products=2 * pairs / _seconds(lambda: coarse.assign(prepared)),
        prepare_s=prepare_s / len(vectors),
        encode_s=encode_s / len(vectors),
        codebooks_s=codebooks_s,
        bytes_s=_read_rate(work / "trial"),
        memory_bytes=_physical_memory(),
    )


def predict(
    n: int,
    spec: IndexSpec,
    rates: Rates,
    *,
    queries: int = 1000,
    target: float = DEFAULT_TARGET,
    component_bytes: int = 4,
) -> Prediction:
    """Predict what an index of n vectors takes.

    Args:
        n: Vectors.
        spec: From `plan`.
        rates: From `calibrate`.
        queries: Held out for the certificate.
        target: Recall.
        component_bytes: Of a stored vector: 4, or 2 where float16 is kept.
    """
    vector_bytes = component_bytes * spec.dim
    assign_s = _assign_s(spec, rates)
    train_s = 0.0
    if spec.train_rows:
        sampled_s = vector_bytes / rates.bytes_s + rates.prepare_s + _PASSES * assign_s
        train_s = rates.codebooks_s + 10 * spec.dim**3 / rates.products
        train_s += spec.train_rows * sampled_s + 8 * n / rates.bytes_s
    lists = 1 if spec.kind == "exact" else probes(spec.nlist, target)
    codes = round(lists * n / spec.nlist)
    reranked = min(n, spec.rerank)
    index_bytes = spec.lists_bytes(n)
    # Codes are written in parts, read again and written in order of lists.
    moved = n * vector_bytes + (3 if n > spec.part_rows else 1) * index_bytes
    read_s = _MEMORY_S if n * vector_bytes < rates.memory_bytes else _DISK_S
    query_s = codes / _SCANNED_PER_S + reranked * read_s
    return Prediction(
        embeddings_bytes=n * (vector_bytes + ROW_BYTES),
        index_bytes=index_bytes,
        trained_bytes=spec.trained_bytes(),
        searcher_bytes=spec.searcher_bytes(n),
        training_bytes=4 * spec.train_rows * spec.rotation_dim + 2 * spec.trained_bytes(),
        train_s=train_s,
        encode_s=n * (rates.prepare_s + assign_s + rates.encode_s) + moved / rates.bytes_s,
        truth_s=2.0 * n * min(queries, n) * spec.dim / rates.products,
        certify_s=_SWEEP * min(queries, n) * query_s,
        lists=lists,
        codes=codes,
        reranked=reranked,
    )


def _assign_s(spec: IndexSpec, rates: Rates) -> float:
    """Seconds to find the list of one vector."""
    if spec.kind == "exact":
        return 0.0
    if spec.nlist < FLAT_BELOW:
        return 2.0 * spec.nlist * spec.rotation_dim / rates.products
    compared: float = (1 + _GROUPS) * spec.nlist**0.5
    return 2.0 * compared * spec.rotation_dim / rates.products + _GROUPS * _VISIT_S


def _made_up(rows: int, dim: int) -> Vectors:
    """Positive, of unequal variances: what every metric takes and every step can train on."""
    rng = np.random.default_rng(0)
    spread = np.linspace(1, 0.1, dim)
    return np.asarray(np.abs(rng.standard_normal((rows, dim)) * spread), np.float32) + 0.01


def _seconds(step: Callable[[], object]) -> float:
    """The least time that a step takes, the first time not counted."""
    step()
    least, spent = float("inf"), 0.0
    until = perf_counter() + _MOST_TRIAL_S  # a step that does nothing spends nothing
    while spent < _TRIAL_S and perf_counter() < until:
        began = perf_counter()
        step()
        took = perf_counter() - began
        least, spent = min(least, took), spent + took
    return max(least, 1e-9)


def _read_rate(path: Path) -> float:
    path.write_bytes(bytes(_TRIAL_BYTES))
    try:
        return _TRIAL_BYTES / _seconds(path.read_bytes)
    finally:
        path.unlink()


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return 0
