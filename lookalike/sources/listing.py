"""The listing of a run: the files found, written to Parquet in bounded memory by one task or many.

A task lists places and leaves others (see `places`); its record tells of the parts it wrote and of
those places, in order, and what there is to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import to_rows
from lookalike.errors import RequestError
from lookalike.records import SourceFile
from lookalike.sources.places import Budget, Notes, Place
from lookalike.sources.source import Source
from lookalike.store.attempts import Record, recorded
from lookalike.store.columns import fit
from lookalike.store.files import HashedName, Name
from lookalike.store.manifest import FileJson
from lookalike.store.objects import Store

_PART_ROWS = 100_000
_PART_BYTES = 256 << 20  # of names and metadata, roughly, as they are held in memory
_BASE = ("uri", "bytes", "version", "problem")
_PLACE = {"_container": "container", "_offset": "offset", "_group": "group", "_hides": "hides"}
_BESIDE = ("_was", "_was_sha256", "_was_id", "_was_metadata_hash")  # of unit files alone


@dataclass(frozen=True)
class Listing:
    """A finished listing: its part files, in order, the number of rows, and roughly their bytes."""

    parts: tuple[str, ...]
    rows: int
    bytes: int


@dataclass(frozen=True)
class ListPart:
    """A file of a listing; `weight` is roughly the bytes that its rows take in memory."""

    path: str
    sha256: str
    rows: int
    weight: int


def listing_of(parts: Sequence[ListPart]) -> Listing:
    """The listing of some parts, in order."""
    return Listing(
        tuple(part.path for part in parts),
        sum(part.rows for part in parts),
        sum(part.weight for part in parts),
    )


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
    """Write a stream of files to part files under `store/folder`.

    `notice` is told, once each, which metadata have no column or do not fit theirs.
    """
    parts = _Parts(store, lambda number: f"{folder}/{number:05d}.parquet", schema, Notes(notice))
    return listing_of([part for part in parts.written(files) if isinstance(part, ListPart)])


@dataclass(frozen=True)
class ListTask:
    """Places that are listed together; paths are relative to the store.

    Attributes:
        number: Of the task within its round.
        places: In order.
        output: What the names of its files begin with.
        done: The record: {"pieces": parts and places, in order, "notes": …}, or {"refused": why}.
        rows: To be listed by it, roughly; what is left then is left to others.
        bytes: Of the tars it may open, all together.
    """

    number: int
    places: tuple[Place, ...]
    output: str
    done: str
    rows: float
    bytes: float


@recorded
def list_places(
    task: ListTask, store: Store, sources: Sequence[Source], metadata: pa.Schema
) -> Record:
    """List what lies in a task's places, as far as its limits reach.

    Returns:
        The record; see `ListTask.done`.
    """
    notes, budget, blocks = Notes(), Budget(task.rows, task.bytes), [0]
    schema = listing_schema(metadata)

    def keep(rows: pa.Table) -> Mapping[str, Any]:
        blocks[0] += 1
        name = HashedName(f"{task.output}-block-{blocks[0]:05d}", ".parquet")
        return write_table(store, name, rows)

    def listed() -> Iterator[SourceFile | Place | pa.Table]:
        for place in task.places:
            source = sources[place.source]
            if budget.spent:
                yield place
            elif place.block is None:
                yield from source.listed(place, notes, budget, keep)
            else:
                rows = pq.read_table(store.parquet(str(place.block["path"])))
                yield from [rows] if place.kind == "part" else source.block(place, rows)

    parts = _Parts(
        store, lambda number: HashedName(f"{task.output}-{number:05d}", ".parquet"), schema, notes
    )
    try:
        pieces = [
            {"part": asdict(one)} if isinstance(one, ListPart) else {"place": one.to_json()}
            for one in parts.written(listed())
        ]
    except RequestError as error:  # nobody tries that again
        return {"refused": str(error)}
    return {"pieces": pieces, "notes": notes.to_json()}


def as_files(table: pa.Table) -> Iterator[SourceFile]:
    """Rows of a listing or a unit, without what the ledger said of them before."""
    columns = [name for name in table.column_names if name not in _BESIDE]
    for batch in table.select(columns).to_batches(max_chunksize=256):
        for row in to_rows(batch):
            base = {name: row.pop(name) for name in _BASE}
            place = {told: row.pop(name) for name, told in _PLACE.items()}
            yield SourceFile(**base, metadata=row, **place)


@dataclass
class _Parts:
    """Files in, part files out, and the places between them."""

    store: Store
    name: Callable[[int], Name]
    schema: pa.Schema
    notes: Notes
    _count: int = 0
    _chunk: list[SourceFile] = field(default_factory=list)

    def written(self, found: Iterable[SourceFile | Place | pa.Table]) -> Iterator[ListPart | Place]:
        """Write what is found; rows that are a table are a part of their own."""
        weight = 0
        for one in found:
            if isinstance(one, SourceFile):
                self._chunk.append(one)
                size = _weight(one)
                weight += size
                if len(self._chunk) < _PART_ROWS and weight < _PART_BYTES:
                    continue
            yield from self._flushed(weight)
            weight = 0
            if isinstance(one, Place):
                yield one
            elif isinstance(one, pa.Table):
                yield self._write(self._widened(one), one.nbytes + 100 * one.num_rows)
        yield from self._flushed(weight)

    def _flushed(self, weight: int) -> Iterator[ListPart]:
        if self._chunk:
            table = _to_table(self._chunk, self.schema, self.notes)
            self._chunk.clear()
            yield self._write(table, weight)

    def _write(self, table: pa.Table, weight: int) -> ListPart:
        name = self.name(self._count)
        self._count += 1
        record = write_table(self.store, name, table)
        return ListPart(record["path"], record["sha256"], table.num_rows, weight)

    def _widened(self, table: pa.Table) -> pa.Table:
        """The rows with all metadata columns, of which they have none."""
        for column in list(self.schema)[table.num_columns :]:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
        return table


def _weight(file: SourceFile) -> int:
    """Roughly the bytes of names and metadata."""
    texts = sum(len(value) for value in file.metadata.values() if isinstance(value, str))
    return 100 + len(file.uri) + 50 * len(file.metadata) + texts


def _to_table(files: list[SourceFile], schema: pa.Schema, notes: Notes) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    own = {*_BASE, *_PLACE}
    kinds = {column.name: column.type for column in schema if column.name not in own}
    for file in files:
        for name in _BASE:
            columns[name].append(getattr(file, name))
        for name, attribute in _PLACE.items():
            columns[name].append(getattr(file, attribute))
        for name, kind in kinds.items():
            value = file.metadata.get(name)
            try:
                columns[name].append(fit(value, kind))
            except ValueError as error:
                columns[name].append(None)
                what = f"{name!r} of {file.uri}, and others like it: {error}"
                notes.lost(name, f"metadata left out: {what}")
        for name in sorted(file.metadata.keys() - kinds.keys()):
            notes.lost(
                name,
                f"metadata left out: {name!r} of {file.uri} and files after it; it was not seen "
                "where the columns were told from, or there are too many",
            )
    return pa.table(columns, schema=schema)


def write_table(store: Store, name: Name, table: pa.Table) -> FileJson:
    """Write one listing or unit file; returns the record of it."""
    with store.write(name) as pending:
        pq.write_table(table, pending.file, compression="zstd")
    return pending.finished.to_json()
