"""Embedding shards: one Parquet file per work unit, rows addressed by id.

`id` = file number << 32 | row: unique by construction and the address of the exact vector, so
re-ranking needs no other map. Vectors are stored plain (no dictionary, no statistics, no
compression: float bits do not compress) in row groups small enough to read for one row.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.store.storage import FileRecord, PendingFile, write_file

SCHEMA_VERSION = 1
ROW_GROUP = 128  # about 1 MB of 2,000-dimensional vectors: one disk read for one row
_CACHED_GROUPS = 64
_OPEN_FILES = 128  # a process may often hold no more than 1,024
COLUMNS = ("id", "uri", "content_sha256", "width", "height", "format", "bytes", "embedding")

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


def schema(dim: int, metadata: pa.Schema, properties: Mapping[str, str]) -> pa.Schema:
    """Schema of a shard of `dim`-dimensional vectors; `properties` go to the file's metadata."""
    fields = [
        ("id", pa.int64()),
        ("uri", pa.string()),
        ("content_sha256", pa.binary(32)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        *[(column.name, column.type) for column in metadata],
        ("embedding", pa.list_(pa.float32(), dim)),
    ]
    return pa.schema(fields, {"lookalike.schema_version": str(SCHEMA_VERSION), **properties})


def make_id(file_no: int, row: int) -> int:
    """The id of a row: file number << 32 | row."""
    return file_no << 32 | row


class ShardWriter:
    """Rows in, row groups out; used through `open_shard`."""

    def __init__(self, pending: PendingFile, shard_schema: pa.Schema, file_no: int) -> None:
        self._pending, self._schema, self._file_no = pending, shard_schema, file_no
        self._rows: list[dict[str, Any]] = []
        self._vectors: list[npt.NDArray[np.float32]] = []
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def append(self, row: Mapping[str, Any], vector: npt.NDArray[np.float32]) -> int:
        """Add one row (all columns but id and embedding); returns its id."""
        row_id = make_id(self._file_no, self.rows)
        self._rows.append({**row, "id": row_id})
        self._vectors.append(vector)
        self.rows += 1
        if len(self._rows) == ROW_GROUP:
            self._flush()
        return row_id

    def _flush(self) -> None:
        if self._writer is None:
            plain = {name: "PLAIN" for name in ("embedding.list.element",)}
            self._writer = pq.ParquetWriter(
                self._pending.file, self._schema, compression="none",
                use_dictionary=False, write_statistics=["id"], column_encoding=plain,
            )  # fmt: skip
        if self._rows:
            flat = pa.array(np.concatenate(self._vectors).astype(np.float32, copy=False))
            dim = self._schema.field("embedding").type.list_size
            plain_schema = self._schema.remove(len(self._schema) - 1)
            table = pa.Table.from_pylist(self._rows, plain_schema).append_column(
                self._schema.field("embedding"), pa.FixedSizeListArray.from_arrays(flat, dim)
            )
            self._writer.write_table(table.cast(self._schema), row_group_size=ROW_GROUP)
        self._rows, self._vectors = [], []

    def close(self) -> None:
        """Write what is left and the footer."""
        self._flush()
        assert self._writer is not None
        self._writer.close()

    def abandon(self) -> None:
        """End the Parquet writer while its file is open: it would write to a closed one."""
        if self._writer is not None:
            with suppress(OSError, pa.ArrowException):  # what went wrong is being raised already
                self._writer.close()


@contextmanager
def open_shard(
    store: Path, relative: str, shard_schema: pa.Schema, file_no: int
) -> Iterator[tuple[ShardWriter, PendingFile]]:
    """Write one shard atomically; after the block `pending.finished` is its record."""
    with write_file(store, relative) as pending:
        writer = ShardWriter(pending, shard_schema, file_no)
        try:
            yield writer, pending
            writer.close()
        except BaseException:
            writer.abandon()
            raise


def iter_blocks(path: Path) -> Iterator[tuple[Ids, Vectors]]:
    """Ids (n,) int64 and vectors (n, d) float32 of a shard, one row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["id", "embedding"])
            yield table["id"].to_numpy(), _vectors(table)


def iter_ids(path: Path) -> Iterator[Ids]:
    """Ids of a shard, one row group at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=["id"], batch_size=65536):
            yield batch["id"].to_numpy()


