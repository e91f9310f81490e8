"""One work unit of vectors made elsewhere: a run of row groups of a table -> a shard and a ledger.

Only the rows listed in the unit are read. One whose vector and metadata are what the store has
under its uri keeps its row there; all others get a new one.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.outcomes import RejectedNames
from lookalike.reconcile.metadata import metadata_hashes
from lookalike.records import Unit
from lookalike.sources.units import Units
from lookalike.sources.vector_pieces import piece_of
from lookalike.sources.vector_rows import ListedRows, read_rows
from lookalike.store import shard_format, shards
from lookalike.store.attempts import Record, recorded
from lookalike.store.columns import cast
from lookalike.store.files import HashedName
from lookalike.store.forgotten import Forgotten, forgotten_row
from lookalike.store.ledger import SCHEMA, Counts, as_written_now, write_ledger_tables
from lookalike.store.objects import Store
from lookalike.vector_faults import REASONS, Judged, Rules, judge

_LOG = logging.getLogger(__name__)
_STATUSES = ("rejected", "embedded", "unchanged", "ignored")
_REJECTED, _EMBEDDED, _UNCHANGED, _IGNORED = range(len(_STATUSES))

Mask = npt.NDArray[np.bool_]


@recorded
def ingest_unit(
    unit: Unit,
    store: Store,
    units: Units,
    rules: Rules,
    metadata: pa.Schema,
    properties: dict[str, str],
    forgotten: Forgotten | None = None,
) -> Record:
    """Bring a unit's vectors into its shard, and its rows into the ledger, unless that is done.

    The record is put last, so a unit is either finished or will be done again; of several attempts
    the first one's counts (see `store.attempts`).

    Args:
        unit: Where everything of it lies.
        store: The store's root.
        units: Where the rows of all units lie.
        rules: What the vectors must be.
        metadata: The metadata columns.
        properties: Key-value metadata of the shard.
        forgotten: Vectors that must not come back, by the sha256 of their bytes as stored.

    Returns:
        The record, as that of `unit_embedding.embed_unit`.
    """
    forgotten = forgotten or Forgotten()
    piece, listed = piece_of(store, units, unit.number), units.table(store, unit.number)
    statuses: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    rejected = RejectedNames()
    schema = shard_format.schema(rules.dim, metadata, properties, rules.dtype)
    name = HashedName(unit.shard, ".parquet")
    with shards.open_shard(store, name, schema, unit.file_no) as (writer, pending):

        def ledger() -> Iterator[pa.Table]:
            for rows in read_rows(piece, listed):
                if rows.batch is None:
                    statuses["rejected"] += rows.listed.num_rows
                    reasons["unreadable"] += rows.listed.num_rows
                    table = _lost_rows(rows, piece.uri)
                    rejected.add(_rejected(table))
                    yield table
                    continue
                judged = judge(rows.batch, rows.numbers, rules, rows.repeats)
                found = _found(rows, judged, metadata, forgotten)
                ids = _keep(found, writer)
                statuses.update(_counted(found.statuses, _STATUSES))
                reasons.update(judged.counts())
                table = _ledger_rows(rows, judged, found, ids)
                rejected.add(_rejected(table))
                yield table

        part, _ = write_ledger_tables(store, HashedName(unit.ledger, ".parquet"), ledger())
        if not writer.rows:  # nothing to keep: a snapshot lists no empty shards
            pending.drop()
    del reasons[""]
    rejected.log(_LOG, "ingest", unit.number, statuses.total())
    shard = None
    if writer.rows:
        shard = shards.shard_record(pending.finished, unit.file_no, writer.rows)
    counts = Counts(statuses, reasons).to_json()
    return {"counts": counts, "ledger": part.to_json(), "shard": shard}


def _counted(indices: npt.NDArray[np.int8], names: Sequence[str]) -> dict[str, int]:
    return dict(zip(names, np.bincount(indices, minlength=len(names)).tolist(), strict=True))


class _Found(NamedTuple):
    """What is known of the rows of a batch, before those that are new are kept.

    Attributes:
        statuses: Of all rows, (n,), as an index into `_STATUSES`.
        columns: The shard's columns but id and embedding, of the m sound rows.
        vectors: Theirs, (m, d).
        digests: sha256 of each vector as it is stored, (m,).
        hashes: Of their metadata, (m,).
        ids: Under which the store has them, null where it has not, (m,).
    """

    statuses: npt.NDArray[np.int8]
    columns: pa.Table
    vectors: npt.NDArray[Any]
    digests: pa.Array
    hashes: npt.NDArray[np.int64]
    ids: pa.Array


def _found(rows: ListedRows, judged: Judged, metadata: pa.Schema, forgotten: Forgotten) -> _Found:
    assert rows.batch is not None
    sound, digests = judged.sound, _digests(judged.vectors)
    batch, listed = rows.batch, rows.listed
    if not sound.all():
        batch, listed = batch.filter(pa.array(sound)), listed.filter(pa.array(sound))
    columns = _columns(batch, judged.vectors, digests, metadata)
    given = [name for name in metadata.names if name in columns.column_names]
    hashes = metadata_hashes(columns.select(given))
    same = _same(listed, digests, hashes)
    of_sound = np.where(same, _UNCHANGED, _EMBEDDED).astype(np.int8)
    if len(forgotten):
        of_sound[[digest in forgotten for digest in digests.to_pylist()]] = _IGNORED
    statuses = np.full(len(sound), _REJECTED, dtype=np.int8)
    statuses[sound] = of_sound
    ids = pa.nulls(len(digests), pa.int64())
    if same.any():
        ids = pc.if_else(pa.array(of_sound == _UNCHANGED), listed["_was_id"].combine_chunks(), ids)
    return _Found(statuses, columns, judged.vectors, digests, hashes, ids)


def _same(listed: pa.Table, digests: pa.Array, hashes: npt.NDArray[np.int64]) -> Mask:
    """Which rows have the vector and the metadata that they had when they were read before."""
    if "_was_id" not in listed.column_names or listed["_was_id"].null_count == len(listed):
        return np.zeros(len(listed), dtype=bool)
    alike = pc.and_(
        pc.equal(listed["_was_sha256"], digests),
        pc.equal(listed["_was_metadata_hash"], pa.array(hashes)),
    )
    there = pc.and_(listed["_was_id"].is_valid(), alike).combine_chunks()
    return np.asarray(there.fill_null(False).to_numpy(zero_copy_only=False))


def _keep(found: _Found, writer: shards.ShardWriter) -> pa.Array:
    """Write the rows that are new; returns the ids of all sound rows, null of those ignored."""
    of_sound = found.statuses[found.statuses != _REJECTED]
    new = of_sound == _EMBEDDED
    if new.all():
        return pa.array(writer.append_block(found.columns, found.vectors))
    if not new.any():
        return found.ids
    given = writer.append_block(found.columns.filter(pa.array(new)), found.vectors[new])
    ids = np.zeros(len(new), dtype=np.int64)
    ids[new] = given
    return pc.if_else(pa.array(new), pa.array(ids), found.ids)


def _digests(vectors: npt.NDArray[Any]) -> pa.Array:
    """sha256 of the bytes of each vector, as it is stored."""
    sha256, size = hashlib.sha256, vectors.itemsize * vectors.shape[1]
    data = np.ascontiguousarray(vectors).view(np.uint8).reshape(-1).data
    joined = b"".join([sha256(data[at : at + size]).digest() for at in range(0, len(data), size)])
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(vectors), [None, pa.py_buffer(joined)]
    )


def _columns(
    batch: pa.RecordBatch, vectors: npt.NDArray[Any], digests: pa.Array, metadata: pa.Schema
) -> pa.Table:
    """The shard's columns but id and embedding."""
    count, size = vectors.shape[0], vectors.shape[1] * vectors.itemsize
    columns = {
        "uri": batch["uri"],
        "content_sha256": digests,
        "format": pa.repeat("vector", count),
        "bytes": pa.repeat(pa.scalar(size, pa.int64()), count),
    }
    for field in metadata:
        if field.name in batch.schema.names:
            columns[field.name] = cast(batch[field.name], field.type)
    return pa.table(columns)


