"""From listed files to vectors: decode in a process apart, embed in micro-batches.

Pure generators, with no engine in sight; `transforms.embed` runs them in parallel. One file that
fails never costs another: each yields exactly one outcome.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator

from lookalike.models.features import Embedder
from lookalike.outcomes import Decoded, Duplicate, Embedded, Failed
from lookalike.pictures.decoding import Decoder
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


def _embed(waiting: list[Decoded], embedder: Embedder) -> Iterator[Embedded | Failed]:
    if not waiting:
        return
    vectors, sound = embedder.embed([one.inputs for one in waiting])
    for one, vector, is_sound in zip(waiting, vectors, sound, strict=True):
        if is_sound:
            yield Embedded(
                one.file, one.sha256, one.bytes, one.width, one.height, one.format, vector
            )
        else:
            detail = "the model's vector is zero or not finite"
            yield Failed(one.file, "rejected", "model_failed", detail, one.sha256)
