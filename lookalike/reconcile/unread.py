"""Files that were to be read again and could not be: what is known of them stays, as unknown.

Whether a file can be read shows in its unit alone, when the comparison has long been made. Its row
of the last ledger, which had to give way, is taken back then.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.compared import files_of
from lookalike.reconcile.hidden import PLACE, UNREADABLE
from lookalike.reconcile.one_partition import GONE, said_of
from lookalike.store.files import remove_tree
from lookalike.store.ledger import SCHEMA, ledger_tables
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill, uri_partitions

_UNREAD = pa.schema([("uri", pa.string()), ("detail", pa.string())])


class Unread:
    """What stands of such files, by partition of names.

    Attributes:
        rows: How many they are.
        altered: Those that the last ledger did not have as unknown for the same reason.
    """

    def __init__(self, store: Store, compared: str, folder: str, parts: int) -> None:
        """Nothing is known before `find`.

        Args:
            store: The store's root.
            compared: Folder of the comparison, relative to it.
            folder: To write to, likewise.
            parts: Partitions of names.
        """
        self._store, self._compared, self._folder, self._parts = store, compared, folder, parts
        self.rows = self.altered = 0
        self.paths: list[str] = []

    def find(self, ledgers: Sequence[str]) -> None:
        """Look through the rows of all units."""
        spill = Spill(self._store.scratch(f"{self._folder}/spilled"), self._parts, _UNREAD)
        found = False
        with spill:
            for path in ledgers:
                for table in ledger_tables(self._store.local(path), "rejected"):
                    unread = pc.and_(
                        pc.equal(table["reason"], UNREADABLE), table["content_sha256"].is_null()
                    )
                    table = table.filter(unread).select(_UNREAD.names)
                    spill.write(table, uri_partitions(table["uri"], self._parts))
                    found |= bool(table.num_rows)
        for number in range(self._parts if found else 0):
            self._keep(number, spill.read(number))
        remove_tree(spill.folder)

    def kept(self, name: str) -> pa.Table:
        """Ledger rows that stand, of a partition's file."""
        path = f"{self._folder}/{name}"
        if not self._store.has(path):
            return SCHEMA.empty_table()
        return pq.read_table(self._store.local(path)).cast(SCHEMA)

    def _compared_rows(self, kind: str, number: int, schema: pa.Schema) -> pa.Table:
        paths = files_of(self._store, self._compared, kind, number)
        tables = (pq.read_table(self._store.local(path), columns=schema.names) for path in paths)
        return pa.concat_tables([schema.empty_table(), *(one.cast(schema) for one in tables)])

    def _keep(self, number: int, unread: pa.Table) -> None:
        if not unread.num_rows:
            return
        name, table = f"{number:05d}.parquet", self._compared_rows("gone", number, GONE)
        # what the scan itself said of a file is no matter of tonight: that it is not there, or none
        listed = self._compared_rows("candidates", number, PLACE)
        sure = listed.filter(pc.not_equal(listed["problem"], ""))["uri"]
        unread = unread.filter(pc.invert(pc.is_in(unread["uri"], value_set=sure)))
        never = pc.and_(
            pc.equal(table["status"], "rejected"), pc.equal(table["reason"], UNREADABLE)
        )
        table = table.filter(
            pc.and_(pc.is_in(table["uri"], value_set=unread["uri"]), pc.invert(never))
        )
        if not table.num_rows:
            return
        details = unread["detail"].take(pc.index_in(table["uri"], value_set=unread["uri"]))
        why = [(UNREADABLE, detail) for detail in details.to_pylist()]
        before = table["was_unknown"].to_pylist()
        self.rows += table.num_rows
        self.altered += sum(
            said != ": ".join(words) for said, words in zip(before, why, strict=True)
        )
        relative = f"{self._folder}/{name}"
        with self._store.write(relative) as pending:
            rows = said_of(table.select(SCHEMA.names).cast(SCHEMA), why)
            pq.write_table(rows, pending.file, compression="zstd")
        self.paths.append(relative)
