"""What a run settles, as each of its tasks knows it, and where the tasks' files lie.

    FOLDER/dealt/NNNNNN.json           of a task: some units, gone or carried rows of a partition
    FOLDER/dealt/contents/NNNNNN.json  of a partition of contents
    FOLDER/dealt/names/NNNNNN.json     of a partition of names
    FOLDER/dealt/listed/NNNNNN.json    of a part of the listing

All of them name a file of rows on their way (see `store.exchange`), by sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.reconcile.compared import files_of
from lookalike.reconcile.one_partition import GONE
from lookalike.sources.listing import write_table
from lookalike.store.attempts import Record
from lookalike.store.files import FileRecord, HashedName
from lookalike.store.ledger import SCHEMA, as_written_now
from lookalike.store.manifest import FileJson
from lookalike.store.objects import Store
from lookalike.store.shard_format import file_numbers, make_id

# what rows on their way are: by names, by contents, or by files of copies
UNREAD, TOUCHED, CONTENTS, NAMES = "unread", "touched", "contents", "names"
LISTED, MOVED, COPIED = "listed", "moved", "copied"
_BATCH = 1 << 16


@dataclass(frozen=True)
class Settling:
    """What a run settles; all paths are relative to the store.

    Attributes:
        compared: Folder of the comparison.
        folder: To write to, of the run's scratch.
        embedded: Folder of the records of units, NNNNNN.json each.
        at_once: Units of one task.
        first_file_no: File number of unit 0; the others follow.
        by_content: Whether names of equal content share a vector; else every name stands alone.
        touched: Rows of the units, and ledger rows that do not stand.
        parts: Partitions of names, a power of two.
        contents: Partitions of contents, a power of two.
        goes_on: Whether there is a ledger that it goes on from.
        unread: Whether the units say of any file that it could not be read.
    """

    compared: str
    folder: str
    embedded: str
    units: int
    at_once: int
    first_file_no: int
    by_content: bool
    touched: int
    parts: int
    contents: int
    goes_on: bool
    unread: bool

    @property
    def unit_tasks(self) -> int:
        """Tasks with units: the first ones; then come those with gone, then with carried rows."""
        return max(1, -(-self.units // self.at_once))

    @property
    def dealt(self) -> str:
        """Folder of all records of tasks, and of partitions whose rows go on from there."""
        return f"{self.folder}/dealt"

    def record(self, kind: str, number: int) -> str:
        """Path of the record of a partition, or part."""
        return f"{self.folder}/{kind}/{number:06d}.json"

    def scratch(self, kind: str, number: int, suffix: str = ".arrow") -> HashedName:
        """A file that such a record names."""
        return HashedName(f"{self.folder}/{kind}/{number:06d}", suffix)

    def deal_named(self, number: int, store: Store) -> Record:
        """Rows that are on their way already, from a partition of names."""
        found: Record = store.read_json(self.record("dealt/names", number))
        return found

    @property
    def first_copy(self) -> int:
        """File number of the first shard of copies; they follow those of the units."""
        return self.first_file_no + self.units

    @property
    def first_new(self) -> int:
        """The smallest id that this run may have made."""
        return make_id(self.first_file_no, 0) if self.units else 2**63 - 1

    @property
    def filter(self) -> str:
        """The file of `TOUCHED`: which contents carried rows must share to take part."""
        return f"{self.folder}/touched.bits"

    @property
    def shards(self) -> str:
        """The file of paths of embedding shards, by file number."""
        return f"{self.folder}/shards.json"

    def gone(self, store: Store, number: int) -> pa.Table:
        """Ledger rows of a partition of names that do not stand (`one_partition.GONE`)."""
        files = files_of(store, self.compared, "gone", number)
        tables = [pq.read_table(store.local(path)).cast(GONE) for path in files]
        return pa.concat_tables([GONE.empty_table(), *tables])

    def kept(self, store: Store, number: int) -> pa.Table:
        """Rows of `gone` that stand all the same, as unknown (see `unread`)."""
        found = store.read(self.record(UNREAD, number)) if self.unread else None
        return read_rows(store, json.loads(found.data)["kept"] if found else None, SCHEMA)

    def check_ids(self, store: Store, ids: pa.ChunkedArray, copies: int = 0) -> None:
        """Make sure that ids lead to shards: those there are, of the units, or so many of copies.

        Raises:
            RuntimeError: One does not.
        """
        numbers = np.unique(file_numbers(ids.drop_null().to_numpy()))
        made = (numbers >= self.first_file_no) & (numbers < self.first_copy + copies)
        there = np.array([int(number) for number in store.read_json(self.shards)], dtype=np.int64)
        missing = numbers[~made & ~np.isin(numbers, there)]
        if len(missing):
            raise RuntimeError(
                f"ids lead to embedding shard {missing[0]}, which is not there; nothing was "
                "published"
            )


@dataclass(frozen=True)
class Resolved:
    """What a run comes to.

    Attributes:
        counts: Of the final ledger, as `Counts.to_json` gives them.
        changes: previous, unchanged, changed, removed, unknown, added, renamed, rehashed files.
        copies: Rows to be written with a copied vector.
        deleted: Ids that are deleted from now on.
        altered: Rows that differ from the last ledger's in more than embedded or unchanged.
        unread: Files listed that could not be read, and are unknown.
        copy_shards: Shards that those copies become.
    """

    counts: Mapping[str, Any]
    changes: Mapping[str, int]
    copies: int
    deleted: int
    altered: int
    parts: int
    unread: int = 0
    copy_shards: int = 0

    @property
    def nothing_happened(self) -> bool:
        """Whether the last ledger says the same."""
        return not (self.altered or self.changes["removed"] or self.changes["added"])


def ledger_rows(store: Store, file: str | FileRecord) -> Iterator[pa.Table]:
    """Ledger rows of a file, some ten thousand at a time."""
    with pq.ParquetFile(store.once(file)) as opened:
        for batch in opened.iter_batches(_BATCH):
            yield as_written_now(pa.Table.from_batches([batch]))


def write_rows(store: Store, name: HashedName, table: pa.Table) -> FileJson | None:
    """Write rows to a file of scratch; its record, None where there are none."""
    return write_table(store, name, table) if table.num_rows else None


def read_rows(store: Store, file: FileJson | None, schema: pa.Schema) -> pa.Table:
    """Undo `write_rows`."""
    if file is None:
        return schema.empty_table()
    return pq.read_table(store.once(FileRecord(**file))).select(schema.names).cast(schema)


def write_numbers(
    store: Store, name: HashedName, numbers: npt.NDArray[np.integer]
) -> FileJson | None:
    """Write numbers (n,) to a file of scratch; its record, None where there are none."""
    if not len(numbers):
        return None
    with store.write(name) as pending:
        np.lib.format.write_array(pending.file, numbers, version=(1, 0), allow_pickle=False)
    return pending.finished.to_json()
