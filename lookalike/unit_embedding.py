"""One work unit -> one shard, one ledger part and, last, the record that names them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import MappingProxyType

import pyarrow as pa

from lookalike.embedding import embed_files
from lookalike.images.decoding import Decoder
from lookalike.models.embedder import Embedder
from lookalike.outcomes import Duplicate, Embedded, Failed, RejectedNames
from lookalike.records import SourceFile, Unit
from lookalike.store import shard_format, shards
from lookalike.store.attempts import Record, leave, record_of
from lookalike.store.durable import PendingFile
from lookalike.store.files import HashedName
from lookalike.store.forgotten import REASON, Forgotten, forgotten_row
from lookalike.store.ledger import Counts, LedgerRow, metadata_hash, write_ledger
from lookalike.store.objects import Store

_LOG = logging.getLogger(__name__)
_NOTHING: Mapping[bytes, int] = MappingProxyType({})


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
) -> Callable[[], Record]:
    """Embed a unit's files, unless it is done already; what is returned finishes it.

    To finish a unit is to write the rest of its shard, its ledger and, last, its record, all of
    which waits for disks or a network: another thread may do it beside the next unit. Without that
    nothing is left of the unit. It is either finished or will be done again from the start; of
    several attempts the first one's record counts (see `store.attempts`).

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
        To be called once: gives the record: `counts`, `ledger` (path, sha256, bytes) and `shard`,
        the manifest's line, or None where no row is new; and how many files were `misstated`: of
        another size than listed.
    """
    if (there := record_of(store, unit)) is not None:
        return lambda: there
    schema = shard_format.schema(embedder.dim, metadata, properties, dtype)
    name = HashedName(unit.shard, ".parquet")
    with ExitStack() as opened:
        shard = opened.enter_context(shards.open_shard(store, name, schema, unit.file_no))
        rows = _UnitRows(*shard, known)
        for outcome in embed_files(
            files, embedder, decoder, known=known, forgotten=forgotten or Forgotten()
        ):
            rows.take(outcome)
        return partial(_finish, unit, store, rows, opened.pop_all())


def _finish(unit: Unit, store: Store, rows: _UnitRows, opened: ExitStack) -> Record:
    with opened:
        if not rows.writer.rows:  # nothing to keep: a snapshot lists no empty shards
            rows.pending.drop()
    ledger, counts, rejected = rows.ledger(), Counts(), RejectedNames()
    for row in ledger:
        counts.add(row)
    rejected.add((row.reason, row.uri) for row in ledger if row.status == "rejected")
    rejected.log(_LOG, "embed", unit.number, len(ledger))
    part, _ = write_ledger(store, HashedName(unit.ledger, ".parquet"), ledger)
    shard = None
    if rows.writer.rows:
        shard = shards.shard_record(rows.pending.finished, unit.file_no, rows.writer.rows)
    record = {
        "counts": counts.to_json(), "ledger": part.to_json(), "shard": shard,
        "misstated": rows.misstated,
    }  # fmt: skip
    return leave(store, unit.done, record)


class _UnitRows:
    """What becomes of a unit's files: rows of a shard that is open, and of the ledger.

    Attributes:
        writer: Of the shard, as is `pending`.
        misstated: Files of another size than listed.
    """

    def __init__(
        self, writer: shards.ShardWriter, pending: PendingFile, known: Mapping[bytes, int]
    ) -> None:
        self.writer, self.pending, self._known = writer, pending, known
        self.misstated = 0
        self._rows: list[LedgerRow] = []
        self._repeats: list[Duplicate] = []
        self._fates: dict[bytes, LedgerRow] = {}

    def take(self, outcome: Embedded | Duplicate | Failed) -> None:
        """Add what came of one file."""
        if isinstance(outcome, Duplicate):
            if outcome.sha256 in self._known:
                self._rows.append(_unchanged(outcome, self._known[outcome.sha256]))
            else:
                self._repeats.append(outcome)
            return
        if isinstance(outcome, Embedded):
            self.misstated += outcome.file.bytes not in (-1, outcome.bytes)
        row = _ledger_row(outcome, self.writer)
        self._rows.append(row)
        if outcome.sha256 is not None:
            self._fates.setdefault(outcome.sha256, row)

    def ledger(self) -> list[LedgerRow]:
        """The rows of all files, by name."""
        repeats = [_like(repeat, self._fates[repeat.sha256]) for repeat in self._repeats]
        return sorted([*self._rows, *repeats], key=lambda row: row.uri)


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
