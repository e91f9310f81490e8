"""What a report measures on rows of a snapshot: its lists, its codes, who is near whom.

The time it takes is bounded, whatever the size of the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.faults import Faults
from lookalike.ivf.encoding import shard_sizes
from lookalike.recall.histograms import counts_in, even_edges, histogram, written
from lookalike.recall.neighbourhoods import Neighbourhoods, neighbourhoods, sample_rows
from lookalike.search.searcher import Searcher
from lookalike.sizes import size_text
from lookalike.store import snapshot
from lookalike.store.attempts import Record, recorded
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.objects import Store
from lookalike.store.tombstones import tombstones_of
from lookalike.store.vector_reader import VectorReader

_SAMPLE, _FRESH = 1000, 500  # rows that are asked for their neighbours, at most
_MEASURED = 500  # of each of them, whose codes are decoded again
_SHARE = 0.02  # of the run's time, that asking for neighbours may take, within these seconds
_LEAST_S, _MOST_S = 0.15, 3.0
_GROUPS, _OUTLIERS = 6, 8
_FETCHED_BYTES = 4 << 30  # of index shards, at most

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
Measure = Callable[[Store, Manifest, Mapping[str, Any] | None, Samples, Faults], Mapping[str, Any]]
"""As `measure`."""


@dataclass(frozen=True)
class MeasureTask:
    """What a report measures, as one task; paths are relative to the store.

    Attributes:
        given: File of the arguments of `measure`: `manifest`, `parent` and `samples`.
        done: The record: what `measure` returns, with `faults`.
    """

    given: str
    done: str
    number: int = 0


@recorded
def measure_index(task: MeasureTask, store: Store) -> Record:
    """Record what is measured; what fails is in `faults`."""
    faults = Faults()
    found = measure(store, **store.read_json(task.given), faults=faults)
    return {**found, "faults": faults.noted}


def measure(
    store: Store,
    manifest: Manifest,
    parent: Mapping[str, Any] | None,
    samples: Samples,
    faults: Faults,
) -> Mapping[str, Any]:
    """`tombstones`, `lists`, `codes` and `neighbourhoods` of a report; see docs/json.md.

    Args:
        store: The store's root.
        manifest: Of the snapshot, published or not.
        parent: What it was made from: `model_fingerprint` and `next_file_no`.
        samples: Rows that were added and changed.
        faults: Takes note of what is left out.
    """
    index = snapshot.files_of(manifest, "index")
    size = sum(int(line["bytes"]) for line in index)
    # A folder's files are mapped where they lie; others would all have to be fetched.
    whole = size <= _FETCHED_BYTES or store.mapped(index[0]["path"]) is not None
    files = manifest["files"] if whole else [one for one in manifest["files"] if one not in index]
    opened: Manifest = {**manifest, "files": files}
    searcher: Searcher | None = faults.spare("searches", lambda: Searcher(store, opened), None)
    if searcher is None:
        return {}
    measured = Measured(store, manifest, searcher)

    def near() -> Neighbourhoods:
        if not whole:
            raise RequestError(f"an index of {size_text(size)} is not fetched for that")
        return measured.neighbourhoods(parent, samples)

    return {
        "tombstones": faults.spare("tombstones", lambda: len(measured.deleted), 0),
        "lists": faults.spare("lists", measured.lists, {}),
        "codes": faults.spare("codes", lambda: measured.codes(parent, samples), {}),
        "neighbourhoods": faults.spare("neighbourhoods", near, {}),
    }


@dataclass
class Measured:
    """What a report measures on some rows of a snapshot."""

    store: Store
    manifest: Manifest
    searcher: Searcher

    @cached_property
    def _lines(self) -> list[FileLine]:
        return snapshot.files_of(self.manifest, "embedding")

    @cached_property
    def deleted(self) -> Ids:
        """Tombstones."""
        return tombstones_of(self.store, self.manifest)

    @cached_property
    def _sample(self) -> Ids:
        rows = {int(line["file_no"]): int(line["rows"]) for line in self._lines}
        return sample_rows(rows, self.deleted, _SAMPLE)

    def lists(self) -> Mapping[str, Any]:
        """How the index's lists are filled; {} for an exact index, which has one."""
        paths = [line["path"] for line in snapshot.files_of(self.manifest, "index")]
        return _lists(shard_sizes(self.store, paths, self.searcher.index.trained))

    def codes(self, parent: Mapping[str, Any] | None, samples: Samples) -> Mapping[str, Any]:
        """What codes lose of a vector, by the sample and the fresh rows; {} for an exact index."""
        fresh = fresh_rows(self.manifest, parent, self.deleted, samples)
        return _codes(self.searcher, self._sample, fresh)

    def neighbourhoods(self, parent: Mapping[str, Any] | None, samples: Samples) -> Neighbourhoods:
        """Near-duplicates and outliers among the sample and the fresh rows."""
        paths = {int(line["file_no"]): str(line["path"]) for line in self._lines}
        return neighbourhoods(
            self.searcher,
            VectorReader(self.store, paths),
            self._sample,
            fresh_rows(self.manifest, parent, self.deleted, samples),
            seconds=_patience(self.manifest),
            groups=_GROUPS,
            outliers=_OUTLIERS,
        )


