"""What is looked for: which pairs of rows are near-copies, and where tasks find what they need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.distances import Scores, Vectors, better_is_higher
from lookalike.errors import RequestError
from lookalike.ivf.trained_index import TrainedIndex, load_trained_index
from lookalike.store.exchange import in_tasks
from lookalike.store.living import united_schema
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store, open_store
from lookalike.store.snapshot import files_of, read_manifest
from lookalike.store.vector_reader import VectorReader

USUAL = 0.97
"""The threshold of the metrics under which 1 is identical: cosine and jaccard."""

_PARTITION_ROWS = 500_000


@dataclass(frozen=True)
class Join:
    """A join of a snapshot's vectors with themselves: all that a task is told.

    Attributes:
        store: Name of the store, which is only read.
        threshold: The least score of a pair, or under l2 the largest distance.
        nprobe: Lists to look into, for each vector.
        within: A column whose values the rows of a pair share; None for none.
        folder: Of the join's own files, relative to the scratch.
    """

    store: str
    snapshot: str
    threshold: float
    nprobe: int
    within: pa.Field | None
    folder: str

    def opened(self) -> Joined:
        """The snapshot, open in this process."""
        return opened(self.store, self.snapshot)

    @property
    def sample(self) -> str:
        """File of the rows that recall is measured by."""
        return f"{self.folder}/sample.npz"


@dataclass(frozen=True)
class Joined:
    """The snapshot of a join, open in a process.

    Attributes:
        tasks: Paths of embedding files, those of each task that reads them one after another.
        partitions: Into how many parts of neighbouring numbers the lists are dealt.
    """

    store: Store
    manifest: Manifest
    trained: TrainedIndex
    reader: VectorReader
    tasks: list[tuple[str, ...]]
    partitions: int

    @cached_property
    def schema(self) -> pa.Schema:
        """Of the rows of all embedding files."""
        return united_schema(self.reader.schemas())

    @property
    def metric(self) -> str:
        """Of the scores."""
        return self.trained.spec.metric

    def partition(self, lists: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which partition each list (n,) belongs to: (n,)."""
        return np.asarray(lists * self.partitions // self.trained.spec.nlist)


@lru_cache(maxsize=2)
def opened(store_name: str, snapshot: str) -> Joined:
    """A snapshot as the tasks of a join have it in common, once for a process."""
    store = open_store(store_name)
    manifest = read_manifest(store, snapshot)
    name = str(manifest["index"]["template"])
    lines = files_of(manifest, "embedding")
    files = {int(line["file_no"]): str(line["path"]) for line in lines}
    rows = sum(int(line["rows"]) for line in lines)
    trained = load_trained_index(store.local_folder(f"templates/{name}"), name)
    return Joined(
        store,
        manifest,
        trained,
        VectorReader(store, files),
        in_tasks([str(line["path"]) for line in lines], rows),
        max(1, min(trained.spec.nlist, -(-rows // _PARTITION_ROWS))),
    )


def asked_threshold(threshold: float | None, metric: str) -> float:
    """The threshold that is meant, for a metric.

    Raises:
        RequestError: It is none, or there is none that would do for any store of this metric.
    """
    bounded = metric in ("cosine", "jaccard")
    if threshold is None:
        if bounded:
            return USUAL
        least = "smallest inner product" if better_is_higher(metric) else "largest distance"
        raise RequestError(
            f"--threshold: the store's metric is {metric}, whose scores have no scale of their "
            f"own; give the {least} of near-copies"
        )
    if not math.isfinite(threshold):
        raise RequestError(f"--threshold must be a number, got {threshold}")
    if bounded and not 0 < threshold <= 1:
        raise RequestError(
            f"--threshold must be above 0 and at most 1, as the store's metric is {metric}; "
            f"got {threshold:g}"
        )
    if metric == "l2" and threshold < 0:
        raise RequestError(
            f"--threshold is the largest distance, as the store's metric is l2; got {threshold:g}"
        )
    return threshold


def passes(scores: Scores, threshold: float, metric: str) -> npt.NDArray[np.bool_]:
    """Which exact scores (n,) are those of near-copies."""
    edge = np.float32(threshold)
    return np.asarray(scores >= edge if better_is_higher(metric) else scores <= edge)


def own_scores_pass(vectors: Vectors, threshold: float, metric: str) -> npt.NDArray[np.bool_]:
    """Whether two rows with this vector are near-copies: (n,); of inner products, not all are."""
    if metric != "inner_product":
        return np.ones(len(vectors), dtype=bool)
    wide = vectors.astype(np.float64)
    return passes(np.einsum("ij,ij->i", wide, wide).astype(np.float32), threshold, metric)
