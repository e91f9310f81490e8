r"""Ledger rows that stand after a comparison, read where they lie.

Nearly all rows of a ledger stand, every night. So they are not written again: where files of the
parent's ledger make up a partition of names, its record names them (`stands`), and whoever reads
them leaves out the names of which the comparison's own files tell.

    files of the parent's ledger, less names in gone and carried \
                                                                  -> rows that stand
    carried                                                      /
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.compared import files_of, stands_of
from lookalike.store.files import FileRecord
from lookalike.store.ledger import SCHEMA, as_known, as_unchanged, as_written_now
from lookalike.store.manifest import FileLine
from lookalike.store.objects import Store

_LASTING = frozenset({"unchanged", "duplicate", "rejected", "ignored"})
"""Statuses of which a row that stands says the same the next time."""
_DECIDING = ("uri", "status", "reason", "detail", "known_status", "known_reason", "known_detail")
"""What tells whether a row stands, and as what."""


@dataclass(frozen=True)
class Group:
    """A row group of a file that is open: rows that stand.

    Attributes:
        others: Names (n,) whose rows are not meant; None for a file of the comparison, all of whose
            rows stand as they are.
    """

    file: pq.ParquetFile
    number: int
    others: pa.ChunkedArray | None

    def read(self, names: Sequence[str] = SCHEMA.names) -> pa.Table:
        """Some columns of the rows as they are from now on; those once embedded are unchanged."""
        if self.others is None:
            return self.file.read_row_group(self.number, columns=[*names])
        wanted = [name for name in SCHEMA.names if name in {*names, *_DECIDING}]
        there = set(self.file.schema_arrow.names)
        columns = [name for name in wanted if name in there]
        table = as_written_now(self.file.read_row_group(self.number, columns=columns), wanted)
        stands = pc.not_equal(table["status"], "removed")
        if len(self.others):
            stands = pc.and_(stands, pc.invert(pc.is_in(table["uri"], value_set=self.others)))
        if not pc.all(stands).as_py():
            table = table.filter(stands)
        return as_unchanged(as_known(table)).select(names)


def standing(store: Store, compared: str, number: int) -> Iterator[Group]:
    """The rows of a partition of names that stand."""
    lines = stands_of(store, compared, number)
    others = _told(store, compared, number) if lines else None
    files: list[tuple[str | FileRecord, pa.ChunkedArray | None]] = [
        *((path, None) for path in files_of(store, compared, "carried", number)),
        *((_record(line), others) for line in lines),
    ]
    for path, left_out in files:
        with pq.ParquetFile(store.local(path)) as file:
            for group in range(file.num_row_groups):
                yield Group(file, group, left_out)


def file_that_stands(store: Store, compared: str, number: int, parts: int) -> FileLine | None:
    """The file of the parent's ledger that is a partition's as it is; None where there is none.

    It has all rows that stand and no others, and none that says something else from now on.
    """
    lines = stands_of(store, compared, number)
    if len(lines) != 1 or [*lines[0]["partition"]] != [number, parts]:
        return None
    if any(files_of(store, compared, kind, number) for kind in ("carried", "candidates", "gone")):
        return None
    with pq.ParquetFile(store.local(_record(lines[0]))) as file:
        if not file.schema_arrow.equals(SCHEMA, check_metadata=True):
            return None  # of an earlier version
        statuses = pc.unique(file.read(columns=["status"])["status"]).to_pylist()
    return lines[0] if _LASTING.issuperset(statuses) else None


def _record(line: FileLine) -> FileRecord:
    return FileRecord(line["path"], line["sha256"], line["bytes"])


def _told(store: Store, compared: str, number: int) -> pa.ChunkedArray:
    """Names of a partition of which files of the comparison tell."""
    paths = (
        *files_of(store, compared, "gone", number),
        *files_of(store, compared, "carried", number),
    )
    tables = [pq.read_table(store.local(path), columns=["uri"]) for path in paths]
    return pa.chunked_array([one for table in tables for one in table["uri"].chunks], pa.string())
