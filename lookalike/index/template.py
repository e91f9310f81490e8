"""The index template: a trained, empty Faiss index, and how it is trained and read.

It holds rotation, coarse centroids and product quantizer; the vectors lie in shards of inverted
lists that name it by its sha256 (`lookalike.index.invlists`). An exact index is the same thing with
one list, no rotation and uncompressed vectors, so that every later step has one path.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.index.metrics import Ids, Vectors, candidate_vectors, check_vectors
from lookalike.index.planning import IndexSpec

faiss: Any = _faiss  # its own type stubs lack half of what is used here

TEMPLATE_FILE = "template.faiss"
SPEC_FILE = "spec.json"

_MAGIC = {"exact": b"IwFl", "ivf_pq": b"IxPT"}  # other Faiss files are refused unread
_ROTATION_ROWS = 8_192
_STATS_ROWS = 16_384


def set_threads(n: int) -> None:
    """Use n threads in Faiss, for calls from this thread."""
    faiss.omp_set_num_threads(n)


class Template:
    """A trained, empty index. Searching it changes nothing, so threads may share one."""

    def __init__(self, data: bytes, spec: IndexSpec) -> None:
        """Read `data` as `train` returned it; see `load_template` for files."""
        if data[:4] != _MAGIC.get(spec.kind):
            raise RequestError(
                f"not a lookalike template of kind {spec.kind}: it starts with {data[:4]!r}"
            )
        self.spec, self.sha256 = spec, template_hash(data)
        # The residual tables for L2 may take gigabytes, per process and at each load.
        flags = faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
        self._index = faiss.deserialize_index(np.frombuffer(data, np.uint8), flags)
        self._rotation: Vectors | None = None
        if spec.kind == "ivf_pq":
            rotation = faiss.downcast_VectorTransform(self._index.chain.at(0))
            matrix = faiss.vector_to_array(rotation.A)
            self._rotation = matrix.reshape(rotation.d_out, rotation.d_in)
        self._ivf = faiss.downcast_index(faiss.extract_index_ivf(self._index))
        found = (self._index.d, self._ivf.nlist, self._ivf.d, self._index.metric_type)
        wanted = (spec.dim, spec.nlist, spec.rotation_dim, _faiss_metric(spec))
        if found != wanted or self._index.ntotal != 0:
            raise RequestError(
                f"template {self.sha256} is not of its spec: dimension, lists, rotated dimension "
                f"and metric are {found}, the spec says {wanted}"
            )

    @property
    def code_size(self) -> int:
        """Bytes of one code."""
        return int(self._ivf.code_size)

    def prepare(self, vectors: Vectors) -> Vectors:
        """Checked stored or query vectors (n, dim) -> what lists hold (n, rotation_dim)."""
        prepared = candidate_vectors(vectors, self.spec.metric)
        if self._rotation is not None:
            prepared = prepared @ self._rotation.T
        return np.ascontiguousarray(prepared, dtype=np.float32)

    def coarse(self, prepared: Vectors, nprobe: int) -> tuple[Vectors, Ids]:
        """Distances and numbers of the nprobe nearest lists, both (n, nprobe)."""
        distances, lists = self._ivf.quantizer.search(prepared, nprobe)
        return distances, lists

    def empty(self) -> Any:
        """A new empty Faiss index that shares the centroids with this template."""
        ivf, spec = self._ivf, self.spec
        if spec.kind == "exact":
            return faiss.IndexIVFFlat(ivf.quantizer, ivf.d, ivf.nlist, ivf.metric_type)
        shard = faiss.IndexIVFPQ(
            ivf.quantizer, ivf.d, ivf.nlist, ivf.pq.M, ivf.pq.nbits, ivf.metric_type
        )
        shard.pq = ivf.pq
        shard.by_residual = ivf.by_residual
        shard.use_precomputed_table = -1  # never; see __init__
        shard.is_trained = True
        return shard


def template_hash(data: bytes) -> str:
    """The name of a template: sha256 of its bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def load_spec(folder: Path) -> IndexSpec:
    """The spec beside a template.

    Raises:
        RequestError: It is missing or not a spec.
    """
    path = folder / SPEC_FILE
    try:
        value = json.loads(path.read_bytes())
        return IndexSpec.from_json(value)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path}: not an index spec: {error}; run: lookalike verify") from error


def load_template(folder: Path, sha256: str) -> Template:
    """Read a template's folder; its bytes must have this sha256, checked before Faiss sees them.

    Raises:
        RequestError: A file is missing, or the template is another one.
    """
    path = folder / TEMPLATE_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: the template cannot be read: {error.strerror}") from error
    if template_hash(data) != sha256:
        raise RequestError(
            f"{path}: the template has sha256 {template_hash(data)}, expected {sha256}; the file "
            "was changed: restore it or index again"
        )
    return Template(data, load_spec(folder))


def train(spec: IndexSpec, sample: npt.ArrayLike) -> tuple[bytes, dict[str, Any]]:
    """Train on a uniform sample and return the template's bytes and statistics.

    Bit-equal for an equal sample on one machine, whatever the number of Faiss threads.

    Args:
        spec: From `plan`.
        sample: (s, dim) float32, s >= max(nlist, 2 ** nbits, rotation_dim); unused for exact.

    Returns:
        The bytes for `Template`, and a dict: `seconds`, `rows`, and for ivf_pq `objective` (mean
        squared distance, or mean inner product, of a row and its centroid), `imbalance` (1 for
        lists of equal length), `quantisation_error` (mean share of a row's squared length that
        rotation and code lose) and `rotation_error` (the rotation's part of it).

    Raises:
        RequestError: The sample is too small or has vectors that cannot be indexed.
    """
    started = time.monotonic()
    if spec.kind == "exact":
        data, stats = _exact_template(spec), {"rows": 0}
    else:
        data, stats = _train_ivf_pq(spec, check_vectors(sample, spec.dim, spec.metric))
    return data, {**stats, "seconds": round(time.monotonic() - started, 3)}


