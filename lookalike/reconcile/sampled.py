"""A few ledger rows of each kind of change, to be shown."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.store.ledger import SCHEMA
from lookalike.store.partitions import uri_hashes

SAMPLES = 12  # of each kind, in the report


class Sampled:
    """Up to `k` ledger rows of each kind of change, those with the least hashes of their names."""

    def __init__(self, k: int) -> None:
        """Nothing yet."""
        self._k = k
        self.found: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}

    def offer(self, table: pa.Table, renamed: Mapping[str, str]) -> None:
        """Choose among rows with a column `change`; and of any, among the rejected ones."""
        if "change" in table.column_names:
            rows = table.select(SCHEMA.names)
            for change in ("added", "changed", "removed"):
                self._offer(change, rows.filter(pc.equal(table["change"], change)))
            place = pc.index_in(rows["uri"], value_set=pa.array([*renamed], pa.string()))
            before = pa.array([*renamed.values()], pa.string()).take(place)
            self._offer("renamed", rows.append_column("previous", before).filter(place.is_valid()))
        rejected = table.filter(pc.equal(table["status"], "rejected")).select(SCHEMA.names)
        for reason in pc.unique(rejected["reason"]).to_pylist():
            self._offer(f"rejected:{reason}", rejected.filter(pc.equal(rejected["reason"], reason)))

    def _offer(self, kind: str, table: pa.Table) -> None:
        hashes = uri_hashes(table["uri"])
        few = np.argsort(hashes, kind="stable")[: self._k]
        rows = table.take(pa.array(few)).to_pylist()
        chosen = zip(hashes[few].tolist(), rows, strict=True)
        self._add(kind, ((hashed, row["uri"], row) for hashed, row in chosen))

    def _add(self, kind: str, rows: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        best = heapq.nsmallest(self._k, [*self.found.get(kind, ()), *rows], key=lambda one: one[:2])
        if best:
            self.found[kind] = best

    def to_json(self) -> dict[str, Any]:
        """As a record has them."""

        def told(row: dict[str, Any]) -> dict[str, Any]:
            content = row["content_sha256"]
            return {**row, "content_sha256": None if content is None else content.hex()}

        return {
            kind: [[hashed, uri, told(row)] for hashed, uri, row in rows]
            for kind, rows in self.found.items()
        }

    def merge(self, other: Mapping[str, Any]) -> None:
        """Choose among those of another, as `to_json` gave them, too."""
        for kind, rows in other.items():
            for _, _, row in rows:
                content = row["content_sha256"]
                row["content_sha256"] = None if content is None else bytes.fromhex(content)
            self._add(kind, ((hashed, uri, row) for hashed, uri, row in rows))
