"""Training: from a uniform sample of vectors to the bytes of a trained index.

sample -> rotation -> centroids of the lists -> codebooks for what the centroids leave

In memory are the rotated sample and a few blocks of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors, candidate_vectors, check_vectors
from lookalike.errors import RequestError
from lookalike.ivf.coarse import Coarse, kmeans
from lookalike.ivf.fitness import Fitness
from lookalike.ivf.rotation import one_thread, rotate, train_rotation
from lookalike.ivf.spec import IndexSpec

faiss: Any = _faiss  # its own type stubs lack half of what is used here

_BLOCK = 8_192  # rows read at a time
_ROTATION_ROWS = 16_384
_CODE_ROWS = 65_536
_STATS_ROWS = 16_384
_STATS_PER_LIST = 16  # fewer would make lists look more uneven than they are
_SQ_TYPES = {4: "QT_4bit", 6: "QT_6bit", 8: "QT_8bit", 16: "QT_fp16"}


class Rows(Protocol):
    """What to train on: an array (n, dim), or a `Drawn` sample that reads rows when asked."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def train(spec: IndexSpec, sample: Rows) -> tuple[bytes, dict[str, Any]]:
    """Train on a uniform sample and return the trained index's bytes and statistics.

    Bit-equal for an equal sample on one machine, whatever the number of threads.

    Args:
        spec: From `plan`.
        sample: (n, dim) float32, n >= max(nlist, 2 ** nbits, rotation_dim); unused for exact.

    Returns:
        The bytes for `TrainedIndex`, and a dict: `rows`, `seed`, `seconds`, and but for exact
        `steps` (seconds of each), `objective` (mean squared distance of a row and its centroid),
        `imbalance` (1 for lists of equal length), `quantisation_error` (mean share of a row's
        squared length that rotation and code lose) and `rotation_error` (the rotation's part).

    Raises:
        RequestError: The sample is too small or has vectors that cannot be indexed.
    """
    started = time.monotonic()
    if spec.kind == "exact":
        data, stats = _exact_index(spec), {"rows": 0}
    else:
        data, stats = _train_ivf(spec, sample)
    return data, {**stats, "seed": spec.seed, "seconds": round(time.monotonic() - started, 3)}


def _exact_index(spec: IndexSpec) -> bytes:
    quantizer = _flat(spec, np.zeros((1, spec.dim), dtype=np.float32))
    return _serialized(faiss.IndexIVFFlat(quantizer, spec.dim, 1, faiss_metric(spec)))


def _train_ivf(spec: IndexSpec, sample: Rows) -> tuple[bytes, dict[str, Any]]:
    needed = max(spec.nlist, 1 << spec.nbits if spec.kind == "ivf_pq" else 1, spec.rotation_dim)
    if len(sample) < needed:
        raise RequestError(f"training needs at least {needed:,} vectors, got {len(sample):,}")
    clock, matrix = _Clock(), None
    if spec.kind == "ivf_pq":
        spread = _spread(len(sample), _ROTATION_ROWS)
        matrix = train_rotation(lambda: _blocks(spec, sample, spread), spec)
    clock.lap("rotation")
    rows = np.empty((len(sample), spec.rotation_dim), dtype=np.float32)
    done = 0
    for block in _blocks(spec, sample, np.arange(len(sample))):
        rows[done : done + len(block)] = block if matrix is None else rotate(block, matrix)
        done += len(block)
    clock.lap("reading")
    centroids = kmeans(rows, spec.nlist, spec.seed)
    clock.lap("kmeans")
    index = _with_codes(spec, centroids, rows)
    clock.lap("codes")
    stats = _statistics(spec, sample, matrix, centroids, index)
    if matrix is not None:
        rotation = faiss.LinearTransform(spec.dim, spec.rotation_dim, False)
        faiss.copy_array_to_vector(matrix.ravel(), rotation.A)
        rotation.is_trained = rotation.is_orthonormal = True
        index = faiss.IndexPreTransform(rotation, index)
    clock.lap("statistics")
    return _serialized(index), {"rows": len(rows), **stats, "steps": clock.seconds}


class _Clock:
    """Seconds by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, step: str) -> None:
        now = time.monotonic()
        self.seconds[step], self._last = round(now - self._last, 3), now


def _blocks(spec: IndexSpec, sample: Rows, rows: npt.NDArray[np.intp]) -> Iterator[Vectors]:
    """What lists would hold of these rows, but for the rotation, in blocks."""
    for start in range(0, len(rows), _BLOCK):
        block = check_vectors(sample[rows[start : start + _BLOCK]], spec.dim, spec.metric)
        yield candidate_vectors(block, spec.metric)


def _spread(rows: int, most: int) -> npt.NDArray[np.intp]:
    """Evenly spaced rows: the first ones would be of the first files."""
    return np.linspace(0, rows - 1, min(most, rows)).astype(np.intp)


def _with_codes(spec: IndexSpec, centroids: Vectors, rows: Vectors) -> Any:
    """An empty index of these lists, its codes trained on what centroids leave of the rows."""
    flat, metric, dim = _flat(spec, centroids), faiss_metric(spec), spec.rotation_dim
    if spec.kind == "ivf_sq":
        kind = getattr(faiss.ScalarQuantizer, _SQ_TYPES[spec.nbits])
        index = faiss.IndexIVFScalarQuantizer(flat, dim, spec.nlist, kind, metric)
        codec = index.sq
    else:
        index = faiss.IndexIVFPQ(flat, dim, spec.nlist, spec.subquantizers, spec.nbits, metric)
        index.use_precomputed_table = -1
        codec = index.pq
        codec.cp.seed = spec.seed & 0x7FFFFFFF
        codec.cp.min_points_per_centroid = 1  # `plan` decides; Faiss would only print
    chosen = rows[_spread(len(rows), _CODE_ROWS)]
    with one_thread():
        codec.train(chosen - centroids[Coarse(centroids).assign(chosen)])
    index.is_trained = True
    return index


def _flat(spec: IndexSpec, centroids: Vectors) -> Any:
    flat = faiss.IndexFlat(centroids.shape[1], faiss_metric(spec))
    flat.add(np.ascontiguousarray(centroids))
    return flat


def _serialized(index: Any) -> bytes:
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def _statistics(
    spec: IndexSpec, sample: Rows, matrix: Vectors | None, centroids: Vectors, index: Any
) -> dict[str, float]:
    coarse, codec = Coarse(centroids), index.sq if spec.kind == "ivf_sq" else index.pq
    fitness = Fitness(spec.nlist)
    distances = 0.0
    most = max(_STATS_ROWS, _STATS_PER_LIST * spec.nlist)
    for rows in _blocks(spec, sample, _spread(len(sample), most)):
        prepared = rows if matrix is None else rotate(rows, matrix)
        lists = coarse.assign(prepared)
        residuals = prepared - centroids[lists]
        decoded = codec.decode(codec.compute_codes(residuals))
        fitness.add(rows, prepared, residuals - decoded, lists)
        distances += float(np.square(residuals, dtype=np.float64).sum())
    return {"objective": distances / fitness.rows, **fitness.measures()}


def faiss_metric(spec: IndexSpec) -> int:
    """How Faiss names the spec's metric."""
    return int(faiss.METRIC_L2 if spec.metric == "l2" else faiss.METRIC_INNER_PRODUCT)
