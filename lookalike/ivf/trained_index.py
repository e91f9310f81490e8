"""The trained index: what training learnt and every part of an index shares.

It is an empty Faiss index: rotation, centroids of the inverted lists and quantizer of the codes.
The codes lie in files that name it by its sha256 (`lookalike.ivf.invlists`). An exact index is
the same thing with one list, no rotation and vectors for codes, so that every step has one path.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Vectors, candidate_vectors
from lookalike.errors import RequestError
from lookalike.ivf.coarse import Coarse
from lookalike.ivf.rotation import rotate
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.train import faiss_metric
from lookalike.store.files import json_bytes
from lookalike.store.objects import Store

faiss: Any = _faiss  # its own type stubs lack half of what is used here
# Bytes are hashed before Faiss reads them; these bound what wrong ones could still make it do.
faiss.set_deserialization_vector_byte_limit(16 << 30)  # the centroids of 16 million lists
faiss.set_deserialization_loop_limit(1 << 24)  # lists

Codes = npt.NDArray[np.uint8]

TRAINED_FILE = "template.faiss"
SPEC_FILE = "spec.json"
BLOCKS32 = "blocks32"  # codes packed for FastScan, 32 vectors at a time
PLAIN = "plain"  # one code after the other

_MAGIC = {"exact": b"IwFl", "ivf_sq": b"IwSq", "ivf_pq": b"IxPT"}  # other files are refused unread


def set_threads(n: int) -> None:
    """Use n threads in Faiss, for calls from this thread."""
    faiss.omp_set_num_threads(n)


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Let Faiss work in the calling thread alone, and leave that thread as it was."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


class TrainedIndex:
    """A trained, empty index. Nothing changes it, so threads may share one.

    Attributes:
        spec: What it was planned as.
        sha256: Its name.
        code_size: Bytes of one code.
        layout: How lists hold codes for `scanner`: BLOCKS32 or PLAIN.
        rotation: Of prepared vectors: (rotation_dim, dim) float32; None where there is none.
        centroids: Of the lists: (nlist, rotation_dim) float32.
    """

    def __init__(self, data: bytes, spec: IndexSpec) -> None:
        """Read `data` as `train.train` returned it; see `load_trained_index` for files.

        Raises:
            RequestError: The data are another kind of file, or not of this spec.
        """
        if data[:4] != _MAGIC.get(spec.kind):
            raise RequestError(
                f"not a lookalike trained index of kind {spec.kind}: it starts with {data[:4]!r}"
            )
        self.spec, self.sha256 = spec, trained_index_hash(data)
        # The residual tables for L2 may take gigabytes, per process and at each load.
        flags = faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
        self._index = faiss.deserialize_index(np.frombuffer(data, np.uint8), flags)
        self._ivf = faiss.downcast_index(faiss.extract_index_ivf(self._index))
        found = (self._index.d, self._ivf.nlist, self._ivf.d, self._index.metric_type)
        wanted = (spec.dim, spec.nlist, spec.rotation_dim, faiss_metric(spec))
        if found != wanted or self._index.ntotal != 0:
            raise RequestError(
                f"trained index {self.sha256} is not of its spec: dimension, lists, rotated "
                f"dimension and metric are {found}, the spec says {wanted}"
            )
        self.rotation: Vectors | None = None
        if spec.kind == "ivf_pq":
            rotation = faiss.downcast_VectorTransform(self._index.chain.at(0))
            matrix = faiss.vector_to_array(rotation.A)
            self.rotation = matrix.reshape(rotation.d_out, rotation.d_in)
        flat = faiss.downcast_index(self._ivf.quantizer)
        values = faiss.rev_swig_ptr(flat.get_xb(), spec.nlist * spec.rotation_dim)
        self.centroids: Vectors = values.reshape(spec.nlist, spec.rotation_dim)
        self._coarse = Coarse(self.centroids)
        self.code_size = int(self._ivf.code_size)
        self.layout = BLOCKS32 if spec.kind == "ivf_pq" and spec.nbits == 4 else PLAIN

    def prepare(self, vectors: Vectors) -> Vectors:
        """Checked stored or query vectors (n, dim) -> what lists hold (n, rotation_dim)."""
        prepared = candidate_vectors(vectors, self.spec.metric)
        if self.rotation is not None:
            prepared = rotate(prepared, self.rotation)
        return np.ascontiguousarray(prepared, dtype=np.float32)

    def assign(self, prepared: Vectors) -> Ids:
        """The list of each row (n, rotation_dim), the nearest one: (n,) int64."""
        return self._coarse.assign(prepared)

    def coarse(self, prepared: Vectors, nprobe: int) -> tuple[Vectors, Ids]:
        """The lists to search for queries (n, rotation_dim), best first.

        Returns:
            Scores (n, nprobe) float32, inner products with the centroids or, for l2, squared
            distances, as `search_preassigned` takes them; and numbers of lists (n, nprobe) int64.
        """
        return self._coarse.search(prepared, nprobe, self.spec.metric)

    def encode(self, prepared: Vectors, lists: Ids) -> Codes:
        """Codes (n, code_size) of rows (n, rotation_dim) in their lists (n,)."""
        if self.spec.kind == "exact":
            return np.ascontiguousarray(prepared, np.float32).view(np.uint8)
        codes: Codes = self._codec.compute_codes(prepared - self.centroids[lists])
        return codes

    def decode(self, codes: Codes, lists: Ids) -> Vectors:
        """What codes (n, code_size) in lists (n,) stand for: (n, rotation_dim) float32."""
        codes = np.ascontiguousarray(codes, dtype=np.uint8)
        if self.spec.kind == "exact":
            return codes.view(np.float32)
        decoded: Vectors = self._codec.decode(codes)
        decoded += self.centroids[lists]
        return decoded

    def scanner(self) -> Any:
        """A new Faiss index with these centroids and codes, to be given lists of `layout`."""
        ivf, spec = self._ivf, self.spec
        shape = (ivf.quantizer, ivf.d, ivf.nlist)
        if spec.kind == "exact":
            scanner = faiss.IndexIVFFlat(*shape, ivf.metric_type)
        elif spec.kind == "ivf_sq":
            scanner = faiss.IndexIVFScalarQuantizer(*shape, ivf.sq.qtype, ivf.metric_type)
            scanner.sq = ivf.sq
        else:
            fast = self.layout == BLOCKS32
            kind = faiss.IndexIVFPQFastScan if fast else faiss.IndexIVFPQ
            scanner = kind(*shape, ivf.pq.M, ivf.pq.nbits, ivf.metric_type)
            scanner.pq = ivf.pq
            scanner.use_precomputed_table = -1  # never; see __init__
        scanner.by_residual = spec.kind != "exact"
        scanner.is_trained = True
        scanner.referenced_objects = [self._index]  # the centroids are its own
        return scanner

    @property
    def _codec(self) -> Any:
        return self._ivf.pq if self.spec.kind == "ivf_pq" else self._ivf.sq


def trained_index_hash(data: bytes) -> str:
    """The name of a trained index: sha256 of its bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def load_spec(folder: Path) -> IndexSpec:
    """The spec beside a trained index.

    Raises:
        RequestError: It is missing or not a spec.
    """
    path = folder / SPEC_FILE
    try:
        value = json.loads(path.read_bytes())
        return IndexSpec.from_json(value)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path}: not an index spec: {error}; run: lookalike verify") from error


