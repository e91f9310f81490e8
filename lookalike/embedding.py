"""From listed files to vectors: read, recognise repeats, decode, embed in micro-batches.

Pure generators, with no engine in sight; `transforms.embed` runs them in parallel. One file that
fails never costs another: each yields exactly one outcome.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import one_line
from lookalike.features import Embedder
from lookalike.images import ImageLimits, NotAnImage, Rejected, decode
from lookalike.records import SourceFile
from lookalike.sniff import SNIFF_BYTES, claims_image, sniff
from lookalike.storage import read_bytes

BATCH = 32


@dataclass(frozen=True)
class Picture:
    """A file that was decoded."""

    file: SourceFile
    sha256: bytes
    bytes: int
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Embedded(Picture):
    """A file that became a vector (d,) float32."""

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
class _Pending(Picture):
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
