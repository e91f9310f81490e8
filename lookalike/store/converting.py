"""Embedding shards written anew with other vectors: rows, names and ids stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.store.compacting import rows_of
from lookalike.store.shard_format import COLUMNS, Vectors, schema, vector_type
from lookalike.store.shards import open_shard, shard_record
from lookalike.store.storage import write_json


@dataclass(frozen=True)
class ConvertTask:
    """One embedding shard to write anew; paths are relative to the store.

    Attributes:
        number: Of the task within its run.
        source: The manifest's line of the shard.
        output: The new shard, which bears the same file number.
        done: Written last.
    """

    number: int
    source: Mapping[str, Any]
    output: str
    done: str

    @property
    def rows(self) -> int:
        """Of the shard, living and dead."""
        return int(self.source["rows"])


def convert_tasks(lines: Sequence[Mapping[str, Any]], run: str) -> list[ConvertTask]:
    """Tasks for embedding shards of a manifest, in a run of that name."""
    return [
        ConvertTask(
            number,
            line,
            output=f"embeddings/{int(line['file_no']):08d}-{run}.parquet",
            done=f"runs/{run}/converted/{number:06d}.json",
        )
        for number, line in enumerate(lines)
    ]


def convert_shard(
    task: ConvertTask,
    store: Path,
    convert: Callable[[Vectors], Vectors],
    dim: int,
    properties: Mapping[str, str],
) -> dict[str, Any]:
    """Write the task's shard and, last, its done file, whose content is returned.

    Dead rows are converted with the others, so that every id stays what it is.

    Args:
        task: What to write.
        store: The store's root.
        convert: From stored vectors (n, d) to new ones (n, dim).
        dim: Components of the new vectors.
        properties: Key-value metadata of the new shard.
    """
    found = pq.read_schema(store / task.source["path"])
    metadata = pa.schema([column for column in found if column.name not in COLUMNS])
    target = schema(dim, metadata, properties, vector_type(found)[1].name)
    file_no = int(task.source["file_no"])
    nothing_dead = np.empty(0, dtype=np.int64)
    with open_shard(store, task.output, target, file_no) as (writer, pending):
        for table, vectors in rows_of(store, task.source, nothing_dead, target):
            writer.append_block(table, convert(vectors))
    assert writer.rows == task.rows, f"{task.rows} rows, {writer.rows} written"
    done: dict[str, Any] = {"shard": shard_record(pending.finished, file_no, writer.rows)}
    write_json(store, task.done, done)
    return done