def load_trained_index(folder: Path, sha256: str) -> TrainedIndex:
    """Read a trained index's folder; its bytes must have this sha256, checked before Faiss reads.

    Raises:
        RequestError: A file is missing, or the trained index is another one.
    """
    path = folder / TRAINED_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: the trained index cannot be read: {error.strerror}") from error
    if trained_index_hash(data) != sha256:
        raise RequestError(
            f"{path}: the trained index has sha256 {trained_index_hash(data)}, expected "
            f"{sha256}; the file was changed: restore it or index again"
        )
    return TrainedIndex(data, load_spec(folder))


def write_trained_index(
    store: Store, spec: IndexSpec, data: bytes, training: Mapping[str, Any]
) -> tuple[str, list[str]]:
    """Write what `train.train` returned into a store; one that is there is never written again.

    Returns:
        The trained index's name, and the paths of its files relative to the store.
    """
    name = trained_index_hash(data)
    paths = [f"templates/{name}/{file}" for file in (TRAINED_FILE, SPEC_FILE)]
    if not store.has(paths[1]):  # which is written last
        store.put(paths[0], data)
        described = json_bytes({**spec.to_json(), "training": dict(training)})
        store.put_if_absent(paths[1], described)  # seconds differ from one attempt to another
    return name, paths
