"""From listed files to vectors: read, recognise repeats, decode, embed in micro-batches.

Pure generators, with no engine in sight; `transforms.embed` runs them in parallel. One file that
fails never costs another: each yields exactly one outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lookalike import shards
from lookalike.errors import one_line
from lookalike.features import Embedder
from lookalike.images import ImageLimits, NotAnImage, Rejected, decode
from lookalike.ledger import Counts, LedgerRow, write_ledger
from lookalike.records import SourceFile
from lookalike.sniff import SNIFF_BYTES, claims_image, sniff
from lookalike.storage import read_bytes, write_json

BATCH = 32


@dataclass(frozen=True)
class Embedded:
    """A file that became a vector (d,) float32."""

    file: SourceFile
    sha256: bytes
    bytes: int
    width: int
    height: int
    format: str
    vector: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Duplicate:
    """A file with the same bytes as one met before; what became of that one holds for it too."""

    file: SourceFile
    sha256: bytes


@dataclass(frozen=True)
class Failed:
    """A file without a vector: `rejected` for a reason of images.REASONS, or `ignored`."""

    file: SourceFile
    status: str
    reason: str = ""
    detail: str = ""
    sha256: bytes | None = None


Outcome = Embedded | Duplicate | Failed


@dataclass(frozen=True)
class _Pending:
    file: SourceFile
    sha256: bytes
    bytes: int
    width: int
    height: int
    format: str
    prepared: Any


def embed_files(
    files: Iterable[SourceFile],
    embedder: Embedder,
    limits: ImageLimits,
    *,
    batch: int = BATCH,
    read: Callable[..., bytes] = read_bytes,
) -> Iterator[Outcome]:
    """Turn each file into exactly one outcome, repeats into `Duplicate`; holds one micro-batch.

    Args:
        files: What to embed.
        embedder: The features.
        limits: What a file may ask for before it is decoded.
        batch: Pictures per call of the model.
        read: `read(uri, limit=None)` gives the bytes or raises OSError.
    """
    yield from _outcomes(files, embedder, limits, batch, read, seen=set())


def embed_each(
    files: Iterable[SourceFile], embedder: Embedder, limits: ImageLimits, batch: int = BATCH
) -> Iterator[Embedded | Failed]:
    """Like `embed_files`, but repeated bytes are embedded again: nothing is remembered."""
    for outcome in _outcomes(files, embedder, limits, batch, read_bytes, seen=None):
        assert not isinstance(outcome, Duplicate)
        yield outcome


def _outcomes(
    files: Iterable[SourceFile],
    embedder: Embedder,
    limits: ImageLimits,
    batch: int,
    read: Callable[..., bytes],
    seen: set[bytes] | None,
) -> Iterator[Outcome]:
    waiting: list[_Pending] = []
    for file in files:
        outcome = _load(file, embedder, limits, seen, read)
        if isinstance(outcome, _Pending):
            waiting.append(outcome)
            if len(waiting) >= batch:
                yield from _embed(waiting, embedder)
                waiting = []
        else:
            yield outcome
    yield from _embed(waiting, embedder)


def _load(
    file: SourceFile,
    embedder: Embedder,
    limits: ImageLimits,
    seen: set[bytes] | None,
    read: Callable[..., bytes],
) -> _Pending | Duplicate | Failed:
    if file.problem:
        return Failed(file, "rejected", "unreadable", file.problem)
    digest = None
    try:
        if file.bytes > limits.max_bytes:
            # A large file of another kind is none of our business; a large image is.
            if not claims_image(file.uri) and sniff(read(file.uri, SNIFF_BYTES)) is None:
                return Failed(file, "ignored")
            detail = f"{file.bytes:,} bytes, the limit is {limits.max_bytes:,}"
            return Failed(file, "rejected", "too_many_bytes", detail)
        data = read(file.uri)
        digest = hashlib.sha256(data).digest()
        if seen is not None and digest in seen:
            return Duplicate(file, digest)
        image = decode(data, file.uri, limits=limits, min_side=embedder.min_side)
        prepared = embedder.prepare(image.pixels)
    except NotAnImage:
        return Failed(file, "ignored", sha256=digest)
    except Rejected as rejected:
        return Failed(file, "rejected", rejected.reason, rejected.detail, digest)
    except OSError as error:
        return Failed(file, "rejected", "unreadable", error.strerror or one_line(error), digest)
    if seen is not None:
        seen.add(digest)
    return _Pending(file, digest, len(data), image.width, image.height, image.format, prepared)


def _embed(waiting: list[_Pending], embedder: Embedder) -> Iterator[Embedded | Failed]:
    if not waiting:
        return
    vectors, sound = embedder.embed([one.prepared for one in waiting])
    for one, vector, is_sound in zip(waiting, vectors, sound, strict=True):
        if is_sound:
            yield Embedded(
                one.file, one.sha256, one.bytes, one.width, one.height, one.format, vector
            )
        else:
            detail = "the model's vector is zero or not finite"
            yield Failed(one.file, "rejected", "model_failed", detail, one.sha256)


# --- one work unit -> one shard ---------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """One work unit of a run; all paths are relative to the store.

    Attributes:
        number: Of the unit within its run.
        file_no: The number its shard will bear.
        source: The unit file (see units.cut_units).
        shard: Where the vectors go; the name is settled, so a retry overwrites itself.
        ledger: Where the rows on its files go.
        done: Written last: the unit is finished and need not be done again.
    """

    number: int
    file_no: int
    source: str
    shard: str
    ledger: str
    done: str


def embed_unit(
    unit: Unit,
    files: Iterable[SourceFile],
    store: Path,
    embedder: Embedder,
    limits: ImageLimits,
    metadata: pa.Schema,
    properties: dict[str, str],
) -> dict[str, Any]:
    """Embed a unit into its shard and ledger; returns what its done file says.

    The shard is written first and the done file last, each whole or absent, so a unit is either
    finished or will be done again from the start.
    """
    ledger: list[LedgerRow] = []
    repeats: list[Duplicate] = []
    fates: dict[bytes, LedgerRow] = {}
    schema = shards.schema(embedder.dim, metadata, properties)
    with shards.open_shard(store, unit.shard, schema, unit.file_no) as (writer, pending):
        for outcome in embed_files(files, embedder, limits):
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
