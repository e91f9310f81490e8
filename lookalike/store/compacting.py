"""Compaction: embedding shards with few living rows become full ones; vectors stay as they are.

A run adds small shards and leaves deleted rows in old ones. From time to time the rows that live
are copied into new shards, in order, which gives them new ids (see `lookalike.store.moving`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.batching import up_to
from lookalike.distances import Ids, Vectors
from lookalike.store.attempts import Record, recorded
from lookalike.store.columns import cast
from lookalike.store.files import HashedName
from lookalike.store.objects import Store
from lookalike.store.shard_format import make_id, metadata_columns, schema, vector_type
from lookalike.store.shards import iter_blocks, open_shard, shard_record

SHARD_ROWS = 65_536  # of a shard that compaction writes, at most
_SMALL = SHARD_ROWS // 2  # living rows; shards of fewer are merged
_HOLED = 0.05  # share of deleted rows from which on a larger shard is written anew, too

Line = Mapping[str, Any]


@dataclass(frozen=True)
class CompactTask:
    """One embedding shard to write out of others; paths are relative to the store.

    Attributes:
        file_no: Of the new shard.
        sources: The manifest's lines of the shards that go into it, in order.
        rows: Living rows of them all; with none there will be no shard.
        output: The new shard: the name of the file but for the hash of its content.
        done: The record: {"shard": the manifest's line, or None where no row lives}.
    """

    number: int
    file_no: int
    sources: tuple[Line, ...]
    rows: int
    output: str
    done: str


class Limits(Protocol):
    """When a run writes embeddings and index anew, in place of adding to them."""

    @property
    def max_delta_share(self) -> float:
        """Of the living rows, in index shards that were added since the last time."""

    @property
    def max_tombstone_share(self) -> float:
        """Of all rows, that are deleted."""

    @property
    def max_deltas(self) -> int:
        """Index shards added since the last time."""


def needs_compaction(
    parent: Mapping[str, Any] | None,
    lines: Sequence[Line],
    added: Sequence[Line],
    deleted: Ids,
    limits: Limits,
) -> tuple[str, ...]:
    """Why a run should write embeddings and index anew; nothing where it need not.

    Args:
        parent: The manifest whose index the run would add to, if any.
        lines: The manifest's lines of all embedding shards, those of this run among them.
        added: Those of this run, which are in no index shard yet.
        deleted: Tombstones, ascending.
        limits: From when on.
    """
    rows = sum(line["rows"] for line in lines)
    living = sum(living_rows(line, deleted) for line in lines)
    reasons = []
    if rows - living > limits.max_tombstone_share * rows:
        reasons.append(
            f"{rows - living:,} of {rows:,} rows are deleted, more than "
            f"compact.max_tombstone_share {limits.max_tombstone_share:g}"
        )
    deltas = [line for line in parent["files"] if line.get("delta")] if parent else []
    new = sum(living_rows(line, deleted) for line in added) if parent else 0
    number, held = len(deltas) + bool(new), sum(line["rows"] for line in deltas) + new
    if held > limits.max_delta_share * living:
        reasons.append(
            f"{held:,} of {living:,} vectors would be in deltas of the index, more than "
            f"compact.max_delta_share {limits.max_delta_share:g}"
        )
    if number > limits.max_deltas:
        reasons.append(
            f"the index would have {number:,} deltas, more than compact.max_deltas "
            f"{limits.max_deltas:,}"
        )
    return tuple(reasons)


def plan_compaction(
    lines: Sequence[Line],
    deleted: Ids,
    first_file_no: int,
    run: str,
    folder: str,
    *,
    only: Collection[int] | None = None,
) -> list[CompactTask]:
    """Which shards to merge, neighbours by file number, into shards of up to SHARD_ROWS rows.

    Args:
        lines: The manifest's lines of all embedding shards.
        deleted: Tombstones, ascending.
        first_file_no: Of the first new shard; the others follow.
        run: Name of the run, for the names of the shards.
        folder: Of its scratch, for the records.
        only: Numbers of the files to write anew; by default those that are small or have holes.
    """
    tasks: list[CompactTask] = []
    for group in _groups(sorted(lines, key=lambda line: int(line["file_no"])), deleted, only):
        if only is None and len(group) == 1 and living_rows(group[0], deleted) == group[0]["rows"]:
            continue  # it would be copied as it is
        number = len(tasks)
        file_no = first_file_no + number
        tasks.append(
            CompactTask(
                number,
                file_no,
                group,
                sum(living_rows(one, deleted) for one in group),
                output=f"embeddings/{file_no:08d}-{run}",
                done=f"{folder}/compacted/{number:06d}.json",
            )
        )
    return tasks


def _groups(
    lines: Sequence[Line], deleted: Ids, only: Collection[int] | None
) -> Iterator[tuple[Line, ...]]:
    """Shards that become one."""
    chosen = []
    for line in lines:
        living = living_rows(line, deleted)
        holes = line["rows"] - living
        wanted = living < _SMALL or holes > _HOLED * line["rows"]
        if wanted if only is None else line["file_no"] in only:
            chosen.append((line, living))
    return up_to(chosen, SHARD_ROWS)


def living_rows(line: Line, deleted: Ids) -> int:
    """Rows of an embedding shard that are not among the deleted, which are ascending."""
    first = make_id(int(line["file_no"]), 0)
    begin, end = np.searchsorted(deleted, [first, first + int(line["rows"])])
    return int(line["rows"]) - int(end - begin)


@recorded
def compact(task: CompactTask, store: Store, deleted: Ids) -> Record:
    """Write the task's shard and, last, its record, which is returned; old files stay.

    Of several attempts the first one's record counts (see `store.attempts`).
    """
    if not task.rows:
        return {"shard": None}
    target = _united(store, task)
    name = HashedName(task.output, ".parquet")
    with open_shard(store, name, target, task.file_no) as (writer, pending):
        for source in task.sources:
            for table, vectors in rows_of(store, source, deleted, target):
                writer.append_block(table, vectors)
    if writer.rows != task.rows:
        path = store.shown(pending.finished.path)
        raise ValueError(f"{path}: {task.rows:,} living rows, {writer.rows:,} written")
    return {"shard": shard_record(pending.finished, task.file_no, writer.rows)}


@dataclass(frozen=True)
class Compacting:
    """`compact`, as the work of tasks; tombstones are in a file (.npy, ascending) of the store."""

    deleted: str

    def __call__(self, task: CompactTask, store: Store) -> Record:
        """Do one task."""
        deleted = np.load(store.local(self.deleted), mmap_mode="r", allow_pickle=False)
        return compact(task, store, deleted)


def _united(store: Store, task: CompactTask) -> pa.Schema:
    """The schema that holds the rows of all sources."""
    found = [pq.read_schema(store.parquet(source["path"])) for source in task.sources]
    kinds = [vector_type(one) for one in found]
    dtype = "float32" if any(kind.itemsize == 4 for _, kind in kinds) else "float16"
    properties = {
        key.decode(): value.decode()
        for key, value in (found[0].metadata or {}).items()
        if key.startswith(b"lookalike.")
    }
    return schema(kinds[0][0], metadata_columns(found), properties, dtype)


def rows_of(
    store: Store, source: Line, deleted: Ids, target: pa.Schema
) -> Iterator[tuple[pa.Table, Vectors]]:
    """The living rows of a shard in order: all columns but id and embedding, and vectors.

    Raises:
        ValueError: The file has other ids or rows than its number and its record say.
    """
    path = source["path"]
    shard = store.once(path)
    with pq.ParquetFile(shard) as file:
        names = [name for name in file.schema_arrow.names if name not in ("id", "embedding")]
        table = _as(file.read(columns=names), target)
    start = 0
    for ids, vectors in iter_blocks(shard):
        first = make_id(int(source["file_no"]), start)
        last = first + len(ids) - 1
        if ids[0] != first or ids[-1] != last:
            raise ValueError(
                f"{store.shown(path)}: {len(ids):,} rows from row {start:,} on must have the ids "
                f"{first} to {last}, they have {ids[0]} to {ids[-1]}"
            )
        begin, end = np.searchsorted(deleted, [first, first + len(ids)])
        kept = np.ones(len(ids), dtype=bool)
        kept[deleted[begin:end] - first] = False
        block = table.slice(start, len(ids))
        yield block.filter(pa.array(kept)), vectors[kept]
        start += len(ids)
    if not start == table.num_rows == source["rows"]:
        raise ValueError(
            f"{store.shown(path)}: {source['rows']:,} rows listed, {table.num_rows:,} there, "
            f"{start:,} vectors"
        )


def _as(table: pa.Table, target: pa.Schema) -> pa.Table:
    """A table's columns by the types of another schema."""
    return pa.table(
        {name: cast(table[name], target.field(name).type) for name in table.column_names}
    )
