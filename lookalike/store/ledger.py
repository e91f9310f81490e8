"""The ledger: one row per source file, and the sums that must balance in every snapshot."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.store.files import FileRecord, Name
from lookalike.store.objects import Store

LISTED = ("embedded", "unchanged", "duplicate", "rejected", "ignored")
"""What becomes of files that the scan listed."""
UNKNOWN = "unknown"
"""Of files that were known, and of which nobody can tell today: they stay as they were."""
STATUSES = (*LISTED, "removed", UNKNOWN)
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),  # of a fixed list, "" where a vector is (see rejections)
        ("detail", pa.string()),  # in the decoder's own words
        ("bytes", pa.int64()),  # as listed, -1 where unknown
        ("version", pa.string()),
        ("content_sha256", pa.binary(32)),
        ("id", pa.int64()),  # of the row that holds the vector; null without one
        ("metadata_hash", pa.int64()),  # of the metadata columns, 0 without any
        # what a row of status unknown says once the file is found as it was; null in all others
        ("known_status", pa.string()),
        ("known_reason", pa.string()),
        ("known_detail", pa.string()),
    ],
    {"lookalike.schema_version": "3"},
)
_KNOWN = ("status", "reason", "detail")
# A sixth smaller so than by Arrow's own choice, a dictionary of every column.
_REPEATED = [*_KNOWN, *(f"known_{name}" for name in _KNOWN)]
_SORTED = {"uri": "DELTA_BYTE_ARRAY", "version": "DELTA_BYTE_ARRAY"}
_BATCH = 8192

Digest = bytes  # the name `bytes` is a field below


@dataclass(frozen=True)
class LedgerRow:
    """What became of one listed file."""

    uri: str
    status: str
    reason: str = ""
    detail: str = ""
    bytes: int = -1
    version: str = ""
    content_sha256: Digest | None = None
    id: int | None = None
    metadata_hash: int = 0
    known_status: str | None = None
    known_reason: str | None = None
    known_detail: str | None = None


def metadata_hash(metadata: Mapping[str, object]) -> int:
    """A number that changes with what is in the metadata columns; 0 where all are empty."""
    given = sorted((name, repr(value)) for name, value in metadata.items() if value is not None)
    if not given:
        return 0
    digest = hashlib.blake2b(repr(given).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


@dataclass
class Counts:
    """Totals by status, and of the rejected by reason; they add up over units."""

    by_status: Counter[str] = field(default_factory=Counter)
    by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, row: LedgerRow) -> None:
        """Count one row.

        Raises:
            ValueError: Its status is none.
        """
        if row.status not in STATUSES:
            raise ValueError(f"{row.uri}: a status is {', '.join(STATUSES)}, got {row.status!r}")
        self.by_status[row.status] += 1
        if row.status == "rejected":
            self.by_reason[row.reason] += 1

    def add_rows(self, table: pa.Table) -> None:
        """Count rows of a ledger."""
        self.by_status.update(tally(table["status"]))
        rejected = table.filter(pc.equal(table["status"], "rejected"))
        self.by_reason.update(tally(rejected["reason"]))

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add the counts of another part, as `to_json` gave them."""
        self.by_status.update({name: other.get(name, 0) for name in STATUSES})
        self.by_reason.update(other["rejected_by_reason"])

    @classmethod
    def of(cls, counted: Mapping[str, Any]) -> Counts:
        """Undo `to_json`."""
        counts = cls()
        counts.merge(counted)
        return counts

    @property
    def with_vector(self) -> int:
        """Files that a vector stands for, or did when they could be reached."""
        return sum(self.by_status[name] for name in ("embedded", "unchanged", UNKNOWN))

    @property
    def listed(self) -> int:
        """Files that the scan listed; removed and unknown ones are known from before alone."""
        return sum(self.by_status[name] for name in LISTED)

    @property
    def living(self) -> int:
        """Files that the next run finds in the ledger."""
        return self.listed + self.by_status[UNKNOWN]

    @property
    def rejected_share(self) -> float:
        """Rejected among the files that are images or claim to be."""
        images = self.listed - self.by_status["ignored"]
        return self.by_status["rejected"] / images if images else 0.0

    def to_json(self) -> Mapping[str, Any]:
        """All statuses, zero or not, with the sum and the reasons."""
        return {
            "listed": self.listed,
            **{name: self.by_status[name] for name in STATUSES},
            "rejected_by_reason": dict(sorted(self.by_reason.items())),
        }


