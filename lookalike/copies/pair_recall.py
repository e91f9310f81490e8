"""Recall of pairs: rows of a sample, compared with every row while these stream by.

A pair counts where the two vectors differ: equal ones are found by their hashes, and would flatter.
It is found where both rows came into one group. What is stated is the mean over rows of the sample
that have a near-copy at all, of the share that was found, with its interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike.copies.components import Places
from lookalike.copies.spec import Join, Joined
from lookalike.copies.tiles import Rows, near_pairs
from lookalike.copies.values import distinct, keys_of, values_of
from lookalike.distances import Ids
from lookalike.exact_neighbours import interval
from lookalike.sampling import sample_ids
from lookalike.store.files import npz_arrays, npz_bytes
from lookalike.store.living import deleted_ids, read_rows
from lookalike.store.objects import Store
from lookalike.store.shard_format import make_id
from lookalike.store.snapshot import files_of
from lookalike.store.tombstones import among

SAMPLE = 2000  # rows
_SEED = 5
_PER_ROW = 100  # pairs of a row that one task tells of; of a larger pile, the first ones
_BLOCK = 2048


@dataclass(frozen=True)
class Sample:
    """Rows that are compared with every row.

    Attributes:
        rows: Of the sample.
        of: How many rows there are.
        size: How many were drawn, of which some may be equal.
    """

    rows: Rows
    of: int
    size: int

    def write(self, scratch: Store, join: Join) -> None:
        """Write it where tasks look for it."""
        rows, counts = self.rows, np.array([self.of, self.size])
        data = npz_bytes(ids=rows.ids, values=rows.values, vectors=rows.vectors, counts=counts)
        scratch.put_if_absent(join.sample, data)

    @classmethod
    def drawn(cls, joined: Joined, within: pa.Field | None) -> Sample:
        """SAMPLE of a snapshot's living rows, by a hash of their ids; one of equal ones."""
        lines = files_of(joined.manifest, "embedding")
        deleted = deleted_ids(joined.store, joined.manifest)
        starts = [(make_id(int(line["file_no"]), 0), int(line["rows"])) for line in lines]
        ids = (np.arange(start, start + rows, dtype=np.int64) for start, rows in starts)
        chosen = sample_ids((own[~among(own, deleted)] for own in ids), SAMPLE, _SEED)
        values = np.zeros(len(chosen), dtype=np.uint64)
        if within is not None:
            table = read_rows(joined.reader, joined.schema, chosen, [within.name])
            values = values_of(table[within.name].cast(within.type))
        vectors = joined.reader.vectors(chosen).reshape(len(chosen), joined.trained.spec.dim)
        rows = sum(rows for _, rows in starts) - len(deleted)
        sample = Rows(chosen, values, vectors)
        return cls(distinct(sample, keys_of(vectors, values)), rows, len(chosen))

    @classmethod
    def read(cls, scratch: Store, join: Join) -> Sample:
        """Undo `write`."""
        found = npz_arrays(scratch.read_bytes(join.sample))
        rows = Rows(found["ids"], found["values"], found["vectors"])
        return cls(rows, *found["counts"].tolist())


class Seen:
    """Pairs of the sample's rows with those that a task came by, the first of each."""

    def __init__(self, sample: Sample, metric: str, threshold: float) -> None:
        """Begin with none."""
        self._rows, self._metric, self._threshold = sample.rows, metric, threshold
        self._left: list[Ids] = []
        self._right: list[Ids] = []
        self._counts = np.zeros(len(sample.rows), dtype=np.int64)

    def look(self, block: Rows) -> None:
        """Compare some distinct rows with the sample."""
        for start in range(0, len(block) if len(self._rows) else 0, _BLOCK):
            some = block[start : start + _BLOCK]
            open_ = np.flatnonzero(self._counts < _PER_ROW)
            rows = self._rows[open_]
            chosen, places = near_pairs(rows, some, self._threshold, self._metric)
            differ = (rows.vectors[chosen] != some.vectors[places]).any(axis=1)
            chosen, places = chosen[differ], places[differ]
            rank = np.arange(len(chosen)) - np.searchsorted(chosen, chosen)  # `chosen` ascends
            few = rank + self._counts[open_[chosen]] < _PER_ROW
            chosen, places = chosen[few], places[few]
            np.add.at(self._counts, open_[chosen], 1)
            self._left.append(rows.ids[chosen])
            self._right.append(some.ids[places])

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Ids of the pairs."""
        nothing = np.empty(0, dtype=np.int64)
        left, right = (np.concatenate([nothing, *ids]) for ids in (self._left, self._right))
        return {"left": left, "right": right}


@dataclass(frozen=True)
class PairRecall:
    """What was measured.

    Attributes:
        sample: Rows that were compared with every row.
        rows: Those of them that have a near-copy.
        recall: Mean share of a row's near-copies that is in its group; nan where no row has one.
        low: Of its 95% interval.
        high: Of its 95% interval.
    """

    sample: int
    rows: int
    recall: float
    low: float
    high: float

    def line(self) -> str:
        """In words."""
        sample = f"a sample of {self.sample:,}" if self.sample != 1 else "a sample of one row"
        if not self.rows:
            return f"recall of pairs: not measured, no row has a near-copy in {sample}"
        return (
            f"recall of pairs {self.recall:.4f} (95% {self.low:.3f} to {self.high:.3f}), of "
            f"{self.rows:,} rows with near-copies in {sample}"
        )


def pair_recall(sample: Sample, left: Ids, right: Ids, ids: Ids, first: Ids) -> PairRecall:
    """How many of the pairs (m,), (m,) are in groups of rows `ids` (n,), ascending, by `first`."""
    size = sample.size
    if not len(left):
        return PairRecall(size, 0, float("nan"), 0.0, 1.0)
    found = group_of(left, ids, first) == group_of(right, ids, first)
    found &= group_of(left, ids, first) >= 0
    rows, which = np.unique(left, return_inverse=True)
    shares = np.bincount(which, found) / np.bincount(which)
    mean = float(shares.mean())
    low, high = interval(mean, len(rows), len(rows) if size >= sample.of else None)
    return PairRecall(size, len(rows), mean, low, high)


def group_of(wanted: Ids, ids: Ids, first: Ids) -> Ids:
    """The group of each row (m,), -1 where it has none; rows `ids` (n,) ascend."""
    if not len(ids):
        return np.full(len(wanted), -1, dtype=np.int64)
    at: Places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    return np.where(ids[at] == wanted, first[at], -1)
