"""The rows that a snapshot's searches may return, as a dataset and by id: for readers of the store.

The files under embeddings/ are shared by snapshots and keep rows that are deleted, so they are not
to be read by a glob: a manifest says which files count, and its tombstones which rows do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.store.columns import fitting
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store
from lookalike.store.shard_format import COLUMNS, metadata_columns, of_rows, vector_type
from lookalike.store.snapshot import check_sizes, files_of
from lookalike.store.storage import filesystem
from lookalike.store.tombstones import tombstones_of
from lookalike.store.vector_reader import VectorReader

_READ_KINDS = ("embedding", "tombstones")
_PROPERTIES = b"lookalike."
_MOST_SHOWN = 3


def deleted_ids(store: Store, manifest: Manifest) -> Ids:
    """Ids of a snapshot's rows that its tombstones delete, (m,) int64, ascending.

    Raises:
        RequestError: A file of tombstones is missing, or is none.
    """
    ids = tombstones_of(store, manifest)
    rows = {int(line["file_no"]): int(line["rows"]) for line in files_of(manifest, "embedding")}
    return np.asarray(ids[of_rows(ids, rows)])


def living_dataset(store: Store, manifest: Manifest) -> Any:
    """The living rows of a snapshot, file by file; nothing but footers is read here.

    Returns:
        A `pyarrow.dataset.Dataset` with a filter, so that every scan leaves out the deleted rows.
        Its fragments would not have the filter; Arrow refuses to give them.

    Raises:
        RequestError: A file is missing, or of another size than the manifest says.
    """
    lines = [line for line in manifest["files"] if line["kind"] in _READ_KINDS]
    for problem in check_sizes(store, lines):
        raise RequestError(f"{store}: {problem}; run: lookalike verify")
    deleted = deleted_ids(store, manifest)
    paths = [str(line["path"]) for line in files_of(manifest, "embedding")]
    schema = united_schema(store.at_once(lambda path: pq.read_schema(store.parquet(path)), paths))
    if not paths:
        return pads.dataset(schema.empty_table())
    files, below = filesystem(store.name)
    whole = pads.dataset(
        [f"{below.rstrip('/')}/{path}" for path in paths],
        schema=schema,
        format="parquet",
        filesystem=files,
    )
    return whole.filter(~pc.field("id").isin(pa.array(deleted))) if len(deleted) else whole


def united_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of all shards, in which a column that some lack is null."""
    found = list(schemas)
    if not found:
        return pa.schema([("id", pa.int64()), ("uri", pa.string())])
    first = found[0]
    known = {
        key: value
        for key, value in (first.metadata or {}).items()
        if key.startswith(_PROPERTIES) and not key.endswith(b"addresses")
    }
    plain = [first.field(name) for name in COLUMNS if name != "embedding"]
    return pa.schema([*plain, *metadata_columns(found), first.field("embedding")], known)


def check_living(ids: Ids, rows: Mapping[int, int], deleted: Ids) -> None:
    """Whether all of the ids (n,), in any order, are of living rows; `deleted` is ascending.

    Raises:
        RequestError: Some are not; which, and why.
    """
    unknown = ~of_rows(ids, rows)
    if unknown.any():
        raise RequestError(f"rows: {_some(ids[unknown])} of no row of this snapshot")
    dead = np.isin(ids, deleted)
    if dead.any():
        raise RequestError(f"rows: {_some(ids[dead])} of deleted rows")


def _some(ids: Ids) -> str:
    shown = ", ".join(str(one) for one in ids[:_MOST_SHOWN].tolist())
    if len(ids) == 1:
        return f"id {shown} is"
    return f"ids {shown}{', …' if len(ids) > _MOST_SHOWN else ''} ({len(ids):,} in all) are"


def read_rows(
    reader: VectorReader, schema: pa.Schema, ids: Ids, columns: Sequence[str]
) -> pa.Table:
    """Columns of living rows, in the order of the ids, of which one may come again."""
    wanted = pa.schema([schema.field(name) for name in columns], schema.metadata)
    plain = pa.schema([field for field in wanted if field.name != "embedding"])
    distinct, order = np.unique(ids, return_inverse=True)
    found = {"embedding": _vectors(reader, distinct, wanted)} if len(plain) < len(wanted) else {}
    if len(plain):
        parts = [
            fitting(table.take(pa.array(rows)), plain)
            for _, table, rows in reader.tables(
                distinct, lambda file: tuple(n for n in plain.names if n in file.columns)
            )
        ]
        whole = pa.concat_tables([plain.empty_table(), *parts])
        found |= {name: whole[name] for name in plain.names}
    table = pa.table([found[name] for name in columns], schema=wanted)
    return table.take(pa.array(order.reshape(-1)))


def _vectors(reader: VectorReader, ids: Ids, wanted: pa.Schema) -> pa.Array:
    """Stored vectors of rows (n,) as a column."""
    kind, (_, dtype) = wanted.field("embedding").type, vector_type(wanted)
    vectors = reader.vectors(ids).astype(dtype)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
