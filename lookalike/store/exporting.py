"""The living rows of a snapshot as files that others read: arrays in row order, a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.store.columns import fitting
from lookalike.store.durable import write_file
from lookalike.store.living import deleted_ids, united_schema
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.shard_format import COLUMNS, vector_type
from lookalike.store.snapshot import files_of
from lookalike.store.tombstones import among

VECTORS, URIS = "vectors.npy", "uris.parquet"

_BATCH = 4096  # rows in memory at a time


def table_columns(schema: pa.Schema) -> list[str]:
    """Of the Parquet file: id, uri, the metadata columns and the vector, in this order."""
    metadata = [name for name in schema.names if name not in COLUMNS]
    return ["id", "uri", *metadata, *(name for name in ("embedding",) if name in schema.names)]


class LivingRows:
    """The rows that a snapshot's searches may return, in order of file and row, some at a time."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        """Read footers and tombstones."""
        self._deleted = deleted_ids(store, manifest)
        self._files = [store.parquet(line["path"]) for line in files_of(manifest, "embedding")]
        self.schema = united_schema(pq.read_schema(file) for file in self._files)
        rows = sum(int(line["rows"]) for line in files_of(manifest, "embedding"))
        self.count = rows - len(self._deleted)

    def batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
        """Those columns of all rows, the id among them; null where a file lacks one."""
        for source in self._files:
            with pq.ParquetFile(source, pre_buffer=False) as file:
                there = set(file.schema_arrow.names)
                columns = [name for name in schema.names if name in there]
                for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
                    table = fitting(pa.Table.from_batches([batch]), schema)
                    living = ~among(table["id"].to_numpy(), self._deleted)
                    if living.any():
                        yield table if living.all() else table.filter(pa.array(living))


def write_table(rows: LivingRows, path: Path) -> None:
    """Write one Parquet file, whole or not at all."""
    columns = table_columns(rows.schema)
    schema = pa.schema([rows.schema.field(name) for name in columns])
    plain = [name for name in columns if name != "embedding"]
    with (
        write_file(path.parent, path.name) as pending,
        pq.ParquetWriter(
            pending.file,
            schema,
            compression="zstd",
            use_dictionary=plain,
            write_statistics=plain,
        ) as writer,
    ):
        for table in rows.batches(schema):
            writer.write_table(table)


def write_arrays(rows: LivingRows, folder: Path) -> None:
    """Write vectors.npy (n, d) and uris.parquet (id, uri), row by row, into an empty folder."""
    names = pa.schema([("id", pa.int64()), ("uri", pa.string())])
    dim, dtype, schema = 0, np.dtype(np.float32), names
    if rows.count:
        dim, dtype = vector_type(rows.schema)
        schema = names.append(rows.schema.field("embedding"))
    head = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": (rows.count, dim),
    }
    with (
        write_file(folder, VECTORS) as vectors,
        write_file(folder, URIS) as uris,
        pq.ParquetWriter(uris.file, names, compression="zstd") as writer,
    ):
        np.lib.format.write_array_header_1_0(vectors.file, head)
        for table in rows.batches(schema):
            writer.write_table(table.select(names.names))
            block = table["embedding"].combine_chunks().flatten()
            vectors.write(
                np.ascontiguousarray(block.to_numpy(zero_copy_only=False), dtype).tobytes()
            )
