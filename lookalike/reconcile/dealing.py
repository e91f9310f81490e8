"""What the tasks of a settling deal out: rows of units, rows that do not stand, and those that do.

units   -> by content, with id; by name, without; by name, what could not be read
gone    -> by content
carried -> by content, those that share one with a row of the units or a gone one; all counted
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.reconcile.contents import CARRIED, GONE, ROWS, SETTLED, UNIT
from lookalike.reconcile.hashed import HashFilter, content_hashes, content_partitions
from lookalike.reconcile.hidden import UNREADABLE
from lookalike.reconcile.settling import (
    CONTENTS,
    NAMES,
    TOUCHED,
    UNREAD,
    Settling,
    ledger_rows,
)
from lookalike.reconcile.standing import standing
from lookalike.store.attempts import once
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import FileRecord
from lookalike.store.ledger import Counts, as_written_now
from lookalike.store.objects import Store
from lookalike.store.partitions import uri_partitions

UNREAD_ROWS = pa.schema([("uri", pa.string()), ("detail", pa.string())])
_HASHES = pa.schema([("hash", pa.uint32())])
_SEEN = ("status", "reason", "content_sha256", "id")  # of a carried row, to see whether it matters

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Dealer:
    """Deals rows out by the number of the task: some units, or one partition of names."""

    of: Settling

    @property
    def tasks(self) -> int:
        """All of them."""
        return self.of.unit_tasks + 2 * self.of.parts

    @property
    def touching(self) -> int:
        """Those whose rows decide which carried ones take part: the first."""
        return self.of.unit_tasks + self.of.parts

    def deal(self, number: int, store: Store) -> Record:
        """Deal out the rows of one task, once; the record of carried rows has their `counts`."""
        partition = number - self.of.unit_tasks

        def work() -> Record:
            more: Record = {}
            count = max(self.of.parts, self.of.contents)
            with Dealing(store, self.of.scratch("dealt", number), count) as dealing:
                if partition < 0:
                    self._units(number, dealing, store)
                elif partition < self.of.parts:
                    self._gone(partition, dealing, store)
                else:
                    more = self._carried(partition - self.of.parts, dealing, store)
            return {**dealing.record(), **more}

        return once(store, self.of.record("dealt", number), work)

    def _units(self, number: int, dealing: Dealing, store: Store) -> None:
        first = number * self.of.at_once
        for unit in range(first, min(self.of.units, first + self.of.at_once)):
            record = store.read_json(f"{self.of.embedded}/{unit:06d}.json")
            for table in ledger_rows(store, FileRecord(**record["ledger"])):
                shares = table["id"].is_valid().to_numpy() & self.of.by_content
                self._by_content(dealing, table.filter(pa.array(shares)), UNIT)
                self._by_name(dealing, table.filter(pa.array(~shares)))

    def _by_name(self, dealing: Dealing, table: pa.Table) -> None:
        """Rows that share a vector with no other."""
        which = uri_partitions(table["uri"], self.of.parts)
        if self.of.unread:
            unread = pc.and_(
                pc.equal(table["status"], "rejected"), pc.equal(table["reason"], UNREADABLE)
            )
            unread = pc.and_(unread, table["content_sha256"].is_null())
            some = table.select(UNREAD_ROWS.names).filter(unread).cast(UNREAD_ROWS)
            dealing.write(some, which[unread.to_numpy()], UNREAD)
        table = table.append_column("was", pa.repeat("", table.num_rows))
        table = table.append_column("source", pa.nulls(table.num_rows, pa.int64()))
        dealing.write(table.cast(SETTLED), which, NAMES)

    def _gone(self, partition: int, dealing: Dealing, store: Store) -> None:
        if not self.of.by_content:
            return
        table, kept = self.of.gone(store, partition), self.of.kept(store, partition)["uri"]
        goes = pc.and_(table["id"].is_valid(), pc.invert(pc.is_in(table["uri"], value_set=kept)))
        self._by_content(dealing, table.filter(goes), GONE)

    def _by_content(self, dealing: Dealing, table: pa.Table, origin: int) -> None:
        if not table.num_rows:
            return
        which = content_partitions(table["content_sha256"], self.of.contents)
        if self.of.goes_on and origin != CARRIED:
            hashes = pa.table([content_hashes(table["content_sha256"])], schema=_HASHES)
            dealing.write(hashes, which, TOUCHED)
        origins = pa.repeat(pa.scalar(origin, pa.int8()), table.num_rows)
        table = as_written_now(table).append_column("origin", origins)
        dealing.write(table.cast(ROWS), which, CONTENTS)

    def _carried(self, partition: int, dealing: Dealing, store: Store) -> Record:
        counts = Counts()
        touched = read_filter(store, self.of) if self.of.by_content and self.of.goes_on else None

        def deal(seen: pa.Table, rows: Any) -> None:
            counts.add_rows(seen)
            if touched is not None:
                shares = seen["id"].is_valid().to_numpy()
                contents = seen["content_sha256"].filter(pa.array(shares))
                shares[shares] = touched.among(content_hashes(contents))
                if shares.any():
                    self._by_content(dealing, rows().filter(pa.array(shares)), CARRIED)

        for group in standing(store, self.of.compared, partition):
            deal(group.read(_SEEN), group.read)
        kept = self.of.kept(store, partition)
        deal(kept, lambda: kept)
        return {"counts": counts.to_json()}


@dataclass(frozen=True)
class Touched:
    """Makes of hashes of contents the part of the filter that they fall to."""

    of: Settling

    def take(self, number: int, pieces: list[Reference], store: Store) -> Record:
        """Write the part of one partition of contents."""

        def work() -> Record:
            found = HashFilter(self.of.touched)
            hashes = taken(store, pieces, _HASHES, TOUCHED)["hash"].to_numpy()
            found.add(hashes)
            name = self.of.scratch(TOUCHED, number, ".bits")
            file = store.put(name, found.part(number, self.of.contents).tobytes())
            return {"rows": len(hashes), "filter": file.to_json()}

        return once(store, self.of.record(TOUCHED, number), work)


def write_filter(store: Store, of: Settling, parts: Mapping[int, Record]) -> None:
    """Write the filter that carried rows pass, out of its parts: 64 MiB at most."""
    whole = HashFilter(of.touched)
    for number, record in parts.items():
        data = store.read_bytes(record["filter"]["path"])
        whole.part(number, of.contents)[:] = np.frombuffer(data, dtype=np.uint8)
    store.put(of.filter, whole.data.tobytes())


def read_filter(store: Store, of: Settling) -> HashFilter:
    """What `write_filter` wrote; processes of a machine share its memory."""
    return HashFilter(data=np.memmap(store.local(of.filter), dtype=np.uint8, mode="r"))
