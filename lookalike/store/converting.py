"""Embedding shards written anew with other vectors: rows, names and ids stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lookalike.distances import Vectors
from lookalike.store.attempts import Record, recorded
from lookalike.store.compacting import rows_of
from lookalike.store.files import HashedName
from lookalike.store.objects import Store
from lookalike.store.shard_format import metadata_columns, schema, vector_type
from lookalike.store.shards import open_shard, shard_record


@dataclass(frozen=True)
class ConvertTask:
    """One embedding shard to write anew; paths are relative to the store.

    Attributes:
        source: The manifest's line of the shard.
        output: The new shard, which bears the same file number: the name of the file but for the
            hash of its content.
        done: The record: {"shard": the manifest's line}.
    """

    number: int
    source: Mapping[str, Any]
    output: str
    done: str

    @property
    def rows(self) -> int:
        """Of the shard, living and deleted."""
        return int(self.source["rows"])


def convert_tasks(lines: Sequence[Mapping[str, Any]], run: str, folder: str) -> list[ConvertTask]:
    """Tasks for embedding shards of a manifest, in a run of that name and folder."""
    return [
        ConvertTask(
            number,
            line,
            output=f"embeddings/{int(line['file_no']):08d}-{run}",
            done=f"{folder}/converted/{number:06d}.json",
        )
        for number, line in enumerate(lines)
    ]


@recorded
def convert_shard(
    task: ConvertTask,
    store: Store,
    convert: Callable[[Vectors], Vectors],
    dim: int,
    properties: Mapping[str, str],
) -> Record:
    """Write the task's shard and, last, its record, which is returned.

    Dead rows are converted with the others, so that every id stays what it is. Of several attempts
    the first one's record counts (see `store.attempts`).

    Args:
        task: What to write.
        store: The store's root.
        convert: From stored vectors (n, d) to new ones (n, dim).
        dim: Components of the new vectors.
        properties: Key-value metadata of the new shard.
    """
    found = pq.read_schema(store.parquet(task.source["path"]))
    target = schema(dim, metadata_columns([found]), properties, vector_type(found)[1].name)
    file_no = int(task.source["file_no"])
    nothing_deleted = np.empty(0, dtype=np.int64)
    name = HashedName(task.output, ".parquet")
    with open_shard(store, name, target, file_no) as (writer, pending):
        for table, vectors in rows_of(store, task.source, nothing_deleted, target):
            writer.append_block(table, convert(vectors))
    if writer.rows != task.rows:
        path = store.shown(pending.finished.path)
        raise ValueError(f"{path}: {task.rows:,} rows to convert, {writer.rows:,} written")
    return {"shard": shard_record(pending.finished, file_no, writer.rows)}