def tally(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs."""
    found = pc.value_counts(column)
    return dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True))


def check_balance(listed: int, counts: Counts) -> None:
    """Every listed file has exactly one row.

    Raises:
        RuntimeError: It has not; the run must not publish.
    """
    if counts.listed != listed:
        parts = ", ".join(f"{name} {counts.by_status[name]}" for name in LISTED)
        raise RuntimeError(
            f"the ledger does not balance: {listed} files listed, {counts.listed} in the ledger "
            f"({parts}); nothing was published"
        )


def write_ledger(store: Store, name: Name, rows: Iterable[LedgerRow]) -> tuple[FileRecord, int]:
    """Write ledger rows as they come; returns the file's record and the number of rows."""
    return write_ledger_tables(store, name, _tables(rows))


def write_ledger_tables(
    store: Store, name: Name, tables: Iterable[pa.Table]
) -> tuple[FileRecord, int]:
    """The same of rows that are tables of `SCHEMA` already, each written as it comes."""
    written = 0
    with (
        store.write(name) as pending,
        pq.ParquetWriter(
            pending.file,
            SCHEMA,
            compression="zstd",
            use_dictionary=_REPEATED,
            column_encoding=_SORTED,
            write_statistics=["uri"],
        ) as writer,
    ):
        for table in tables:
            writer.write_table(table)
            written += table.num_rows
    return pending.finished, written


def _tables(rows: Iterable[LedgerRow]) -> Iterator[pa.Table]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row.__dict__)
        if len(batch) == _BATCH:
            yield pa.Table.from_pylist(batch, SCHEMA)
            batch = []
    yield pa.Table.from_pylist(batch, SCHEMA)


def ledger_tables(path: Path | BinaryIO, status: str = "") -> Iterator[pa.Table]:
    """Rows of one ledger file, or those of one status, as tables of some thousand rows."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            table = as_written_now(pa.Table.from_batches([batch]))
            yield table.filter(pc.equal(table["status"], status)) if status else table


def as_written_now(table: pa.Table, names: Sequence[str] = SCHEMA.names) -> pa.Table:
    """Rows of a ledger of any version in today's schema, or some of its columns.

    The first had no `metadata_hash`, the second nothing of files that could not be reached.
    """
    if "metadata_hash" not in table.column_names:
        zeros = pa.array(np.zeros(table.num_rows, dtype=np.int64))
        table = table.append_column("metadata_hash", zeros)
    for name in _KNOWN:
        if f"known_{name}" not in table.column_names:
            table = table.append_column(f"known_{name}", pa.nulls(table.num_rows, pa.string()))
    schema = pa.schema([SCHEMA.field(name) for name in names], SCHEMA.metadata)
    return table.select(schema.names).cast(schema)


def is_unknown(table: pa.Table) -> pa.ChunkedArray:
    """Which rows are of files that could not be reached: (n,) bool."""
    return pc.equal(table["status"], UNKNOWN)


def as_known(table: pa.Table) -> pa.Table:
    """The rows as they were before their files could not be reached."""
    unknown = is_unknown(table)
    if not pc.any(unknown).as_py():
        return table
    for name in _KNOWN:
        known = table[f"known_{name}"]
        table = with_column(table, name, pc.if_else(unknown, known, table[name]))
        table = with_column(table, f"known_{name}", pc.if_else(unknown, None, known))
    return table


def as_unchanged(table: pa.Table) -> pa.Table:
    """Rows that are known, as those say that were embedded by an earlier run."""
    embedded = pc.equal(table["status"], "embedded")
    if not pc.any(embedded).as_py():
        return table
    return with_column(table, "status", pc.if_else(embedded, "unchanged", table["status"]))


def as_unknown(table: pa.Table, reasons: pa.Array, details: pa.Array) -> pa.Table:
    """Rows, none of them unknown, of files that cannot be reached: they stay, and say why."""
    said = (pa.repeat(UNKNOWN, table.num_rows), reasons, details)
    for name, column in zip(_KNOWN, said, strict=True):
        table = with_column(table, f"known_{name}", table[name])
        table = with_column(table, name, column)
    return table


def with_column(table: pa.Table, name: str, column: Any) -> pa.Table:
    """The table with other values in one of its columns."""
    return table.set_column(table.column_names.index(name), name, column)


def read_ledger(path: Path | BinaryIO, status: str = "") -> Iterator[LedgerRow]:
    """Rows of one ledger file, or those of one status, as a stream."""
    for table in ledger_tables(path, status):
        for row in table.to_pylist():
            yield LedgerRow(**row)
