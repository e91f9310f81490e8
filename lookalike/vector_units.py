"""One work unit of vectors made elsewhere: a run of row groups of a table -> a shard and a ledger.

Row groups are read in batches: a unit's memory is that of a batch, however large they are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import one_line
from lookalike.records import SourceFile, Unit
from lookalike.sources.vector_pieces import Piece, read_unit
from lookalike.sources.vector_tables import UNREADABLE, VectorTable, open_table, read_footer
from lookalike.sources.walking import look_up
from lookalike.store import shards
from lookalike.store.ledger import SCHEMA, Counts, write_ledger_tables
from lookalike.store.storage import write_json
from lookalike.vector_faults import NULL_URI, REASONS, Judged, Rules, judge

_BATCH = 8192  # rows in memory at a time


def ingest_unit(
    unit: Unit, store: Path, rules: Rules, metadata: pa.Schema, properties: dict[str, str]
) -> dict[str, Any]:
    """Bring a unit's vectors into its shard, and its rows into the ledger.

    The done file is written last, so a unit is either finished or will be done again.

    Returns:
        What the done file says.
    """
    piece, repeats = read_unit(store / unit.source)
    reasons: Counter[str] = Counter()
    schema = shards.schema(rules.dim, metadata, properties, rules.dtype)
    with shards.open_shard(store, unit.shard, schema, unit.file_no) as (writer, pending):

        def ledger() -> Iterator[pa.Table]:
            for rows in _batches(piece):
                if rows.batch is None:
                    reasons["unreadable"] += rows.size
                    yield _lost_rows(piece, rows)
                    continue
                judged = judge(rows.batch, rows.first, rules, repeats)
                reasons.update(judged.counts())
                digests = _digests(judged.vectors)
                block = _columns(rows.batch, judged, digests, metadata)
                ids = writer.append_block(block, judged.vectors)
                yield _ledger_rows(piece, rows, judged, digests, ids)

        record, _ = write_ledger_tables(store, unit.ledger, ledger())
    embedded = reasons.pop("", 0)
    counts = Counts(Counter(embedded=embedded, rejected=reasons.total()), reasons)
    done: dict[str, Any] = {
        "counts": counts.to_json(),
        "ledger": record.to_json(),
        "shard": shards.shard_record(pending.finished, unit.file_no, writer.rows),
    }
    if not writer.rows:  # nothing to keep: a snapshot lists no empty shards
        (store / unit.shard).unlink()
        done["shard"] = None
    write_json(store, unit.done, done)
    return done


class _Rows(NamedTuple):
    """Rows of a table: the number of the first, how many, and their batch, or why there is none."""

    first: int
    size: int
    batch: pa.RecordBatch | None
    problem: str = ""


def _batches(piece: Piece) -> Iterator[_Rows]:
    """All rows of a piece; a row group that is damaged costs no other."""
    file = look_up(piece.uri)
    row, end = piece.first_row, piece.first_row + piece.rows
    problem = file.problem or _changed(file, piece)
    try:
        if not problem:
            with open_table(file.uri) as opened:
                table = read_footer(file)
                for group in range(piece.first_group, piece.end_group):
                    yield from _group(opened, table, group, row)
                    row += table.groups[group]
    except UNREADABLE as error:
        problem = one_line(error)
    yield from _lost(row, end, problem)


def _group(opened: pq.ParquetFile, table: VectorTable, group: int, row: int) -> Iterator[_Rows]:
    end = row + table.groups[group]
    problem = "it has fewer rows than it announces"
    try:
        for batch in opened.iter_batches(
            _BATCH, row_groups=[group], columns=list(table.columns), use_threads=False
        ):
            yield _Rows(row, batch.num_rows, _as_kept(batch, table))
            row += batch.num_rows
    except UNREADABLE as error:
        problem = one_line(error)
    yield from _lost(row, end, f"row group {group}: {problem}")


def _lost(row: int, end: int, problem: str) -> Iterator[_Rows]:
    for start in range(row, end, _BATCH):
        yield _Rows(start, min(_BATCH, end - start), None, problem)


def _changed(file: SourceFile, piece: Piece) -> str:
    if (file.bytes, file.version) == (piece.bytes, piece.version):
        return ""
    return f"it changed since it was listed ({piece.bytes:,} bytes then, {file.bytes:,} now)"


def _as_kept(batch: pa.RecordBatch, table: VectorTable) -> pa.RecordBatch:
    """The columns under the names that they are kept by, without dictionaries."""
    columns = {"embedding": batch.column("embedding")}
    for name, kept in {"uri": "uri", **table.metadata}.items():
        column = batch.column(name)
        columns[kept] = column.dictionary_decode() if hasattr(column, "dictionary") else column
    return pa.RecordBatch.from_pydict(columns)


# --- what is written of it --------------------------------------------------------------------


def _digests(vectors: npt.NDArray[Any]) -> pa.Array:
    """sha256 of the bytes of each vector, as it is stored."""
    sha256, size = hashlib.sha256, vectors.itemsize * vectors.shape[1]
    data = np.ascontiguousarray(vectors).view(np.uint8).reshape(-1).data
    joined = b"".join([sha256(data[at : at + size]).digest() for at in range(0, len(data), size)])
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(vectors), [None, pa.py_buffer(joined)]
    )


def _columns(
    batch: pa.RecordBatch, judged: Judged, digests: pa.Array, metadata: pa.Schema
) -> pa.Table:
    """The shard's columns but id and embedding, of the sound rows."""
    rows = batch if judged.sound.all() else batch.filter(pa.array(judged.sound))
    count, size = judged.vectors.shape[0], judged.vectors.shape[1] * judged.vectors.itemsize
    columns = {
        "uri": rows["uri"].cast(pa.string()),
        "content_sha256": digests,
        "format": pa.repeat("vector", count),
        "bytes": pa.repeat(pa.scalar(size, pa.int64()), count),
    }
    for field in metadata:
        if field.name in rows.schema.names:
            columns[field.name] = _cast(rows[field.name], field.type)
    return pa.table(columns)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """As the metadata column has it; a string where tables do not agree on a type."""
    try:
        return column.cast(kind, safe=False)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        values = (None if value is None else str(value) for value in column.to_pylist())
        return pa.array(values, pa.string()).cast(kind)


