"""From listed files to vectors: decode in a process apart, embed in micro-batches.

Pure generators, with no engine in sight; `lookalike.transforms.embed` runs them in parallel. One
file that fails never costs another: each yields exactly one outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import replace

import numpy as np

from lookalike.distances import Vectors
from lookalike.errors import one_line
from lookalike.images.decoding import Decoder
from lookalike.models.embedder import Embedder
from lookalike.models.fusing import Mask
from lookalike.outcomes import Decoded, Duplicate, Embedded, Failed
from lookalike.records import SourceFile


def embed_files(
    files: Iterable[SourceFile],
    embedder: Embedder,
    decoder: Decoder,
    *,
    once: bool = True,
    batch: int | None = None,
    known: Collection[bytes] = (),
    forgotten: Container[bytes] = frozenset(),
) -> Iterator[Embedded | Duplicate | Failed]:
    """Turn each file into exactly one outcome; holds one micro-batch.

    Args:
        files: What to embed.
        embedder: The features.
        decoder: Makes inputs of the embedder's `sizes`.
        once: Whether repeated bytes become `Duplicate`; else they are embedded again.
        batch: Pictures per call of the model; None for what its engine is fastest with.
        known: Hashes of bytes that are `Duplicate` as if met before.
        forgotten: Hashes of bytes that become `Failed`, ignored as forgotten.
    """
    batch = batch or embedder.batch
    waiting: list[Decoded] = []
    for outcome in decoder.decode(files, once=once, known=known, forgotten=forgotten):
        if not isinstance(outcome, Decoded):
            yield outcome
            continue
        waiting.append(outcome)
        if len(waiting) >= batch:
            yield from _embed(waiting, embedder)
            waiting = []
    yield from _embed(waiting, embedder)


def embed_uris(
    uris: Iterable[str],
    embedder: Embedder,
    decoder: Decoder,
    find: Callable[[str], SourceFile],
) -> Iterator[tuple[str, Embedded | Failed]]:
    """Embed named files; each uri comes back once, as it was given, in no particular order.

    Args:
        uris: Paths or URIs; relative ones and two for one file are no matter.
        embedder: The features.
        decoder: Makes inputs of the embedder's `sizes`.
        find: Looks a file up.
    """
    files = (replace(find(uri), metadata={"uri": uri}) for uri in uris)
    for outcome in embed_files(files, embedder, decoder, once=False):
        assert not isinstance(outcome, Duplicate)
        yield str(outcome.file.metadata["uri"]), outcome


def _embed(waiting: list[Decoded], embedder: Embedder) -> Iterator[Embedded | Failed]:
    if not waiting:
        return
    vectors, sound, faults = _vectors(waiting, embedder)
    for row, (one, vector) in enumerate(zip(waiting, vectors, strict=True)):
        if sound[row]:
            yield Embedded(
                one.file, one.sha256, one.bytes, one.width, one.height, one.format, vector
            )
        else:
            detail = faults.get(row, "the model's vector is zero, not finite or too long")
            yield Failed(one.file, "rejected", "model_failed", detail, one.sha256)


def _vectors(waiting: list[Decoded], embedder: Embedder) -> tuple[Vectors, Mask, dict[int, str]]:
    """Vectors, whether they can be used, and how the model failed by row.

    A picture at which the model fails costs no other its vector; a model that fails at any picture,
    a blank one too, is no fault of theirs, and its error is raised.
    """
    try:
        return *embedder.embed([one.inputs for one in waiting]), {}
    except Exception:  # every engine has its own
        embedder.embed([tuple(np.zeros_like(array) for array in waiting[0].inputs)])
    vectors = np.zeros((len(waiting), embedder.dim), np.float32)
    sound, faults = np.zeros(len(waiting), np.bool_), {}
    for row, one in enumerate(waiting):
        try:
            [vectors[row]], [sound[row]] = embedder.embed([one.inputs])
        except Exception as error:
            faults[row] = f"the model fails at it: {one_line(error)}"
    return vectors, sound, faults