def _rejected(table: pa.Table) -> Iterator[tuple[str, str]]:
    """Reason and name of the ledger's rejected rows."""
    found = table.filter(pc.equal(table["status"], "rejected"))
    return zip(found["reason"].to_pylist(), found["uri"].to_pylist(), strict=True)


# --- the ledger -------------------------------------------------------------------------------


def _ledger_rows(rows: ListedRows, judged: Judged, found: _Found, ids: pa.Array) -> pa.Table:
    sound, count = judged.sound, len(judged.faults)
    # Row i of the batch has the place[i]-th vector.
    place = pa.array(np.cumsum(sound) - 1, mask=~sound)
    details: list[str] | pa.Array = pa.repeat("", count)
    if judged.details:
        details = [judged.details.get(row, "") for row in range(count)]
    table = pa.table(
        {
            **_as_listed(rows),
            "status": _named(found.statuses, _STATUSES),
            "reason": _named(judged.faults.astype(np.int8), REASONS),
            "detail": details,
            "content_sha256": found.digests.take(place),
            "id": ids.take(place),
            "metadata_hash": pc.fill_null(pa.array(found.hashes).take(place), 0),
        }
    )
    return _without_forgotten(as_written_now(table), found)


def _without_forgotten(table: pa.Table, found: _Found) -> pa.Table:
    """The rows, those ignored without name and hash."""
    if not (found.statuses == _IGNORED).any():
        return table
    rows = table.to_pylist()
    for i in np.flatnonzero(found.statuses == _IGNORED).tolist():
        rows[i] = forgotten_row(rows[i]["uri"], rows[i]["content_sha256"]).__dict__
    return pa.Table.from_pylist(rows, SCHEMA)


def _lost_rows(rows: ListedRows, name: str) -> pa.Table:
    """The ledger's rows of what cannot be read."""
    count = rows.listed.num_rows
    table = pa.table(
        {
            **_as_listed(rows),
            "status": pa.repeat("rejected", count),
            "reason": pa.repeat("unreadable", count),
            "detail": pa.repeat(f"{name}: {rows.problem}", count),
            "content_sha256": pa.nulls(count, pa.binary(32)),
            "id": pa.nulls(count, pa.int64()),
            "metadata_hash": np.zeros(count, dtype=np.int64),
        }
    )
    return as_written_now(table)


def _as_listed(rows: ListedRows) -> dict[str, pa.ChunkedArray]:
    return {name: rows.listed[name] for name in ("uri", "bytes", "version")}


def _named(indices: npt.NDArray[np.int8], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(indices, pa.array(names)).dictionary_decode()