def _exact_template(spec: IndexSpec) -> bytes:
    quantizer = faiss.IndexFlat(spec.dim, _faiss_metric(spec))
    quantizer.add(np.zeros((1, spec.dim), dtype=np.float32))
    index = faiss.IndexIVFFlat(quantizer, spec.dim, 1, _faiss_metric(spec))
    return _serialized(index)


def _train_ivf_pq(spec: IndexSpec, sample: Vectors) -> tuple[bytes, dict[str, Any]]:
    needed = max(spec.nlist, 1 << spec.nbits, spec.rotation_dim)
    if len(sample) < needed:
        raise RequestError(f"training needs at least {needed:,} vectors, got {len(sample):,}")
    rows = candidate_vectors(sample, spec.metric)
    matrix = _train_rotation(_thinned(rows, _ROTATION_ROWS), spec)
    # By numpy, as in `Template.prepare`: the last bits of Faiss's product depend on its threads.
    rotated = np.ascontiguousarray(rows @ matrix.T)
    metric = _faiss_metric(spec)
    flat = faiss.IndexFlat(spec.rotation_dim, metric)
    ivf = faiss.IndexIVFPQ(flat, spec.rotation_dim, spec.nlist, spec.code_bytes, spec.nbits, metric)
    for clustering in (ivf.cp, ivf.pq.cp):
        clustering.seed = _seed(spec)
        clustering.min_points_per_centroid = 1  # `plan` decides; Faiss would only print
    ivf.use_precomputed_table = -1
    ivf.train(rotated)
    rotation = faiss.LinearTransform(spec.dim, spec.rotation_dim, False)
    faiss.copy_array_to_vector(matrix.ravel(), rotation.A)
    rotation.is_trained = rotation.is_orthonormal = True
    data = _serialized(faiss.IndexPreTransform(rotation, ivf))
    return data, {
        "rows": len(rows),
        **_statistics(_thinned(rows, _STATS_ROWS), _thinned(rotated, _STATS_ROWS), ivf),
    }


def _thinned(rows: Vectors, most: int) -> Vectors:
    """Evenly spaced rows: the first ones would be of the first files."""
    return rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.intp)]


def _serialized(index: Any) -> bytes:
    data: bytes = faiss.serialize_index(index).tobytes()
    return data


def _faiss_metric(spec: IndexSpec) -> int:
    return int(faiss.METRIC_L2 if spec.metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def _seed(spec: IndexSpec) -> int:
    return spec.seed & 0x7FFFFFFF


def _train_rotation(rows: Vectors, spec: IndexSpec) -> Vectors:
    """Principal components, then OPQ among them (Ge et al. 2013): (rotation_dim, dim), orthonormal.

    OPQ straight from d components costs a d x d singular value decomposition per iteration, and its
    result depends on the number of threads; and Faiss writes past a buffer when OPQ is trained on
    fewer rows than output components. Here OPQ is square and small and runs on one thread.
    """
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    components = np.ascontiguousarray(vectors[:, ::-1][:, : spec.rotation_dim].T, dtype=np.float32)
    # A component's sign is arbitrary; fix it.
    largest = np.abs(components).argmax(axis=1)
    components *= np.sign(components[np.arange(len(components)), largest])[:, None]
    quantizer = faiss.ProductQuantizer(spec.rotation_dim, spec.code_bytes, spec.nbits)
    quantizer.cp.min_points_per_centroid = 1
    quantizer.cp.seed = _seed(spec)
    opq = faiss.OPQMatrix(spec.rotation_dim, spec.code_bytes, spec.rotation_dim)
    # More iterations lower the error by a tenth and take five times as long.
    opq.niter, opq.niter_pq_0, opq.niter_pq, opq.pq = 8, 8, 2, quantizer
    assert len(rows) >= spec.rotation_dim
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        opq.train(np.ascontiguousarray(rows @ components.T))
    finally:
        faiss.omp_set_num_threads(threads)
    matrix = faiss.vector_to_array(opq.A).reshape(spec.rotation_dim, spec.rotation_dim)
    return np.ascontiguousarray(matrix @ components, dtype=np.float32)


def _statistics(rows: Vectors, rotated: Vectors, ivf: Any) -> dict[str, float]:
    distances, lists = ivf.quantizer.search(rotated, 1)
    counts = np.bincount(lists[:, 0], minlength=ivf.nlist).astype(np.float64)
    decoded = ivf.sa_decode(ivf.sa_encode(rotated))
    length = (rows.astype(np.float64) ** 2).sum(axis=1)
    dropped = length - (rotated.astype(np.float64) ** 2).sum(axis=1)
    coded = ((rotated.astype(np.float64) - decoded) ** 2).sum(axis=1)
    length = np.maximum(length, np.finfo(np.float32).tiny)
    return {
        "objective": float(distances.mean()),
        "imbalance": float(ivf.nlist * (counts**2).sum() / counts.sum() ** 2),
        "quantisation_error": float(((dropped + coded) / length).mean()),
        "rotation_error": float((dropped / length).mean()),
    }
