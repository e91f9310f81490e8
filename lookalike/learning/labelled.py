"""Labelled vectors of a store to learn from: a sample that memory can hold, whatever the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.shards import iter_blocks, iter_rows
from lookalike.store.snapshot import files_of
from lookalike.store.tombstones import among, tombstones_of

BYTES = 1 << 30  # of vectors that are learned from
OTHER = -1  # the label of pictures that are like none

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Vectors and what they show.

    Attributes:
        vectors: (n, d) float32, of unit length.
        labels: (n,) from 0, or OTHER: of those that count as wrong answers alone.
        of: Labelled images that there are, of which these are all or a sample.
    """

    vectors: Vectors
    labels: Labels
    of: int

    @property
    def classes(self) -> int:
        """Distinct labels."""
        return len(np.unique(self.labels[self.labels != OTHER]))


def read_labelled(
    store: Store,
    manifest: Manifest,
    label_of: Callable[[str], str | None],
    *,
    most_bytes: int = BYTES,
) -> Labelled:
    """The living rows whose label another image has too; of large stores a sample by labels.

    Raises:
        RequestError: There are none.
    """
    shards = [line["path"] for line in files_of(manifest, "embedding")]
    deleted = tombstones_of(store, manifest)
    numbers: dict[str, int] = {}
    found = []
    for shard in shards:
        rows = [
            (row["id"], label_of(row["uri"]))
            for row in iter_rows(store.parquet(shard), ["id", "uri"])
        ]
        lives = ~among(np.array([row_id for row_id, _ in rows], dtype=np.int64), deleted)
        found.append(
            np.array(
                [
                    numbers.setdefault(label, len(numbers))
                    if alive and label is not None
                    else OTHER
                    for (_, label), alive in zip(rows, lives.tolist(), strict=True)
                ],
                dtype=np.int64,
            )
        )
    labels = np.concatenate([*found, np.empty(0, dtype=np.int64)])
    most = max(2, most_bytes // (4 * int(manifest["dim"])))
    chosen = sample_by_label(labels, most)
    if not chosen.any():
        raise RequestError(
            f"{int((labels != OTHER).sum()):,} images have a label and no two share one; check "
            "that the labels name the files as they were indexed"
        )
    return Labelled(_read(store, shards, chosen), labels[chosen], int((labels != OTHER).sum()))


def sample_by_label(labels: Labels, most: int, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Which rows (n,) to take: at most `most`, of every label as many, and never one alone."""
    rng = np.random.default_rng(seed)
    known = labels[labels != OTHER]
    sizes = np.bincount(known) if len(known) else np.zeros(1, dtype=np.int64)
    sizes[sizes < 2] = 0
    cap = int(sizes.max())
    while cap > 2 and np.minimum(sizes, cap).sum() > most:
        cap = max(2, cap * 9 // 10)
    kept = rng.permutation(len(sizes))  # with too many labels for two of each, some of them
    kept = kept[np.cumsum(np.minimum(sizes, cap)[kept]) <= most]
    use = np.zeros(len(sizes), dtype=bool)
    use[kept] = sizes[kept] > 0
    rows = np.flatnonzero(labels != OTHER)
    rows = rng.permutation(rows[use[labels[rows]]])
    rows = rows[np.argsort(labels[rows], kind="stable")]
    starts = np.searchsorted(labels[rows], labels[rows])
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[rows[np.arange(len(rows)) - starts < cap]] = True
    return chosen


def sample_rows(store: Store, manifest: Manifest, most: int, seed: int = 0) -> list[str]:
    """The names of some living rows, drawn at random, in the order they are stored."""
    shards = [line["path"] for line in files_of(manifest, "embedding")]
    deleted = tombstones_of(store, manifest)
    rng = np.random.default_rng(seed)
    names: list[tuple[float, int, str]] = []
    for shard in shards:
        rows = list(iter_rows(store.parquet(shard), ["id", "uri"]))
        lives = ~among(np.array([row["id"] for row in rows], dtype=np.int64), deleted)
        keys = rng.random(len(rows))
        names += [
            (key, row["id"], row["uri"])
            for key, row, alive in zip(keys.tolist(), rows, lives.tolist(), strict=True)
            if alive
        ]
        names = sorted(names)[:most]
    return [uri for _, _, uri in sorted(names, key=lambda one: one[1])]


def sample_vectors(
    store: Store, manifest: Manifest, most: int, without: set[str], seed: int = 1
) -> Vectors:
    """Vectors of some living rows, at most (most, d), but for those of some names."""
    shards = [line["path"] for line in files_of(manifest, "embedding")]
    names = set(sample_rows(store, manifest, most + len(without), seed)) - without
    chosen = [
        row["uri"] in names for shard in shards for row in iter_rows(store.parquet(shard), ["uri"])
    ]
    return _read(store, shards, np.array(chosen, dtype=bool))[:most]


def _read(store: Store, shards: list[str], chosen: npt.NDArray[np.bool_]) -> Vectors:
    """The chosen rows, (n, d), in the order they are stored."""
    found, start = [], 0
    for shard in shards:
        for ids, vectors in iter_blocks(store.once(shard)):
            inside = chosen[start : start + len(ids)]
            start += len(ids)
            if inside.any():
                found.append(vectors[inside])
    return np.concatenate(found) if found else np.empty((0, 0), dtype=np.float32)
