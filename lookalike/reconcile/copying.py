"""Rows of embedding shards written anew with the vector of another row: nothing is embedded twice.

A row of a shard is never changed. When its content gets another main name, or that name other
metadata, a new row takes its place: `CopyPlan` says which, `copy_rows` writes a shard of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.hashed import HashFilter
from lookalike.store import shards as embedding_shards
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill, uri_hashes
from lookalike.store.shard_format import Ids
from lookalike.store.vector_reader import VectorReader

COPY_ROWS = 1 << 16  # of one shard
_AT_ONCE = 16  # files whose metadata are looked up in one pass over the listing
_BLOCK = 4096  # rows whose vectors are held
_SOURCE = ("content_sha256", "width", "height", "format", "bytes")


@dataclass(frozen=True)
class CopyTask:
    """One shard of copies; all paths are relative to the store.

    Attributes:
        number: Of the task, from 0.
        source: What to copy: uri, source id and metadata.
        shard: Where the rows go: the name of the file but for the hash of its content.
        file_no: The number that the shard bears.
        done: The record: {"shard": the manifest's line}.
    """

    number: int
    source: str
    shard: str
    file_no: int
    done: str


def copy_tasks(store: Store, resolved: str, first_file_no: int, run: str) -> list[CopyTask]:
    """The shards of copies of a run that has been resolved into the folder `resolved`.

    Args:
        store: The store's root.
        resolved: Where `resolve` wrote, relative to the store.
        first_file_no: As given to `resolve`.
        run: Name of the run, for the names of the shards.
    """
    count = len(store.files(f"{resolved}/copies", ".parquet"))
    return [
        CopyTask(
            number,
            f"{resolved}/copies/{number:05d}.parquet",
            f"embeddings/{first_file_no + number:08d}-{run}",
            first_file_no + number,
            f"{resolved}/copied/{number:05d}.json",
        )
        for number in range(count)
    ]


@recorded
def copy_rows(task: CopyTask, store: Store, shards: Mapping[int, str], schema: pa.Schema) -> Record:
    """Write one shard of copies: vectors and what is known of the content from the rows copied.

    Of several attempts the first one's record counts (see `store.attempts`).

    Args:
        task: What to write.
        store: The store's root.
        shards: Embedding shards by file number, relative to the store.
        schema: Of the shard (see `shards.schema`); of the same type of vectors as the others.

    Returns:
        The record.
    """
    table = pq.read_table(store.local(task.source))
    reader = VectorReader(store, shards)
    name = HashedName(task.shard, ".parquet")
    with embedding_shards.open_shard(store, name, schema, task.file_no) as (writer, pending):
        for start in range(0, table.num_rows, _BLOCK):
            block = table.slice(start, _BLOCK)
            ids = block["source"].to_numpy()
            rows = pa.Table.from_pylist(
                reader.rows(ids.tolist(), _SOURCE),
                pa.schema([schema.field(name) for name in _SOURCE]),
            )
            for column in block.column_names:
                if column != "source":
                    rows = rows.append_column(column, block[column])
            writer.append_block(rows, reader.vectors(ids))
    return {"shard": embedding_shards.shard_record(pending.finished, task.file_no, writer.rows)}


class CopyPlan:
    """Rows to be copied, as files of `COPY_ROWS` rows: uri, source and the metadata columns.

    Row r of file i becomes row r of the shard `first_file_no` + i.
    """

    def __init__(self, store: Store, folder: str, first_file_no: int) -> None:
        """Nothing is written yet; `folder` is relative to the store, and not there."""
        self._store, self._folder, self._first = store, folder, first_file_no
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._given = 0
        self._files = 0

    @property
    def rows(self) -> int:
        """Rows planned."""
        return self._given

    @property
    def file_numbers(self) -> range:
        """Of the shards that the rows become."""
        return range(self._first, self._first + -(-self._given // COPY_ROWS))

    def ids(self, count: int) -> Ids:
        """The ids of that many more rows, (n,) int64: `add` them in this order."""
        number = np.arange(self._given, self._given + count, dtype=np.int64)
        self._given += count
        return (self._first + number // COPY_ROWS << 32) + number % COPY_ROWS

    def add(self, rows: pa.Table) -> None:
        """Rows (`COPIES`) that were given ids."""
        self._waiting.append(rows)
        self._waiting_rows += rows.num_rows
        while self._waiting_rows >= COPY_ROWS:
            self._flush()

    def finish(self, metadata: pa.Schema, listing: Sequence[str]) -> None:
        """Write what waits, and add the metadata columns from the listing's files.

        Raises:
            RuntimeError: A name is not in the listing, or not every row that has an id was added.
        """
        added = self._files * COPY_ROWS + self._waiting_rows
        if added != self._given:
            place = self._store.shown(self._folder)
            raise RuntimeError(f"{place}: {self._given:,} rows have ids, {added:,} were added")
        if self._waiting_rows:
            self._flush()
        if not len(metadata):
            return
        for first in range(0, self._files, _AT_ONCE):
            self._complete(range(first, min(self._files, first + _AT_ONCE)), metadata, listing)

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting)
        self._write(self._files, table.slice(0, COPY_ROWS))
        rest = table.slice(COPY_ROWS)
        self._waiting, self._waiting_rows = [rest], rest.num_rows
        self._files += 1

    def _write(self, number: int, table: pa.Table) -> None:
        with self._store.write(f"{self._folder}/{number:05d}.parquet") as pending:
            pq.write_table(table, pending.file, compression="zstd")

    def _read(self, number: int) -> pa.Table:
        return pq.read_table(self._store.local(f"{self._folder}/{number:05d}.parquet"))

    def _complete(self, files: range, metadata: pa.Schema, listing: Sequence[str]) -> None:
        uris = pa.concat_tables([self._read(number).select(["uri"]) for number in files])["uri"]
        schema = pa.schema([("place", pa.int64()), *metadata])
        folder = self._store.scratch(f"{self._folder}-metadata")
        with Spill(folder, len(files), schema) as spill:
            for table in _listed(self._store, listing, uris, schema.names):
                spill.write(table, table["place"].to_numpy() // COPY_ROWS)
        for i, number in enumerate(files):
            table, found = self._read(number), spill.read(i)
            places, first = np.unique(found["place"].to_numpy(), return_index=True)
            if len(places) != table.num_rows:
                missing = np.setdiff1d(np.arange(table.num_rows) + i * COPY_ROWS, places)
                uri = uris[int(missing[0])].as_py()
                raise RuntimeError(f"{uri}: it is to be stored anew, but it is not in the listing")
            found = found.take(pa.array(first))
            for field in metadata:
                table = table.append_column(field, found[field.name])
            self._write(number, table)


def _listed(
    store: Store, listing: Sequence[str], uris: pa.ChunkedArray, columns: Sequence[str]
) -> Iterator[pa.Table]:
    """The listing's rows of some uris, in order, with their place among those."""
    wanted = HashFilter()
    wanted.add(uri_hashes(uris))
    for table in _gathered(_filtered(store, listing, wanted)):
        place = pc.index_in(table["uri"], value_set=uris)
        table = table.append_column("place", place.cast(pa.int64())).select(columns)
        yield table.filter(place.is_valid())


def _filtered(store: Store, listing: Sequence[str], wanted: HashFilter) -> Iterator[pa.Table]:
    for part in listing:
        with pq.ParquetFile(store.local(part)) as file:
            for batch in file.iter_batches(COPY_ROWS):
                table = pa.Table.from_batches([batch])
                yield table.filter(pa.array(wanted.among(uri_hashes(table["uri"]))))


def _gathered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Some thousand rows at a time: what they are looked up in is hashed for each table."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        if rows >= COPY_ROWS:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.concat_tables(waiting)
