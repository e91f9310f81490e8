"""The living rows of a snapshot as files that others read: arrays in row order, a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.store.files import write_file
from lookalike.store.shard_format import COLUMNS, vector_type

VECTORS, URIS = "vectors.npy", "uris.parquet"

_BATCH = 4096  # rows in memory at a time, of which some batches are read ahead
_AHEAD = 2


def table_columns(schema: pa.Schema) -> list[str]:
    """Of the Parquet file: id, uri, the metadata columns and the vector, in this order."""
    metadata = [name for name in schema.names if name not in COLUMNS]
    return ["id", "uri", *metadata, *(name for name in ("embedding",) if name in schema.names)]


def write_table(dataset: Any, path: Path) -> int:
    """Write one Parquet file of all rows, whole or not at all; returns their number.

    Args:
        dataset: From `lookalike.dataset`.
        path: Where.
    """
    columns, rows = table_columns(dataset.schema), 0
    schema = pa.schema([dataset.schema.field(name) for name in columns])
    plain = [name for name in columns if name != "embedding"]
    with (
        write_file(path.parent, path.name) as pending,
        pq.ParquetWriter(
            pending.file, schema, compression="zstd", use_dictionary=plain,
            write_statistics=plain,
        ) as writer,
    ):  # fmt: skip
        for batch in _batches(dataset, columns):
            writer.write_batch(batch.cast(schema))
            rows += batch.num_rows
    return rows


def write_arrays(dataset: Any, folder: Path) -> int:
    """Write vectors.npy (n, d) and uris.parquet (id, uri), row by row; returns n.

    Args:
        dataset: From `lookalike.dataset`.
        folder: An empty one.
    """
    rows = int(dataset.count_rows())
    dim, dtype = vector_type(dataset.schema) if rows else (0, np.dtype(np.float32))
    schema = pa.schema([("id", pa.int64()), ("uri", pa.string())])
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False,
            "shape": (rows, dim)}  # fmt: skip
    written = 0
    with (
        write_file(folder, VECTORS) as vectors,
        write_file(folder, URIS) as names,
        pq.ParquetWriter(names.file, schema, compression="zstd") as writer,
    ):
        np.lib.format.write_array_header_1_0(vectors.file, head)
        for batch in _batches(dataset, [*schema.names, *(["embedding"] if rows else [])]):
            writer.write_batch(batch.select(schema.names).cast(schema))
            if rows:
                block = batch["embedding"].flatten().to_numpy(zero_copy_only=False)
                vectors.write(np.ascontiguousarray(block, dtype).data.cast("B"))
            written += batch.num_rows
    if written != rows:
        raise OSError(f"{rows:,} rows counted, {written:,} read: the store changed meanwhile")
    return rows


def _batches(dataset: Any, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    scanner = dataset.scanner(
        columns=list(columns), batch_size=_BATCH, batch_readahead=_AHEAD, fragment_readahead=1
    )
    for batch in scanner.to_batches():
        if batch.num_rows:
            yield batch
