"""Which new names are names that went: pairs of equal content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.reconcile.sampled import SAMPLES
from lookalike.reconcile.settling import MOVED, Settling
from lookalike.store.attempts import once
from lookalike.store.exchange import Reference, taken
from lookalike.store.objects import Store
from lookalike.store.partitions import uri_hashes

MOVED_ROWS = pa.schema(
    [("content_sha256", pa.binary(32)), ("uri", pa.string()), ("went", pa.bool_())]
)
RENAMES = pa.schema([("uri", pa.string()), ("previous", pa.string())])


def pair_renames(table: pa.Table) -> pa.Table:
    """Pair names that came with names that went (`MOVED_ROWS`, in any order), of equal content.

    In order of uri, each in one pair at most; who finds no partner is no rename but a copy, a new
    picture, or a removed one.

    Returns:
        `RENAMES`.
    """
    names = ("content_sha256", "went", "uri")
    table = table.sort_by([(name, "ascending") for name in names])
    rows = table.num_rows
    starts = np.ones(rows, dtype=np.bool_)
    if rows:
        column = table["content_sha256"]
        starts[1:] = pc.not_equal(column.slice(1), column.slice(0, rows - 1)).to_numpy()
    first = np.flatnonzero(starts)
    went = table["went"].to_numpy().astype(np.int64)
    sizes = np.diff(np.append(first, rows))
    gone = np.add.reduceat(went, first) if rows else went
    pairs = np.minimum(sizes - gone, gone)
    # the j-th that came lies at first + j, the j-th that went behind all that came
    inner = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs)
    came = np.repeat(first, pairs) + inner
    return pa.table(
        [
            table["uri"].take(pa.array(came)),
            table["uri"].take(pa.array(came + np.repeat(sizes - gone, pairs))),
        ],
        schema=RENAMES,
    )


@dataclass(frozen=True)
class Renames:
    """Pairs the names of one partition of contents."""

    of: Settling

    def take(self, number: int, pieces: list[Reference], store: Store) -> Mapping[str, Any]:
        """Count the renames; the record has `some` of them, by a hash of their names."""

        def work() -> Mapping[str, Any]:
            table = taken(store, pieces, MOVED_ROWS, MOVED)
            pairs = pair_renames(table)
            hashes = uri_hashes(pairs["uri"])
            few = pairs.take(pa.array(np.argsort(hashes, kind="stable")[:SAMPLES]))
            some = [[row["uri"], row["previous"]] for row in few.to_pylist()]
            return {"rows": table.num_rows, "renamed": pairs.num_rows, "some": some}

        return once(store, self.of.record(MOVED, number), work)
