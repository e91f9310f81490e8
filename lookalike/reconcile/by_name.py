"""A partition of names: what became of each, against the ledger rows that they take the place of.

Rows of names that came or went go on to be paired by content, and those to be copied, with their
metadata from the listing, to the files that they become.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.by_content import Copies
from lookalike.reconcile.concluding import RESOLVED, as_removed, conclude
from lookalike.reconcile.contents import SETTLED
from lookalike.reconcile.copying import COPY_ROW
from lookalike.reconcile.hashed import HashFilter, content_partitions
from lookalike.reconcile.renames import MOVED_ROWS
from lookalike.reconcile.settling import (
    COPIED,
    LISTED,
    MOVED,
    NAMES,
    Settling,
    write_numbers,
    write_rows,
)
from lookalike.store.attempts import once
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import FileRecord
from lookalike.store.ledger import Counts, tally, with_column
from lookalike.store.objects import Store
from lookalike.store.partitions import uri_hashes, uri_partitions

Record = Mapping[str, Any]


@dataclass(frozen=True)
class ByName:
    """Concludes partitions of names.

    Attributes:
        listing: Files of the whole listing, in order; of a name listed twice the first row counts.
    """

    of: Settling
    copies: Copies
    metadata: pa.Schema
    listing: tuple[str, ...]

    @property
    def tasks(self) -> int:
        """Units, partitions of contents, and parts of the listing, where any is looked for."""
        looks = self.copies.rows and len(self.metadata)
        return self.of.unit_tasks + self.of.contents + (len(self.listing) if looks else 0)

    def deal(self, number: int, store: Store) -> Record:
        """Rows that are on their way already, but for those of the listing."""
        content, part = number - self.of.unit_tasks, number - self.of.unit_tasks - self.of.contents
        if content < 0:
            return _recorded(store, self.of.record("dealt", number))
        if part < 0:
            return _recorded(store, self.of.record("dealt/contents", content))
        return once(store, self.of.record("dealt/listed", part), lambda: self._listed(part, store))

    def _listed(self, part: int, store: Store) -> Record:
        """The listing's rows of names whose rows are copied."""
        wanted = HashFilter(self.copies.rows)
        for number in range(self.of.contents):
            file = _recorded(store, self.of.record("dealt/contents", number)).get("wanted")
            if file is not None:
                wanted.add(np.load(store.local(FileRecord(**file))))
        columns = ["uri", *self.metadata.names]
        name, source = self.of.scratch("dealt/listed", part), store.once(self.listing[part])
        with Dealing(store, name, self.of.parts) as dealing, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(columns=columns):
                table = pa.Table.from_batches([batch])
                table = table.filter(pa.array(wanted.among(uri_hashes(table["uri"]))))
                dealing.write(table, uri_partitions(table["uri"], self.of.parts), LISTED)
        return dealing.record()

    def take(self, number: int, pieces: list[Reference], store: Store) -> Record:
        """Write `RESOLVED` rows of one partition; the record has their sums."""
        return once(
            store, self.of.record("dealt/names", number), lambda: self._take(number, pieces, store)
        )

    def _take(self, number: int, pieces: list[Reference], store: Store) -> Record:
        rows = taken(store, pieces, SETTLED, NAMES)
        rows = with_column(rows, "id", self.copies.placed(rows["id"]))
        self.of.check_ids(store, rows["id"], self.copies.shards)
        gone, kept = self.of.gone(store, number), self.of.kept(store, number)
        # those that gave way and stand all the same, as their files could not be read
        back = kept["uri"]
        carried = pc.not_equal(rows["was"], "")
        rows = rows.filter(pc.or_(carried, pc.invert(pc.is_in(rows["uri"], value_set=back))))
        gone = gone.filter(pc.invert(pc.is_in(gone["uri"], value_set=back)))
        kept = kept.filter(pc.invert(pc.is_in(back, value_set=rows["uri"])))  # as they were
        found = conclude(rows, gone)
        deleted = np.empty(0, dtype=np.int64)
        if not self.of.by_content:
            old = gone["id"].drop_null().to_numpy()
            deleted = old[~np.isin(old, rows["id"].drop_null().to_numpy())]
        table = pa.concat_tables([found.rows, as_removed(found.removed)])
        counts = Counts()
        counts.add_rows(table)
        # those carried on were counted with the others that are, as what they were
        counts.by_status.subtract(tally(rows["was"].filter(pc.not_equal(rows["was"], ""))))
        stand = kept.append_column("change", pa.repeat("", kept.num_rows))
        name = self.of.scratch("dealt/names", number)
        most = max(self.of.contents, self.copies.shards)
        with Dealing(store, name, most) as dealing:
            if self.of.by_content:
                came = found.rows.filter(pc.equal(found.rows["change"], "added"))
                self._move(dealing, came, went=False)
                self._move(dealing, found.removed, went=True)
            self._copy(dealing, rows, pieces, store)
        written = pa.concat_tables([table, stand.cast(table.schema)]).cast(RESOLVED)
        return {
            **dealing.record(),
            "rows": sum(piece.rows for piece in set(pieces)),
            "file": write_rows(store, self.of.scratch("rows", number, ".parquet"), written),
            "counts": counts.to_json(),
            "changes": tally(table["change"]),
            "rehashed": found.rehashed,
            "altered": found.altered + gone["was_unknown"].drop_null().length(),
            "dead": write_numbers(store, self.of.scratch("dead/names", number, ".npy"), deleted),
        }

    def _move(self, dealing: Dealing, table: pa.Table, went: bool) -> None:
        """Names that came or went, to be paired."""
        table = table.filter(table["id"].is_valid())
        which = content_partitions(table["content_sha256"], self.of.contents)
        table = table.append_column("went", pa.repeat(went, table.num_rows))
        dealing.write(table.select(MOVED_ROWS.names).cast(MOVED_ROWS), which, MOVED)

    def _copy(
        self, dealing: Dealing, rows: pa.Table, pieces: list[Reference], store: Store
    ) -> None:
        """Rows to be copied, with metadata, by the shard that they go to."""
        copies = rows.filter(rows["source"].is_valid()).select(["id", "source", "uri"])
        copies = copies.rename_columns(COPY_ROW.names)
        if len(self.metadata) and copies.num_rows:
            schema = pa.schema([("uri", pa.string()), *self.metadata])
            listed = taken(store, pieces, schema, LISTED)
            place = pc.index_in(copies["uri"], value_set=listed["uri"])
            if place.null_count:
                uri = copies["uri"].filter(place.is_null())[0].as_py()
                raise RuntimeError(f"{uri}: it is to be stored anew, but it is not in the listing")
            for field in self.metadata:
                copies = copies.append_column(field, listed[field.name].take(place))
        dealing.write(copies, (copies["id"].to_numpy() >> 32) - self.copies.first, COPIED)


def _recorded(store: Store, path: str) -> Record:
    """A record of rows on their way; without any, where a partition had no task."""
    found = store.read(path)
    record: Record = {"pieces": []} if found is None else json.loads(found.data)
    return record