def _ledger_rows(
    piece: Piece, rows: _Rows, judged: Judged, digests: pa.Array, ids: npt.NDArray[np.int64]
) -> pa.Table:
    assert rows.batch is not None
    sound = judged.sound
    # Row i of the batch has the place[i]-th vector.
    place = pa.array(np.cumsum(sound) - 1, mask=~sound)
    details: list[str] | pa.Array = pa.repeat("", rows.size)
    if judged.details:
        details = [judged.details.get(row, "") for row in range(rows.size)]
    uris = rows.batch["uri"].cast(pa.string())
    if (judged.faults == NULL_URI).any():
        named = _row_names(piece, rows)
        uris = pc.if_else(pa.array(judged.faults == NULL_URI), named, uris)
    size = judged.vectors.shape[1] * judged.vectors.itemsize
    return pa.table(
        {
            "uri": uris,
            "status": _named(sound.astype(np.int8), ("rejected", "embedded")),
            "reason": _named(judged.faults.astype(np.int8), REASONS),
            "detail": details,
            "bytes": np.where(sound, size, -1),
            "version": _versions(piece, rows),
            "content_sha256": digests.take(place),
            "id": pa.array(ids).take(place),
        },
        schema=SCHEMA,
    )


def _lost_rows(piece: Piece, rows: _Rows) -> pa.Table:
    """The ledger's rows of what cannot be read; not even their uris are known."""
    count = rows.size
    return pa.table(
        {
            "uri": _row_names(piece, rows),
            "status": pa.repeat("rejected", count),
            "reason": pa.repeat("unreadable", count),
            "detail": pa.repeat(f"{piece.uri}: {rows.problem}", count),
            "bytes": pa.repeat(pa.scalar(-1, pa.int64()), count),
            "version": _versions(piece, rows),
            "content_sha256": pa.nulls(count, pa.binary(32)),
            "id": pa.nulls(count, pa.int64()),
        },
        schema=SCHEMA,
    )


def _named(indices: npt.NDArray[np.int8], names: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(indices, pa.array(names)).dictionary_decode()


def _row_names(piece: Piece, rows: _Rows) -> pa.Array:
    """`<table>#row=<number>`, of rows that have no uri."""
    return _joined(f"{piece.uri}#row=", rows)


def _versions(piece: Piece, rows: _Rows) -> pa.Array:
    """`<version of the table>+<number>`."""
    return _joined(f"{piece.version}+", rows)


def _joined(text: str, rows: _Rows) -> pa.Array:
    numbers = pa.array(np.arange(rows.first, rows.first + rows.size)).cast(pa.string())
    return pc.binary_join_element_wise(text, numbers, "")
