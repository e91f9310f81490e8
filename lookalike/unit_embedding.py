"""One work unit -> one shard, one ledger part and, last, the record that names them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import pyarrow as pa

from lookalike.embedding import embed_files
from lookalike.images.decoding import Decoder
from lookalike.models.features import Embedder
from lookalike.outcomes import Duplicate, Embedded, Failed
from lookalike.records import SourceFile, Unit
from lookalike.rejected_names import RejectedNames
from lookalike.store import shards
from lookalike.store.attempts import Record, recorded
from lookalike.store.files import HashedName
from lookalike.store.forgotten import REASON, Forgotten, forgotten_row
from lookalike.store.ledger import Counts, LedgerRow, metadata_hash, write_ledger
from lookalike.store.objects import Store

_LOG = logging.getLogger(__name__)
_NOTHING: Mapping[bytes, int] = MappingProxyType({})


@recorded
def embed_unit(
    unit: Unit,
    store: Store,
    files: Iterable[SourceFile],
    embedder: Embedder,
    decoder: Decoder,
    metadata: pa.Schema,
    properties: dict[str, str],
    dtype: str = "float32",
    known: Mapping[bytes, int] = _NOTHING,
    forgotten: Forgotten | None = None,
) -> Record:
    """Embed a unit into its shard and ledger, unless it is done already.

    The record is put last, so a unit is either finished or will be done again from the start; of
    several attempts the first one's counts (see `store.attempts`).

    Args:
        unit: Where everything of it lies.
        store: The store's root.
        files: Its files.
        embedder: The models.
        decoder: Makes inputs of the embedder's sizes.
        metadata: The metadata columns.
        properties: Key-value metadata of the shard.
        dtype: Vectors are stored as: float32 or float16.
        known: Ids of contents that have a vector in the store, by sha256: these are neither decoded
            nor embedded, and are `unchanged` in the ledger, under that id.
        forgotten: Contents that must not come back.

    Returns:
        The record: `counts`, `ledger` (path, sha256, bytes) and `shard`, the manifest's line, or
        None where no row is new; and how many files were `misstated`: of another size than listed.
    """
    forgotten = forgotten or Forgotten()
    ledger: list[LedgerRow] = []
    repeats: list[Duplicate] = []
    misstated = 0
    fates: dict[bytes, LedgerRow] = {}
    schema = shards.schema(embedder.dim, metadata, properties, dtype)
    name = HashedName(unit.shard, ".parquet")
    with shards.open_shard(store, name, schema, unit.file_no) as (writer, pending):
        outcomes = embed_files(files, embedder, decoder, known=known, forgotten=forgotten)
        for outcome in outcomes:
            if isinstance(outcome, Duplicate):
                if outcome.sha256 in known:
                    ledger.append(_unchanged(outcome, known[outcome.sha256]))
                else:
                    repeats.append(outcome)
                continue
            if isinstance(outcome, Embedded):
                misstated += outcome.file.bytes not in (-1, outcome.bytes)
            row = _ledger_row(outcome, writer)
            ledger.append(row)
            if outcome.sha256 is not None:
                fates.setdefault(outcome.sha256, row)
        if not writer.rows:  # nothing to keep: a snapshot lists no empty shards
            pending.drop()
    for repeat in repeats:
        ledger.append(_like(repeat, fates[repeat.sha256]))
    ledger.sort(key=lambda row: row.uri)
    counts = Counts()
    for row in ledger:
        counts.add(row)
    rejected = RejectedNames()
    rejected.add((row.reason, row.uri) for row in ledger if row.status == "rejected")
    rejected.log(_LOG, "embed", unit.number, len(ledger))
    part, _ = write_ledger(store, HashedName(unit.ledger, ".parquet"), ledger)
    shard = None
    if writer.rows:
        shard = shards.shard_record(pending.finished, unit.file_no, writer.rows)
    return {
        "counts": counts.to_json(), "ledger": part.to_json(), "shard": shard,
        "misstated": misstated,
    }  # fmt: skip


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
