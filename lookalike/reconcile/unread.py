"""Files that were to be read again and could not be: what is known of them stays, as unknown.

Whether a file can be read shows in its unit alone, when the comparison has long been made. Its row
of the last ledger, which had to give way, is taken back then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.compared import files_of
from lookalike.reconcile.dealing import UNREAD_ROWS
from lookalike.reconcile.hidden import PLACE, UNREADABLE
from lookalike.reconcile.one_partition import said_of
from lookalike.reconcile.settling import UNREAD, Settling, write_rows
from lookalike.store.attempts import once
from lookalike.store.exchange import Reference, taken
from lookalike.store.ledger import SCHEMA
from lookalike.store.objects import Store


@dataclass(frozen=True)
class Unread:
    """Takes back the rows of one partition of names."""

    of: Settling

    def take(self, number: int, pieces: list[Reference], store: Store) -> Mapping[str, Any]:
        """Write the ledger rows that stand.

        The record has, beside their file (`kept`), how many they are and how many of them the last
        ledger did not have as unknown for the same reason (`altered`).
        """

        def work() -> Mapping[str, Any]:
            unread = taken(store, pieces, UNREAD_ROWS, UNREAD)
            rows, altered = self._kept(store, number, unread)
            file = write_rows(store, self.of.scratch(UNREAD, number, ".parquet"), rows)
            return {
                "rows": unread.num_rows,
                "kept": file,
                "count": rows.num_rows,
                "altered": altered,
            }

        return once(store, self.of.record(UNREAD, number), work)

    def _kept(self, store: Store, number: int, unread: pa.Table) -> tuple[pa.Table, int]:
        table = self.of.gone(store, number)
        if not table.num_rows:
            return SCHEMA.empty_table(), 0
        # what the scan itself said of a file is no matter of tonight: that it is not there, or none
        files = files_of(store, self.of.compared, "candidates", number)
        tables = (pq.read_table(store.once(path), columns=PLACE.names) for path in files)
        listed = pa.concat_tables([PLACE.empty_table(), *(one.cast(PLACE) for one in tables)])
        sure = listed.filter(pc.not_equal(listed["problem"], ""))["uri"]
        unread = unread.filter(pc.invert(pc.is_in(unread["uri"], value_set=sure)))
        never = pc.and_(
            pc.equal(table["status"], "rejected"), pc.equal(table["reason"], UNREADABLE)
        )
        table = table.filter(
            pc.and_(pc.is_in(table["uri"], value_set=unread["uri"]), pc.invert(never))
        )
        details = unread["detail"].take(pc.index_in(table["uri"], value_set=unread["uri"]))
        why = [(UNREADABLE, detail) for detail in details.to_pylist()]
        before = table["was_unknown"].to_pylist()
        altered = sum(said != ": ".join(words) for said, words in zip(before, why, strict=True))
        return said_of(table.select(SCHEMA.names).cast(SCHEMA), why), altered