def iter_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a shard as dictionaries of the columns named."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=list(columns), batch_size=1024):
            yield from batch.to_pylist()


def count_rows(path: Path) -> int:
    """Rows that the footer states."""
    return int(pq.read_metadata(path).num_rows)


def _vectors(table: pa.Table) -> Vectors:
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(column), column.type.list_size), dtype=np.float32)


class VectorReader:
    """Rows by id from the shards of a store; safe to use from several threads."""

    def __init__(self, store: Path, files: Mapping[int, str]) -> None:
        """`files` maps file numbers to paths relative to the store."""
        self._store, self._files = store, dict(files)
        self._lock = Lock()
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._cache: OrderedDict[tuple[int, int], Vectors] = OrderedDict()

    def vectors(self, ids: Ids) -> Vectors:
        """Exact vectors (n, d) float32 of the ids (n,), in their order, read in one sorted pass."""
        ids = np.asarray(ids, dtype=np.int64)
        output: Vectors | None = None
        for positions, file_no, group in _by_group(ids):
            block = self._block(file_no, group)
            if output is None:
                output = np.empty((len(ids), block.shape[1]), dtype=np.float32)
            output[positions] = block[(ids[positions] & 0xFFFFFFFF) % ROW_GROUP]
        if output is None:
            return np.empty((0, 0), dtype=np.float32)
        return output

    def rows(self, ids: Iterable[int]) -> list[dict[str, Any]]:
        """All columns but the vector, of each id, in their order."""
        wanted = np.asarray(list(ids), dtype=np.int64)
        output: list[dict[str, Any]] = [{} for _ in range(len(wanted))]
        for positions, file_no, group in _by_group(wanted):
            with self._lock:
                file = self._file(file_no)
                columns = [name for name in file.schema_arrow.names if name != "embedding"]
                table = file.read_row_group(group, columns=columns)
            for position in positions:
                row = int(wanted[position] & 0xFFFFFFFF) % ROW_GROUP
                output[position] = table.slice(row, 1).to_pylist()[0]
        return output

    def metadata_schema(self) -> pa.Schema:
        """Columns that are not this module's own."""
        if not self._files:
            return pa.schema([])
        with self._lock:
            found = self._file(next(iter(self._files))).schema_arrow
        return pa.schema([column for column in found if column.name not in COLUMNS])

    def _block(self, file_no: int, group: int) -> Vectors:
        with self._lock:
            key = (file_no, group)
            if key not in self._cache:
                table = self._file(file_no).read_row_group(group, columns=["embedding"])
                self._cache[key] = _vectors(table)
                if len(self._cache) > _CACHED_GROUPS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return self._cache[key]

    def _file(self, file_no: int) -> pq.ParquetFile:
        if file_no not in self._open:
            self._open[file_no] = pq.ParquetFile(self._store / self._files[file_no])
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(file_no)
        return self._open[file_no]


def _by_group(ids: Ids) -> Iterator[tuple[npt.NDArray[np.intp], int, int]]:
    """Positions of the ids that share a row group, in order of file and group."""
    order = np.argsort(ids, kind="stable")
    groups = (ids[order] >> 32 << 32) + ((ids[order] & 0xFFFFFFFF) // ROW_GROUP)
    if not len(ids):
        return
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)).tolist()
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        first = int(ids[order[start]])
        yield order[start:end], first >> 32, (first & 0xFFFFFFFF) // ROW_GROUP


def shard_record(record: FileRecord, file_no: int, rows: int) -> dict[str, Any]:
    """The manifest's line for a shard."""
    return {**record.to_json(), "kind": "embedding", "file_no": file_no, "rows": rows}