def fresh_rows(
    manifest: Manifest, parent: Mapping[str, Any] | None, deleted: Ids, samples: Samples
) -> Ids:
    """Ids of rows that came with this snapshot, at most _FRESH; none where all of them did.

    A run's own files come first among the new numbers, and hold what it embedded. Where they were
    merged into others since, the rows of the samples are what is known of them.
    """
    if parent is None or parent.get("model_fingerprint") != manifest.get("model_fingerprint"):
        return np.empty(0, dtype=np.int64)
    lines = snapshot.files_of(manifest, "embedding")
    embedded = int(manifest["counts"].get("embedded", 0))
    own: dict[int, int] = {}
    for line in sorted(lines, key=lambda one: int(one["file_no"])):
        if int(line["file_no"]) < int(parent["next_file_no"]):
            continue
        if sum(own.values()) + int(line["rows"]) > embedded:
            break
        own[int(line["file_no"])] = int(line["rows"])
    if own:
        return sample_rows(own, deleted, _FRESH)
    rows = {int(line["file_no"]): int(line["rows"]) for line in lines}
    shown = [row.get("id") for key in ("added", "changed") for row in samples.get(key, ())]
    there = [
        one for one in shown if one is not None and (one & 0xFFFFFFFF) < rows.get(one >> 32, 0)
    ]
    return np.setdiff1d(np.array(there, dtype=np.int64), deleted)


def _lists(sizes: Ids) -> Mapping[str, Any]:
    if len(sizes) < 2:
        return {}
    marks = np.quantile(sizes, (0, 0.05, 0.5, 0.95, 1), method="nearest").tolist()
    total = float(sizes.sum()) or 1.0
    return {
        "lists": len(sizes),
        "entries": int(sizes.sum()),
        "empty": int((sizes == 0).sum()),
        **dict(zip(("min", "p05", "median", "p95", "max"), map(int, marks), strict=True)),
        "imbalance": round(float(len(sizes) * (sizes.astype(float) ** 2).sum() / total**2), 4),
        **histogram(sizes),
    }


def _codes(searcher: Searcher, sample: Ids, fresh: Ids) -> Mapping[str, Any]:
    if searcher.spec.kind == "exact":
        return {}
    lost = {
        name: searcher.index.lost_by_codes(_some(ids, _MEASURED))
        for name, ids in (("sample", sample), ("fresh", fresh))
        if len(ids)
    }
    lost = {name: values[np.isfinite(values)] for name, values in lost.items()}
    lost = {name: values for name, values in lost.items() if len(values)}
    if not lost:
        return {}
    edges = even_edges(0.0, max(0.0, *(float(values.max()) for values in lost.values())))
    found: dict[str, Any] = {"edges": written(edges)}
    for name, values in lost.items():
        found[name] = {
            "rows": len(values),
            "mean": round(float(values.mean()), 5),
            "p95": round(float(np.quantile(values, 0.95)), 5),
            "counts": counts_in(values, edges),
        }
    return found


def _some(ids: Ids, most: int) -> Ids:
    return ids[np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(np.intp)]


def _patience(manifest: Manifest) -> float:
    """Seconds to ask for neighbours: a short run must not spend most of its time on that."""
    spent = float(sum((manifest.get("stages") or {}).values()))
    return min(_MOST_S, max(_LEAST_S, _SHARE * spent))
