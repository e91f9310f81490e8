"""`lookalike query`: pictures or vectors in, neighbours out, as rows and as a page to look at."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import lookalike
from lookalike.errors import RequestError
from lookalike.images.cropping import Crop, asked_crop
from lookalike.models.features import Feature, described
from lookalike.models.projection import stored_projection
from lookalike.pipelines.answers import Sink, print_json, print_text, to_file
from lookalike.pipelines.queries import asked_queries, image_queries
from lookalike.pipelines.reading import (
    PagePictures,
    asked_config,
    asked_runner,
    check_scratch,
    file_to_write,
    page_to_write,
    scratch_place,
)
from lookalike.pipelines.streams import reader_gone
from lookalike.report.certificate import certificate_line
from lookalike.report.results import QueryResult, render_results
from lookalike.report.text import visible
from lookalike.search.choosing import DEEPEST
from lookalike.search.queries import Answers, Queries, joined
from lookalike.search.searcher import Searcher
from lookalike.search.ways import MOST_TOGETHER, Ways, asked_ways
from lookalike.store.durable import write_file

if TYPE_CHECKING:
    from lookalike.pipelines.config import Config
    from lookalike.pipelines.runner import RunnerSpec

_DESCRIBED = 1 << 16  # neighbours in memory, with names and metadata
_PAGE_QUERIES = 500
_THUMBNAIL = 224


def run_query(given: argparse.Namespace, beam: Sequence[str] = ()) -> int:
    """Answer every query; files that are no images are named and left out.

    Args:
        given: The command's flags.
        beam: Pipeline options, for `--beam`.
    """
    if not given.beam and (beam or given.scratch):
        what = "Beam options after --" if beam else f"--scratch {given.scratch}"
        raise RequestError(f"{what}: only with --beam")
    check_scratch(given)
    output, page, crop, ways = checked(given)
    config = asked_config(given, beam)
    searcher = _open(given, config)
    searcher.check_ways(ways, bool(given.unlike))
    queries = asked_queries(searcher, given, crop)
    unlike = joined(image_queries(searcher, given.unlike), searcher.dim) if given.unlike else None
    if ways.together:
        queries = iter([joined(queries, searcher.dim, MOST_TOGETHER)])
    asked = (ways, unlike.vectors if unlike else None, given.where)
    if given.beam:
        runner = asked_runner("--beam", config, given, beam)
        answers = _beam_answers(searcher, queries, given, runner, asked)
    else:
        answers = (
            searcher.answer(some, given.k, ways, asked[1], where=given.where) for some in queries
        )
    results = _described(searcher, answers, given.k)
    first = next(results, None)  # what is wrong with the request shows here, before any output
    if first is None:
        raise RequestError("there is no query")
    shown: list[QueryResult] = []
    answered = 0
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if output:
            sinks.append(stack.enter_context(to_file(output, searcher)))
        if given.json:
            sinks.append(print_json)
        elif not output and not given.html:
            sinks.append(_for_a_person(given.thumbnails))
        for result in chain([first], results):
            answered += 1
            for sink in sinks:
                sink(result)
            if page and len(shown) < _PAGE_QUERIES:
                shown.append(result)
            if not output and not page and reader_gone():
                break  # as `head` does
    if page:
        _write_page(page, searcher, shown, answered)
    if not given.json:
        where = ", ".join(str(path) for path in (output, page) if path)
        what = "query" if answered == 1 else "queries"
        print(f"{answered:,} {what} answered{': ' + where if where else ''}", file=sys.stderr)
    return 0


def checked(given: argparse.Namespace) -> tuple[Path | None, Path | None, Crop | None, Ways]:
    """Where to write rows and a page, the part to search by, and how; before anything is read.

    Raises:
        RequestError: A flag cannot be used.
    """
    output = file_to_write("--output", given.output)
    page = page_to_write(given.html)
    if output and output.suffix not in (".parquet", ".jsonl"):
        raise RequestError(f"--output {output}: the name must end in .parquet or .jsonl")
    for name in (*(given.images or ()), *((given.vectors,) if given.vectors else ())):
        if output and output.exists() and os.path.exists(name) and output.samefile(name):
            raise RequestError(f"--output {output}: holds the queries; name another file")
    if given.k < 1:
        raise RequestError(f"-k must be at least 1, got {given.k}")
    crop = asked_crop(given.crop)
    if crop and not given.images:
        raise RequestError(f"--crop {given.crop}: only with --images, whose part it is")
    return output, page, crop, _ways(given)


def _for_a_person(thumbnails: str) -> Sink:
    """A table on a terminal; plain lines, as ever, for what reads standard output otherwise."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in (None, "dumb", "unknown"):
        return print_text
    from lookalike.pipelines.terminal import Terminal

    return Terminal(thumbnails)


