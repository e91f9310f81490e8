"""Embedding shards: Parquet files, one per work unit, whose rows are addressed by id.

`id` = file number << 32 | row. For example, row 5 of file 3 has the id 3 * 2^32 + 5 = 12884901893.
Ids are unique, and an id says where its vector is, so re-ranking needs no table of ids. See
`shard_format` for the layout and `vector_reader` for reading rows by id.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.batching import up_to
from lookalike.distances import Ids, Vectors
from lookalike.store.column_reader import Row
from lookalike.store.columns import fitting
from lookalike.store.durable import PendingFile
from lookalike.store.files import FileRecord, Name
from lookalike.store.manifest import FileLine
from lookalike.store.objects import Store
from lookalike.store.shard_format import (
    ADDRESSES,
    SCHEMA_VERSION,
    Addresses,
    addresses_json,
    addresses_of,
    group_rows,
    make_id,
    vector_type,
)

_ONE_PAGE = 2**31 - 1  # the most bytes that a page may have
_BLOCK_ROWS, _BLOCK_BYTES = 8192, 16 << 20  # of vectors, read at a time


class _Tail:
    """A file for pyarrow that remembers the end of what was written since it was asked last."""

    def __init__(self, pending: PendingFile, length: int) -> None:
        self._file, self._length = pending.file, length
        self._parts: list[Any] = []
        self._bytes = 0

    def write(self, data: Any) -> int:
        self._parts.append(data)
        self._bytes += len(data)
        while self._parts and self._bytes - len(self._parts[0]) >= self._length:
            self._bytes -= len(self._parts.pop(0))
        return int(self._file.write(data))

    def ends_with(self, vectors: npt.NDArray[Any]) -> bool:
        """Are the bytes of these the ones written last?"""
        parts, self._parts, self._bytes = self._parts, [], 0
        joined = parts[0] if len(parts) == 1 else b"".join(parts)
        last = np.frombuffer(joined, np.uint8)[-vectors.nbytes :]
        return np.array_equal(last, vectors.view(np.uint8).reshape(-1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class ShardWriter:
    """Rows in, row groups out; used through `open_shard`."""

    def __init__(self, pending: PendingFile, shard_schema: pa.Schema, file_no: int) -> None:
        properties = {
            **(shard_schema.metadata or {}),
            b"lookalike.schema_version": b"%d" % SCHEMA_VERSION,
        }
        properties.pop(ADDRESSES.encode(), None)  # a schema that was read has those of its file
        self._schema = shard_schema.with_metadata(properties)
        self._plain = pa.schema([f for f in self._schema if f.name not in ("id", "embedding")])
        self._dim, self._dtype = vector_type(shard_schema)
        self._group = group_rows(self._dim, self._dtype.itemsize)
        self._file_no = file_no
        self._sink = _Tail(pending, self._group * self._dim * self._dtype.itemsize)
        self._rows: list[Mapping[str, Any]] = []  # given one by one
        self._vectors: list[npt.NDArray[Any]] = []  # of those
        self._blocks: list[tuple[pa.Table, npt.NDArray[Any]]] = []  # before those
        self._waiting = 0
        self._starts: list[int] | None = []
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def append(self, row: Mapping[str, Any], vector: npt.NDArray[np.floating[Any]]) -> int:
        """Add one row (all columns but id and embedding); returns its id."""
        row_id = make_id(self._file_no, self.rows)
        self._rows.append(row)
        self._vectors.append(np.asarray(vector, dtype=self._dtype))
        self._count(1)
        return row_id

    def append_block(self, rows: pa.Table, vectors: npt.NDArray[np.floating[Any]]) -> Ids:
        """Add many rows at once.

        Args:
            rows: All columns but id and embedding; one that is missing is null.
            vectors: (n, d), of any float type; kept, so not to be written to afterwards.

        Returns:
            Their ids, (n,) int64.
        """
        if vectors.shape != (rows.num_rows, self._dim):
            raise ValueError(
                f"vectors must have shape ({rows.num_rows}, {self._dim}), got {vectors.shape}"
            )
        self._gather()
        first = make_id(self._file_no, self.rows)
        table = fitting(rows, self._plain)
        self._blocks.append((table, np.ascontiguousarray(vectors, dtype=self._dtype)))
        self._count(rows.num_rows)
        return np.arange(first, first + rows.num_rows, dtype=np.int64)

    def _count(self, rows: int) -> None:
        self.rows += rows
        self._waiting += rows
        while self._waiting >= self._group:
            self._flush()

    def _gather(self) -> None:
        """Make a block of the rows that came one by one."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, self._plain)
            self._blocks.append((table, np.stack(self._vectors)))
            self._rows, self._vectors = [], []

    def _flush(self) -> pq.ParquetWriter:
        """Write one row group of what waits, if anything does; returns what writes."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression="none",
                use_dictionary=False,
                write_statistics=["id"],
                column_encoding={"embedding.list.element": "PLAIN"},
                data_page_size=_ONE_PAGE,
            )
        self._gather()
        rows = min(self._waiting, self._group)
        if not rows:
            return self._writer
        tables, vectors = self._take(rows)
        first = make_id(self._file_no, self.rows - self._waiting)
        ids = pa.array(np.arange(first, first + rows, dtype=np.int64))
        flat = pa.array(vectors.reshape(-1))
        vector_column = pa.FixedSizeListArray.from_arrays(flat, self._dim)
        columns = {
            **dict(zip(tables.column_names, tables.columns, strict=True)),
            "id": ids,
            "embedding": vector_column,
        }
        ordered = [columns[name] for name in self._schema.names]
        self._writer.write_table(pa.table(ordered, schema=self._schema), row_group_size=rows)
        self._waiting -= rows
        # Were a Parquet writer to lay them out otherwise, there would be no addresses: slow, right.
        if self._starts is not None and self._sink.ends_with(vectors):
            self._starts.append(self._sink.tell() - vectors.nbytes)
        else:
            self._starts = None
        return self._writer

    def _take(self, rows: int) -> tuple[pa.Table, npt.NDArray[Any]]:
        """The first rows of the blocks that wait, which keep the rest."""
        tables, vectors, left = [], [], rows
        while left:
            table, block = self._blocks.pop(0)
            tables.append(table.slice(0, left))
            vectors.append(block[:left])
            if len(block) > left:
                self._blocks.insert(0, (table.slice(left), block[left:]))
            left -= len(vectors[-1])
        joined = vectors[0] if len(vectors) == 1 else np.concatenate(vectors)
        return pa.concat_tables(tables), joined

    def close(self) -> None:
        """Write what is left and the footer."""
        writer = self._flush()
        if self._starts is not None:
            text = addresses_json(self._group, self._starts)
            writer.add_key_value_metadata({ADDRESSES: text})
        writer.close()

    def abandon(self) -> None:
        """End the Parquet writer while its file is open: it would write to a closed one."""
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # what went wrong is being raised already
                self._writer.close()


@contextmanager
def open_shard(
    store: Store, name: Name, shard_schema: pa.Schema, file_no: int
) -> Iterator[tuple[ShardWriter, PendingFile]]:
    """Write one shard atomically; after the block `pending.finished` is its record."""
    with store.write(name) as pending:
        writer = ShardWriter(pending, shard_schema, file_no)
        try:
            yield writer, pending
            writer.close()
        except BaseException:
            writer.abandon()
            raise


def iter_blocks(shard: Path | BinaryIO) -> Iterator[tuple[Ids, Vectors]]:
    """Ids (n,) int64 and vectors (n, d) float32 of a shard, about 16 MiB of vectors at a time.

    A file that is open already, on this machine, is closed in the end.
    """
    with (
        open(shard, "rb") if isinstance(shard, Path) else shard as raw,
        pq.ParquetFile(raw) as file,
    ):
        size = os.fstat(raw.fileno()).st_size
        addresses = addresses_of(file.metadata, str(getattr(raw, "name", shard)), size)
        for groups in _blocks(file):
            columns = ["id"] if addresses else ["id", "embedding"]
            table = file.read_row_groups([*groups], columns=columns, use_threads=False)
            ids = table["id"].to_numpy()
            if addresses is None:
                yield ids, _vectors(table)
                continue
            parts = [_group(raw, addresses, group) for group in groups]
            vectors = parts[0] if len(parts) == 1 else np.concatenate(parts)
            yield ids, vectors.reshape(len(ids), -1).astype(np.float32, copy=False)


def _group(raw: BinaryIO, addresses: Addresses, group: int) -> npt.NDArray[Any]:
    """The components of a row group's vectors, as stored."""
    rows = min(addresses.group, addresses.rows - group * addresses.group)
    raw.seek(int(addresses.starts[group]))
    return np.fromfile(raw, dtype=addresses.dtype, count=rows * addresses.dim)


def _blocks(file: pq.ParquetFile) -> Iterator[tuple[int, ...]]:
    """Runs of row groups to be read together."""
    kind = file.schema_arrow.field("embedding").type
    most = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * kind.list_size)))
    numbers = range(file.num_row_groups)
    return up_to(((one, file.metadata.row_group(one).num_rows) for one in numbers), most)


def iter_rows(path: Path | BinaryIO, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a shard as dictionaries of the columns named."""
    with pq.ParquetFile(path) as file:
        for batch in _batches(file, list(columns), 1024):
            yield from batch.to_pylist()


def _batches(file: pq.ParquetFile, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    if file.num_row_groups:  # older versions of Arrow stumble over none
        yield from file.iter_batches(rows, columns=columns)


def count_rows(path: Path | BinaryIO) -> int:
    """Rows that the footer states."""
    return int(pq.read_metadata(path).num_rows)


def _vectors(table: pa.Table) -> Vectors:
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(column), column.type.list_size), dtype=np.float32)


def shard_record(record: FileRecord, file_no: int, rows: int) -> FileLine:
    """The manifest's line for a shard."""
    return {**record.line("embedding"), "file_no": file_no, "rows": rows}
