"""What a query is asked by: pictures, which are embedded, vectors, or rows of the store."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from lookalike.embedding import embed_files
from lookalike.errors import RequestError
from lookalike.images.cropping import Crop
from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.models.features import inputs_of, stored_features
from lookalike.outcomes import Embedded, Failed
from lookalike.records import SourceFile
from lookalike.report.text import visible
from lookalike.search.queries import Queries
from lookalike.search.searcher import Searcher
from lookalike.sources.kinds import open_source
from lookalike.sources.query_vectors import UNNAMED, read_queries
from lookalike.sources.source import Source
from lookalike.vector_faults import Rules

_BATCH = 64


def asked_queries(
    searcher: Searcher, given: argparse.Namespace, crop: Crop | None
) -> Iterator[Queries]:
    """What is asked, some at a time; whether it is there is looked at now.

    Raises:
        RequestError: It is not there, or cannot be asked.
    """
    if given.vectors:
        return _vector_queries(searcher, given.vectors)
    if given.like:
        return iter([searcher.like(given.like)])
    return image_queries(searcher, given.images, crop)


def image_queries(
    searcher: Searcher, specs: list[str], crop: Crop | None = None
) -> Iterator[Queries]:
    """Pictures as queries, some at a time; files that are none are named and left out.

    Args:
        searcher: Whose models embed them.
        specs: Where they are; looked for now.
        crop: The part of each to search by.

    Raises:
        RequestError: Something is not there, or holds no picture.
    """
    return _of_sources(searcher, [open_source(spec) for spec in specs], crop)


def _of_sources(
    searcher: Searcher, sources: Sequence[Source], crop: Crop | None
) -> Iterator[Queries]:
    files = chain.from_iterable(
        source.files(lambda line: print(visible(line), file=sys.stderr)) for source in sources
    )
    alone = len(sources) == 1 and sources[0].kind == "file"
    answered, left_out = 0, 0
    held: list[str] = []  # until there is an answer; without one, one line says it all
    sizes, functions = inputs_of(stored_features(searcher.store, searcher.manifest))
    with Decoder(sizes, ImageLimits(), functions, crop) as decoder:
        decoder.start()  # beside the models
        embedder = searcher.embedder
        while batch := list(islice(files, _BATCH)):
            found: dict[str, Embedded] = {}
            for outcome in embed_files(batch, embedder, decoder, once=False):
                if isinstance(outcome, Embedded):
                    found[outcome.file.uri] = outcome
                    continue
                assert isinstance(outcome, Failed)
                reason = "not an image" if outcome.status == "ignored" else outcome.reason
                words = ": ".join(filter(None, (reason, outcome.detail)))
                if alone:
                    raise RequestError(f"{outcome.file.uri}: not usable as a query: {words}")
                left_out += 1
                held.append(f"{outcome.file.uri}: {words}")
            answered += len(found)
            if answered:
                for line in held:
                    print(visible(f"not a query: {line}"), file=sys.stderr)
                held.clear()
            if queries := _in_order(batch, found):
                names = [query.file.uri for query in queries]
                yield Queries(
                    names,
                    np.stack([query.vector for query in queries]),
                    names,
                    [query.sha256 for query in queries],
                )
    if not answered:
        why = f"; none of the {left_out:,} files can be used, for example {held[0]}" if held else ""
        specs = ", ".join(source.spec for source in sources)
        raise RequestError(f"{specs}: no image to search with{why}")


def _in_order(batch: list[SourceFile], found: dict[str, Embedded]) -> list[Embedded]:
    return [found[file.uri] for file in batch if file.uri in found]


def _vector_queries(searcher: Searcher, path: str) -> Iterator[Queries]:
    rules = Rules(searcher.dim, searcher.metric)
    for _ in read_queries(path, rules):
        pass  # all of a file is checked before the first answer
    return (
        Queries(
            names,
            vectors,
            [None if name.startswith(UNNAMED) else name for name in names],
            [None] * len(names),
        )
        for names, vectors in read_queries(path, rules)
    )