def _open(given: argparse.Namespace, config: Config | None) -> Searcher:
    if config is None or not config.features:
        return lookalike.open(given.store, given.snapshot, check=given.check)
    from lookalike.models.resolving import resolve_features, resolve_projection

    with TemporaryDirectory(prefix="lookalike-") as work:
        features = resolve_features(config.features, Path(work), lambda line: None)
        projection = resolve_projection(config.projection, Path(work))
        return lookalike.open(
            given.store,
            given.snapshot,
            features=features,
            projection=projection,
            check=given.check,
        )


def _ways(given: argparse.Namespace) -> Ways:
    return asked_ways(
        together=given.together,
        weights=given.weights,
        min_score=given.min_score,
        group_by=given.group_by,
        per_group=given.per_group,
        diversify=given.diversify,
        exclude_self=given.exclude_self,
    )


def _beam_answers(
    searcher: Searcher,
    queries: Iterator[Queries],
    given: argparse.Namespace,
    runner: RunnerSpec,
    asked: tuple[Ways, Any, str | None],
) -> Iterator[Answers]:
    from lookalike.pipelines.batch_query import BeamIndex, batch_answers
    from lookalike.pipelines.progress import Progress

    with scratch_place(given, searcher.store.name, runner) as scratch:
        index = BeamIndex(searcher, scratch, runner, Progress())
        yield from batch_answers(searcher, index, queries, given.k, *asked)


def _described(searcher: Searcher, answers: Iterable[Answers], k: int) -> Iterator[QueryResult]:
    for found in answers:
        step = max(1, _DESCRIBED // max(1, found.ids.shape[1]))
        for start in range(0, len(found.names), step):
            some = slice(start, start + step)
            for neighbours in searcher.describe(
                found.names[some], found.ids[some], found.scores[some], found.complete[some]
            ):
                if not neighbours.complete:
                    print(
                        f"{visible(neighbours.query_uri)}: {len(neighbours)} of {k} neighbours: no "
                        f"more of the {DEEPEST:,} nearest are as asked, and others may be",
                        file=sys.stderr,
                    )
                yield QueryResult(neighbours.query_uri, neighbours)


def _write_page(path: Path, searcher: Searcher, shown: list[QueryResult], answered: int) -> None:
    manifest = searcher.manifest
    features = [Feature.from_json(one) for one in manifest.get("features") or []]
    facts = [
        ("store", str(searcher.store)),
        ("snapshot", manifest["name"]),
        ("images", f"{manifest['counts']['vectors']:,}"),
        ("model", described(features, stored_projection(manifest))),
        ("certificate", certificate_line(manifest["certificate"])),
    ]
    if answered > len(shown):
        facts.append(("queries", f"the first {len(shown):,} of {answered:,} are shown"))
    with write_file(path.absolute().parent, path.name) as pending:
        for piece in render_results(
            shown,
            title="Lookalikes",
            facts=facts,
            thumbnail=PagePictures(),
            metric=manifest["metric"],
        ):
            pending.write(piece.encode("utf-8", "replace"))
