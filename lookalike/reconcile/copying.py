"""Rows of embedding shards written anew with the vector of another row: nothing is embedded twice.

A row of a shard is never changed. When its content gets another main name, or that name other
metadata, a new row takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from lookalike.reconcile.settling import COPIED, Settling
from lookalike.store import shards as embedding_shards
from lookalike.store.attempts import once
from lookalike.store.exchange import Reference, taken
from lookalike.store.files import HashedName
from lookalike.store.manifest import FileLine
from lookalike.store.objects import Store
from lookalike.store.vector_reader import VectorReader

COPY_ROW = pa.schema([("id", pa.int64()), ("_was_id", pa.int64()), ("uri", pa.string())])
"""A row to be written, under a new id; behind these columns come those of the metadata."""
_BLOCK = 4096  # rows whose vectors are held
_SOURCE = ("content_sha256", "width", "height", "format", "bytes")


@dataclass(frozen=True)
class Copying:
    """Writes shards of copies, which the partitions of names have dealt out.

    Attributes:
        shard: Path of a shard, but for its number and the hash of its content.
        schema: Of the shards (see `shards.schema`); of the same type of vectors as the others.
    """

    of: Settling
    run: str
    metadata: pa.Schema
    schema: pa.Schema

    def take(self, number: int, pieces: list[Reference], store: Store) -> Mapping[str, Any]:
        """Write one shard; the record has its line for the manifest (`shard`)."""

        def work() -> Mapping[str, Any]:
            rows = taken(store, pieces, pa.schema([*COPY_ROW, *self.metadata]), COPIED)
            file_no = self.of.first_copy + number
            paths = {int(name): path for name, path in store.read_json(self.of.shards).items()}
            name = HashedName(f"embeddings/{file_no:08d}-{self.run}", ".parquet")
            shard = copy_rows(store, name, file_no, rows, paths, self.schema)
            return {"rows": rows.num_rows, "shard": shard}

        return once(store, self.of.record(COPIED, number), work)


def copy_rows(
    store: Store,
    name: HashedName,
    file_no: int,
    rows: pa.Table,
    shards: Mapping[int, str],
    schema: pa.Schema,
) -> FileLine:
    """Write one shard of copies: vectors and what is known of the content from the rows copied.

    Args:
        store: The store's root.
        name: Of the shard.
        file_no: Its number.
        rows: `COPY_ROW` with metadata columns, in any order; all rows of the shard.
        shards: Paths of embedding shards by file number.
        schema: Of the shard.

    Returns:
        The manifest's line.

    Raises:
        RuntimeError: The ids are not those of the rows of such a shard.
    """
    rows = rows.sort_by("id")
    wanted = (file_no << 32) + np.arange(rows.num_rows)
    if not np.array_equal(rows["id"].to_numpy(), wanted):
        raise RuntimeError(
            f"{name}: {rows.num_rows:,} rows to copy must have the ids from {file_no << 32} on, "
            f"they have those from {rows['id'][0]} to {rows['id'][-1]}"
        )
    reader = VectorReader(store, shards)
    with embedding_shards.open_shard(store, name, schema, file_no) as (writer, pending):
        for start in range(0, rows.num_rows, _BLOCK):
            block = rows.slice(start, _BLOCK)
            ids = block["_was_id"].to_numpy()
            copied = pa.Table.from_pylist(
                reader.rows(ids.tolist(), _SOURCE),
                pa.schema([schema.field(name) for name in _SOURCE]),
            )
            for column in block.column_names:
                if column not in ("id", "_was_id"):
                    copied = copied.append_column(column, block[column])
            writer.append_block(copied, reader.vectors(ids))
    return embedding_shards.shard_record(pending.finished, file_no, writer.rows)
