"""How good the vectors are: precision@k and mAP of labelled images, each queried, itself left out.

Exact scores, so that the answer is about the features and not about the index (whose recall has a
certificate of its own).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import better_is_higher, score
from lookalike.errors import RequestError
from lookalike.sources.locating import split_uri
from lookalike.sources.manifests import Manifest
from lookalike.store.manifest import Manifest as SnapshotManifest
from lookalike.store.objects import Store
from lookalike.store.shards import iter_blocks, iter_rows
from lookalike.store.snapshot import files_of
from lookalike.store.tombstones import among, tombstones_of
from lookalike.whole_numbers import whole_number

_BLOCK_BYTES = 256 << 20  # of scores held at once


@dataclass(frozen=True)
class Evaluation:
    """Means over all queries.

    Attributes:
        images: Labelled images in the snapshot (one per content: duplicates are one image).
        labels: Distinct labels.
        queries: Images queried: those whose label has another image.
        k: Of precision_at_k.
        precision_at_k: Share of the k nearest that have the query's label.
        mean_average_precision: Over the full ranking of all other images.
    """

    images: int
    labels: int
    queries: int
    k: int
    precision_at_k: float
    mean_average_precision: float

    def to_json(self) -> dict[str, Any]:
        """As `lookalike evaluate --json` prints it."""
        return asdict(self)


def folder_label(uri: str) -> str:
    """The name of the folder an image lies in; within a tar shard, of the folder there."""
    return PurePosixPath(split_uri(uri)[1]).parent.name


def file_labels(path: str) -> Callable[[str], str | None]:
    """Labels from a CSV or Parquet file with `uri` and `label`.

    Raises:
        RequestError: It cannot be read, or a column is missing.
    """
    manifest = Manifest(path)
    if "label" not in manifest.metadata_schema().names:
        raise RequestError(f"{path}: a file of labels needs the columns uri and label")
    labels = {
        uri: None if metadata["label"] is None else str(metadata["label"])
        for uri, problem, metadata in manifest.rows()
        if not problem
    }
    return labels.get


def evaluate(
    store: Store, manifest: SnapshotManifest, label_of: Callable[[str], str | None], k: int = 10
) -> Evaluation:
    """Rank all labelled images for each of them.

    Raises:
        RequestError: k is no whole number from 1, or fewer than two images share a label.
    """
    k = whole_number("k", k)
    shards = [line["path"] for line in files_of(manifest, "embedding")]
    deleted = tombstones_of(store, manifest)
    images = [row for shard in shards for row in iter_rows(store.parquet(shard), ["id", "uri"])]
    living = ~among(np.array([image["id"] for image in images], dtype=np.int64), deleted)
    names = [
        label_of(image["uri"]) if lives else None
        for image, lives in zip(images, living.tolist(), strict=True)
    ]
    labelled = np.array([name is not None for name in names], dtype=bool)
    known = sorted({name for name in names if name is not None})
    number = {name: i for i, name in enumerate(known)}
    labels = np.array([number[name] for name in names if name is not None], dtype=np.int64)
    sizes = Counter(labels.tolist())
    queried = np.array([sizes[label] > 1 for label in labels.tolist()], dtype=bool)
    if not queried.any():
        raise RequestError(
            f"{len(labels)} of {int(living.sum())} images have a label and no two share one; "
            "check that the labels name the files as they were indexed"
        )
    vectors = _Vectors(store, shards, labelled)
    chunk = max(1, _BLOCK_BYTES // (4 * len(labels)))
    sign = 1.0 if better_is_higher(manifest["metric"]) else -1.0
    precision = average = 0.0
    positions = np.flatnonzero(queried)
    for start in range(0, len(positions), chunk):
        rows = positions[start : start + chunk]
        queries = vectors.take(rows)
        scores = np.concatenate(
            [sign * score(queries, block, manifest["metric"]) for block in vectors.blocks()], axis=1
        )
        scores[np.arange(len(rows)), rows] = -np.inf  # itself, last
        ranking = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
        relevant = labels[ranking] == labels[rows, None]
        precision += float(relevant[:, :k].sum() / k)
        average += float(average_precision(relevant).sum())
    count = len(positions)
    return Evaluation(len(labels), len(known), count, k, precision / count, average / count)


def average_precision(relevant: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Mean of the precision at each relevant rank: (q, n) -> (q,)."""
    hits = relevant.cumsum(axis=1)
    ranks = np.arange(1, relevant.shape[1] + 1)
    total: npt.NDArray[np.float64] = (hits / ranks * relevant).sum(axis=1) / hits[:, -1]
    return total


class _Vectors:
    """The labelled rows of the shards, a block at a time."""

    def __init__(self, store: Store, shards: list[str], labelled: npt.NDArray[np.bool_]) -> None:
        self._store, self._shards, self._labelled = store, shards, labelled

    def blocks(self) -> Any:
        start = 0
        for shard in self._shards:
            for ids, vectors in iter_blocks(self._store.once(shard)):
                kept = vectors[self._labelled[start : start + len(ids)]]
                start += len(ids)
                if len(kept):
                    yield kept

    def take(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        found, start = [], 0
        for block in self.blocks():
            inside = rows[(rows >= start) & (rows < start + len(block))] - start
            found.append(block[inside])
            start += len(block)
        return np.concatenate(found)
