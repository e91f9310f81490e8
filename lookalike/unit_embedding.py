"""One work unit -> one shard, one ledger part and, last, a done file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from lookalike.embedding import embed_files
from lookalike.models.features import Embedder
from lookalike.outcomes import Duplicate, Embedded, Failed
from lookalike.pictures.decoding import Decoder
from lookalike.records import SourceFile, Unit
from lookalike.store import shards
from lookalike.store.ledger import Counts, LedgerRow, write_ledger
from lookalike.store.storage import write_json


def embed_unit(
    unit: Unit,
    files: Iterable[SourceFile],
    store: Path,
    embedder: Embedder,
    decoder: Decoder,
    metadata: pa.Schema,
    properties: dict[str, str],
    dtype: str = "float32",
) -> dict[str, Any]:
    """Embed a unit into its shard (vectors as `dtype`) and ledger; returns its done file's content.

    The shard is written first and the done file last, each whole or absent, so a unit is either
    finished or will be done again from the start.
    """
    ledger: list[LedgerRow] = []
    repeats: list[Duplicate] = []
    fates: dict[bytes, LedgerRow] = {}
    schema = shards.schema(embedder.dim, metadata, properties, dtype)
    with shards.open_shard(store, unit.shard, schema, unit.file_no) as (writer, pending):
        for outcome in embed_files(files, embedder, decoder):
            if isinstance(outcome, Duplicate):
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
        return LedgerRow(
            file.uri, outcome.status, outcome.reason, outcome.detail, file.bytes, file.version,
            outcome.sha256,
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
    return LedgerRow(
        file.uri, "embedded", "", "", file.bytes, file.version, outcome.sha256, row_id
    )  # fmt: skip


def _like(repeat: Duplicate, first: LedgerRow) -> LedgerRow:
    """The ledger row of a file whose bytes met the same fate under another name."""
    status = "duplicate" if first.status == "embedded" else first.status
    detail = first.uri if status == "duplicate" else first.detail
    return LedgerRow(
        repeat.file.uri, status, first.reason, detail, repeat.file.bytes, repeat.file.version,
        repeat.sha256, first.id,
    )  # fmt: skip
