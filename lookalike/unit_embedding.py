"""One work unit -> one shard, one ledger part and, last, a done file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from lookalike.embedding import embed_files
from lookalike.models.features import Embedder
from lookalike.outcomes import Duplicate, Embedded, Failed
from lookalike.pictures.decoding import Decoder
from lookalike.records import SourceFile, Unit
from lookalike.store import shards
from lookalike.store.forgotten import REASON, Forgotten, forgotten_row
from lookalike.store.ledger import Counts, LedgerRow, metadata_hash, write_ledger
from lookalike.store.storage import write_json

_NOTHING: Mapping[bytes, int] = MappingProxyType({})


def embed_unit(
    unit: Unit,
    files: Iterable[SourceFile],
    store: Path,
    embedder: Embedder,
    decoder: Decoder,
    metadata: pa.Schema,
    properties: dict[str, str],
    dtype: str = "float32",
    known: Mapping[bytes, int] = _NOTHING,
    forgotten: Forgotten | None = None,
) -> dict[str, Any]:
    """Embed a unit into its shard and ledger.

    The shard is written first and the done file last, each whole or absent, so a unit is either
    finished or will be done again from the start.

    Args:
        unit: Where everything of it lies.
        files: Its files.
        store: The store's root.
        embedder: The models.
        decoder: Makes inputs of the embedder's sizes.
        metadata: The metadata columns.
        properties: Key-value metadata of the shard.
        dtype: Vectors are stored as: float32 or float16.
        known: Ids of contents that have a vector in the store, by sha256: these are neither decoded
            nor embedded, and are `unchanged` in the ledger, under that id.
        forgotten: Contents that must not come back.

    Returns:
        What the done file says.
    """
    forgotten = forgotten or Forgotten()
    ledger: list[LedgerRow] = []
    repeats: list[Duplicate] = []
    fates: dict[bytes, LedgerRow] = {}
    schema = shards.schema(embedder.dim, metadata, properties, dtype)
    with shards.open_shard(store, unit.shard, schema, unit.file_no) as (writer, pending):
        outcomes = embed_files(files, embedder, decoder, known=known, forgotten=forgotten)
        for outcome in outcomes:
            if isinstance(outcome, Duplicate):
                if outcome.sha256 in known:
                    ledger.append(_unchanged(outcome, known[outcome.sha256]))
                else:
                    repeats.append(outcome)
                continue
            row = _ledger_row(outcome, writer)
            ledger.append(row)
            if outcome.sha256 is not None:
                fates.setdefault(outcome.sha256, row)
    for repeat in repeats:
        ledger.append(_like(repeat, fates[repeat.sha256]))
    ledger.sort(key=lambda row: row.uri)
    counts = Counts()
    for row in ledger:
        counts.add(row)
    record, _ = write_ledger(store, unit.ledger, ledger)
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


def _ledger_row(outcome: Embedded | Failed, writer: shards.ShardWriter) -> LedgerRow:
    file = outcome.file
    if isinstance(outcome, Failed):
        if outcome.reason == REASON and outcome.sha256 is not None:
            return forgotten_row(file.uri, outcome.sha256)
        return replace(
            _about(file, outcome.sha256),
            status=outcome.status, reason=outcome.reason, detail=outcome.detail,
        )  # fmt: skip
    row_id = writer.append(
        {
            **file.metadata,
            "uri": file.uri,
            "content_sha256": outcome.sha256,
            "width": outcome.width,
            "height": outcome.height,
            "format": outcome.format,
            "bytes": outcome.bytes,
        },
        outcome.vector,
    )
    return replace(_about(file, outcome.sha256), id=row_id)


def _about(file: SourceFile, sha256: bytes | None) -> LedgerRow:
    """The row of a file that was embedded, but for the id."""
    return LedgerRow(
        file.uri, "embedded", "", "", file.bytes, file.version, sha256,
        metadata_hash=metadata_hash(file.metadata),
    )  # fmt: skip


def _unchanged(outcome: Duplicate, row_id: int) -> LedgerRow:
    """The row of a file whose content has a vector in the store already."""
    return replace(_about(outcome.file, outcome.sha256), status="unchanged", id=row_id)


def _like(repeat: Duplicate, first: LedgerRow) -> LedgerRow:
    """The ledger row of a file whose bytes met the same fate under another name."""
    status = "duplicate" if first.status == "embedded" else first.status
    detail = first.uri if status == "duplicate" else first.detail
    return replace(
        _about(repeat.file, repeat.sha256),
        status=status, reason=first.reason, detail=detail, id=first.id,
    )  # fmt: skip
