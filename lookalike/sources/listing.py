"""The listing of a run: the stream of files found, written to Parquet in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import to_rows
from lookalike.errors import one_line
from lookalike.records import SourceFile
from lookalike.store.columns import fit
from lookalike.store.objects import Store

_PART_ROWS = 100_000
_PART_BYTES = 256 << 20  # of names and metadata, roughly, as they are held in memory
_NOTICES = 20
_BASE = ("uri", "bytes", "version", "problem")
_PLACE = {"_container": "container", "_offset": "offset", "_group": "group", "_hides": "hides"}
_BESIDE = ("_key", "_was", "_was_sha256", "_was_id", "_was_metadata_hash")  # of unit files alone


@dataclass(frozen=True)
class Listing:
    """A finished listing: its part files, in order, the number of rows, and roughly their bytes."""

    parts: tuple[str, ...]
    rows: int
    bytes: int


def listing_schema(metadata: pa.Schema) -> pa.Schema:
    """Columns of listing and unit files."""
    base: list[pa.Field] = [
        pa.field("uri", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("problem", pa.string()),
        pa.field("_container", pa.string()),
        pa.field("_offset", pa.int64()),
        pa.field("_group", pa.int64()),
        pa.field("_hides", pa.string()),
    ]
    return pa.schema([*base, *metadata])


def write_listing(
    store: Store,
    folder: str,
    files: Iterable[SourceFile],
    schema: pa.Schema,
    notice: Callable[[str], None] = print,
) -> Listing:
    """Write the stream of files to part files under `store/folder`.

    `notice` is told, once each, which metadata have no column or do not fit theirs.
    """
    rows = total = size = 0
    parts: list[str] = []
    chunk: list[SourceFile] = []
    lost = _Lost(notice)

    def flush() -> None:
        nonlocal rows, size
        name = f"{folder}/{len(parts):05d}.parquet"
        write_table(store, name, _to_table(chunk, schema, lost))
        parts.append(name)
        rows, size = rows + len(chunk), 0
        chunk.clear()

    for file in files:
        chunk.append(file)
        weight = _weight(file)
        size, total = size + weight, total + weight
        if len(chunk) >= _PART_ROWS or size >= _PART_BYTES:
            flush()
    if chunk:
        flush()
    return Listing(tuple(parts), rows, total)


def read_files(path: Path | BinaryIO) -> Iterator[SourceFile]:
    """Rows of a listing or unit file, without what the ledger said of them before."""
    with pq.ParquetFile(path) as file:
        columns = [name for name in file.schema_arrow.names if name not in _BESIDE]
        for batch in file.iter_batches(batch_size=256, columns=columns):
            for row in to_rows(batch):
                base = {name: row.pop(name) for name in _BASE}
                place = {field: row.pop(name) for name, field in _PLACE.items()}
                yield SourceFile(**base, metadata=row, **place)


class _Lost:
    """Says once of each column what metadata are left out."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        self._notice = notice
        self._said: set[str] = set()

    def no_column(self, file: SourceFile, names: Iterable[str]) -> None:
        for name in names:
            self._say(
                name,
                f"metadata left out: {name!r} of {file.uri} and files after it; it was not seen "
                f"where the columns were told from, or there are too many",
            )

    def no_fit(self, file: SourceFile, name: str, error: ValueError) -> None:
        self._say(name, f"metadata left out: {name!r} of {file.uri}, and others like it: {error}")

    def _say(self, name: str, line: str) -> None:
        if name not in self._said and len(self._said) <= _NOTICES:
            self._said.add(name)
            self._notice(one_line(ValueError(line)) if len(self._said) <= _NOTICES else
                         "metadata left out: further columns")  # fmt: skip


def _weight(file: SourceFile) -> int:
    """Roughly the bytes of names and metadata."""
    texts = sum(len(value) for value in file.metadata.values() if isinstance(value, str))
    return 100 + len(file.uri) + 50 * len(file.metadata) + texts


def _to_table(files: list[SourceFile], schema: pa.Schema, lost: _Lost) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    own = {*_BASE, *_PLACE}
    kinds = {column.name: column.type for column in schema if column.name not in own}
    for file in files:
        for name in _BASE:
            columns[name].append(getattr(file, name))
        for name, field in _PLACE.items():
            columns[name].append(getattr(file, field))
        for name, kind in kinds.items():
            value = file.metadata.get(name)
            try:
                columns[name].append(fit(value, kind))
            except ValueError as error:
                columns[name].append(None)
                lost.no_fit(file, name, error)
        if unknown := file.metadata.keys() - kinds.keys():
            lost.no_column(file, sorted(unknown))
    return pa.table(columns, schema=schema)


def write_table(store: Store, relative: str, table: pa.Table) -> None:
    """Write one listing or unit file."""
    with store.write(relative) as pending:
        pq.write_table(table, pending.file, compression="zstd")
