"""A partition of contents: its names are settled, and dealt out by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.distances import Ids
from lookalike.reconcile.contents import ROWS, settle
from lookalike.reconcile.settling import CONTENTS, NAMES, Settling, write_numbers
from lookalike.store.attempts import once
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.objects import Store
from lookalike.store.partitions import uri_hashes, uri_partitions

COPY_ROWS = 1 << 16  # of one shard


@dataclass(frozen=True)
class ByContent:
    """Settles partitions of contents.

    What ids copies get depends on how many those before have. Till that is known, copy i of
    partition p has the id -1 - (p << 32 | i), which is below all real ones (see `Copies`).
    """

    of: Settling

    def take(self, number: int, pieces: list[Reference], store: Store) -> Mapping[str, Any]:
        """Settle one partition: rows on their way by name, `copies` and, as `dead`, deleted ids."""

        def work() -> Mapping[str, Any]:
            table = taken(store, pieces, ROWS, CONTENTS)
            found = settle(table, self.of.first_new, lambda count: _provisional(number, count))
            rows, name = found.rows, self.of.scratch("dealt/contents", number)
            self.of.check_ids(store, rows["source"])
            hashes = np.unique(uri_hashes(rows["uri"].filter(rows["source"].is_valid())))
            wanted = self.of.scratch("wanted", number, ".npy")
            deleted = self.of.scratch("dead/contents", number, ".npy")
            with Dealing(store, name, self.of.parts) as dealing:
                dealing.write(rows, uri_partitions(rows["uri"], self.of.parts), NAMES)
            return {
                **dealing.record(),
                "rows": table.num_rows,
                "copies": found.copies,
                "wanted": write_numbers(store, wanted, hashes),
                "dead": write_numbers(store, deleted, found.deleted),
            }

        return once(store, self.of.record("dealt/contents", number), work)


def _provisional(partition: int, count: int) -> Ids:
    return -1 - (np.int64(partition) << 32 | np.arange(count, dtype=np.int64))


@dataclass(frozen=True)
class Copies:
    """Where copied rows go: each partition's to shards of its own, one after the other.

    Attributes:
        first: File number of the first shard.
        files: Shards before those of each partition, (partitions + 1,).
        rows: Copies in all.
    """

    first: int
    files: tuple[int, ...]
    rows: int

    @classmethod
    def of(cls, counts: Sequence[int], first: int) -> Copies:
        """Place so many copies of each partition."""
        files = np.cumsum([0, *(-(-count // COPY_ROWS) for count in counts)])
        return cls(first, tuple(files.tolist()), sum(counts))

    @property
    def shards(self) -> int:
        """How many there are."""
        return self.files[-1]

    def placed(self, column: pa.ChunkedArray) -> pa.Array:
        """Ids (n,), those of copies as they are from now on."""
        there = column.is_valid().to_numpy()
        ids = pc.fill_null(column, 0).to_numpy().copy()
        copied = ids < 0
        partition, row = (-1 - ids[copied]) >> 32, (-1 - ids[copied]) & 0xFFFFFFFF
        file: npt.NDArray[np.int64] = self.first + np.array(self.files)[partition]
        ids[copied] = (file + row // COPY_ROWS << 32) + row % COPY_ROWS
        return pa.array(ids, mask=~there)
