"""First step of a join: rows with equal vectors become one, and each goes to its list's partition.

A pile of a million equal vectors would make 10^12 pairs; here it makes a million links, each to the
first of them, and one row that is compared with others.

    tasks of files  -> (row, list) of distinct vectors, dealt out by list; links of equal ones
    partitions      -> distinct rows in order of their lists, links between tasks' equal ones

With a column to share, vectors are equal only where its values are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.copies.pair_recall import Sample, Seen
from lookalike.copies.spec import Join, Joined, own_scores_pass
from lookalike.copies.tiles import Rows
from lookalike.copies.values import Values, distinct, keys_of, values_of
from lookalike.store.attempts import Part, Record, recorded
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import HashedName, npz_arrays, npz_bytes
from lookalike.store.living import deleted_ids
from lookalike.store.manifest import FileJson
from lookalike.store.objects import Store
from lookalike.store.shard_format import row_numbers
from lookalike.store.shards import iter_blocks
from lookalike.store.tombstones import among

_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("list", pa.int64()),
        ("key", pa.uint64()),  # of vector and value, and
        ("more", pa.uint64()),  # the other half of it
        ("value", pa.uint64()),
        ("alike", pa.bool_()),  # whether two rows with this vector are near-copies
    ]
)


def deal(number: int, scratch: Store, join: Join) -> Record:
    """Deal out the distinct rows of some files, by their lists."""
    return _deal(Part(f"{join.folder}/dealt", number), scratch, join)


@recorded
def _deal(part: Part, scratch: Store, join: Join) -> Record:
    joined, sample = join.opened(), Sample.read(scratch, join)
    seen, parts = Seen(sample, joined.metric, join.threshold), [_SCHEMA.empty_table()]
    for path in joined.tasks[part.number]:
        parts += _rows_of(path, joined, join, seen)
    rows, links = _collapsed(pa.concat_tables(parts))
    with Dealing(scratch, _file(part, ".arrow"), joined.partitions) as dealing:
        dealing.write(rows, joined.partition(rows["list"].to_numpy()))
    return {
        **dealing.record(),
        "links": put_arrays(scratch, _file(part, ".links"), **links),
        "seen": put_arrays(scratch, _file(part, ".seen"), **seen.arrays()),
    }


def take(number: int, pieces: list[Reference], scratch: Store, join: Join) -> Record:
    """Write a partition's distinct rows, in order of their lists."""
    return _take(Part(f"{join.folder}/taken", number), scratch, pieces)


@recorded
def _take(part: Part, scratch: Store, pieces: list[Reference]) -> Record:
    table = taken(scratch, pieces, _SCHEMA)
    rows, links = _collapsed(table)
    lists, ids = rows["list"].to_numpy(), rows["id"].to_numpy()
    order = np.lexsort((ids, lists))
    return {
        "rows": table.num_rows,
        "distinct": len(ids),
        "file": put_arrays(
            scratch,
            _file(part, ".rows"),
            ids=ids[order],
            lists=lists[order],
            values=rows["value"].to_numpy()[order],
        ),
        "links": put_arrays(scratch, _file(part, ".links"), **links),
    }


def _file(part: Part, suffix: str) -> HashedName:
    return HashedName(part.done.removesuffix(".json"), suffix)


def put_arrays(scratch: Store, name: HashedName, **arrays: npt.NDArray[Any]) -> FileJson:
    """Write arrays into a file; returns its record."""
    return scratch.put(name, npz_bytes(**arrays)).to_json()


def get_arrays(scratch: Store, file: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Undo `put_arrays`."""
    return npz_arrays(scratch.read_bytes(str(file["path"])))


def _rows_of(path: str, joined: Joined, join: Join, seen: Seen) -> list[pa.Table]:
    """The living rows of a file."""
    deleted, shared = deleted_ids(joined.store, joined.manifest), _shared(path, joined, join)
    tables = []
    for ids, vectors in iter_blocks(joined.store.once(path)):
        living = ~among(ids, deleted)
        ids, vectors = ids[living], vectors[living]
        if not len(ids):
            continue
        values = np.zeros(len(ids), np.uint64) if shared is None else shared[row_numbers(ids)]
        keys = keys_of(vectors, values)
        seen.look(distinct(Rows(ids, values, vectors), keys))
        lists = joined.trained.assign(joined.trained.prepare(vectors))
        alike = own_scores_pass(vectors, join.threshold, joined.metric)
        columns = [ids, lists, *keys.T, values, alike]
        tables.append(pa.table(columns, schema=_SCHEMA))
    return tables


def _shared(path: str, joined: Joined, join: Join) -> Values | None:
    """The values of a file's rows that pairs share; None where they share none."""
    if join.within is None:
        return None
    name, kind = join.within.name, join.within.type
    with pq.ParquetFile(joined.store.parquet(path)) as shard:
        if name not in shard.schema_arrow.names:
            return values_of(pa.chunked_array([pa.nulls(shard.metadata.num_rows, kind)]))
        return values_of(shard.read([name], use_threads=False)[name].cast(kind))


def _collapsed(table: pa.Table) -> tuple[pa.Table, dict[str, npt.NDArray[Any]]]:
    """One row, the first by id, for equal keys; and links to it: `first`, `id`, `alike`."""
    ids, key, more, alike = (table[name].to_numpy() for name in ("id", "key", "more", "alike"))
    order = np.lexsort((ids, more, key))
    ids, key, more = ids[order], key[order], more[order]
    new = np.ones(len(ids), dtype=bool)
    new[1:] = (key[1:] != key[:-1]) | (more[1:] != more[:-1])
    first = ids[new][np.cumsum(new) - 1] if len(ids) else ids
    links = {"first": first[~new], "id": ids[~new], "alike": alike[order][~new]}
    return table.take(pa.array(order[new])), links
