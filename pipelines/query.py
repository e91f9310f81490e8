"""`lookalike query`: pictures or vectors in, neighbours out, as rows and as a page to look at."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import lookalike
from lookalike.embedding import embed_files
from lookalike.errors import RequestError
from lookalike.index.metrics import check_vectors
from lookalike.outcomes import Embedded, Failed
from lookalike.pages.page import QueryResult, render_results
from lookalike.pages.report import certificate_line
from lookalike.pictures.decoding import Decoder
from lookalike.pictures.images import ImageLimits, NotAnImage, Rejected, decode, thumbnail_jpeg
from lookalike.records import Neighbour, SourceFile
from lookalike.search import Searcher
from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.kinds import open_source
from lookalike.sources.locating import Locator
from lookalike.store.storage import write_file

_BATCH = 64
_PAGE_QUERIES = 500
_THUMBNAIL = 224
_BASE = ("query_uri", "rank", "uri", "score", "id", "duplicates")


def run_query(given: argparse.Namespace) -> int:
    """Answer every query; files that are no images are named and left out."""
    output = _file_to_write("--output", given.output)
    page = _file_to_write("--html", given.html)
    if output and output.suffix not in (".parquet", ".jsonl"):
        raise RequestError(f"--output {output}: the name must end in .parquet or .jsonl")
    if given.k < 1:
        raise RequestError(f"-k must be at least 1, got {given.k}")
    searcher = _open(given)
    k = min(given.k, max(1, searcher.rows))
    if given.vectors:
        _check_vectors(searcher, given.vectors)
        results = _vector_results(searcher, given.vectors, k)
    else:
        results = _image_results(searcher, given.images, k)
    first = next(results, None)  # what is wrong with the request shows here, before any output
    if first is None:
        raise RequestError("there is no query")
    shown: list[QueryResult] = []
    answered = 0
    with ExitStack() as stack:
        sinks: list[_Sink] = []
        if output:
            schema = _schema(searcher)
            file: Any = (
                _Parquet(output, schema) if output.suffix == ".parquet" else _JsonLines(output)
            )
            sinks.append(stack.enter_context(file))
        if given.json:
            sinks.append(_JsonStdout())
        elif not output and not given.html:
            sinks.append(_Text())
        for result in chain([first], results):
            answered += 1
            for sink in sinks:
                sink.write(result)
            if page and len(shown) < _PAGE_QUERIES:
                shown.append(result)
    if page:
        _write_page(page, searcher, shown, answered)
    if not given.json:
        where = ", ".join(str(path) for path in (output, page) if path)
        queries = "query" if answered == 1 else "queries"
        print(f"{answered:,} {queries} answered{': ' + where if where else ''}", file=sys.stderr)
    return 0


def _file_to_write(flag: str, name: str | None) -> Path | None:
    """Is it somewhere that can be written; said before any work is done."""
    if not name:
        return None
    path = Path(name)
    if not path.parent.is_dir():
        raise RequestError(f"{flag} {name}: no such folder: {path.parent}; make it first")
    if path.is_dir():
        raise RequestError(f"{flag} {name}: is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{flag} {name}: no permission to write in {path.parent}")
    return path


def _open(given: argparse.Namespace) -> Searcher:
    if not given.config:
        return lookalike.open(given.store, given.snapshot)
    from pipelines.config import load_config
    from pipelines.models import resolve_features

    with TemporaryDirectory(prefix="lookalike-") as work:
        config = load_config(given.config)
        features = resolve_features(config.features, Path(work), lambda line: None)
        return lookalike.open(given.store, given.snapshot, features=features)


def _image_results(searcher: Searcher, specs: list[str], k: int) -> Iterator[QueryResult]:
    sources = [open_source(spec) for spec in specs]
    files = chain.from_iterable(
        source.files(lambda line: print(line, file=sys.stderr)) for source in sources
    )
    alone = len(sources) == 1 and sources[0].kind == "file"
    answered, left_out = 0, 0
    held: list[str] = []  # until there is an answer; without one, one line says it all
    with Decoder(searcher.embedder.sizes, ImageLimits()) as decoder:
        while batch := list(islice(files, _BATCH)):
            found: dict[str, Embedded] = {}
            for outcome in embed_files(batch, searcher.embedder, decoder, once=False):
                if isinstance(outcome, Embedded):
                    found[outcome.file.uri] = outcome
                    continue
                assert isinstance(outcome, Failed)
                words = ": ".join(filter(None, (outcome.reason, outcome.detail))) or "not an image"
                if alone:
                    raise RequestError(f"{outcome.file.uri}: not usable as a query: {words}")
                left_out += 1
                held.append(f"{outcome.file.uri}: {words}")
            answered += len(found)
            if answered:
                for line in held:
                    print(f"not a query: {line}", file=sys.stderr)
                held.clear()
            yield from _answer(searcher, _in_order(batch, found), k)
    if not answered:
        raise RequestError(
            f"{', '.join(specs)}: no image to search with"
            + (f"; none of the {left_out:,} files is one, for example {held[0]}" if held else "")
        )


def _in_order(batch: list[SourceFile], found: dict[str, Embedded]) -> list[Embedded]:
    return [found[file.uri] for file in batch if file.uri in found]


def _answer(searcher: Searcher, queries: list[Embedded], k: int) -> Iterator[QueryResult]:
    if not queries:
        return
    names = [query.file.uri for query in queries]
    yield from _results(searcher, names, np.stack([query.vector for query in queries]), k)


def _results(searcher: Searcher, names: list[str], vectors: Any, k: int) -> Iterator[QueryResult]:
    answers = searcher.describe(names, *searcher.search_vectors(vectors, k))
    for name, neighbours in zip(names, answers, strict=True):
        yield QueryResult(name, neighbours)


def _vector_results(searcher: Searcher, path: str, k: int) -> Iterator[QueryResult]:
    for names, vectors in _read_vectors(path):
        yield from _results(searcher, names, vectors, k)


def _check_vectors(searcher: Searcher, path: str) -> None:
    """All of a file before the first answer."""
    start = 0
    for names, vectors in _read_vectors(path):
        try:
            check_vectors(vectors, searcher.dim, searcher.metric)
        except RequestError as error:
            raise RequestError(f"{path}: from row {start} on: {error}") from error
        start += len(names)


def _read_vectors(path: str) -> Iterator[tuple[list[str], Any]]:
    """Batches of (names, (n, d) float32) from .npy or from Parquet with an `embedding` column."""
    try:
        if path.endswith(".npy"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
                raise RequestError(
                    f"{path}: needs an array (n, d) of floats, it is {array.shape} {array.dtype}"
                )
            for start in range(0, len(array), _BATCH):
                block = np.asarray(array[start : start + _BATCH], dtype=np.float32)
                yield [f"vector:{start + i}" for i in range(len(block))], block
            return
        if not path.endswith(".parquet"):
            raise RequestError(f"{path}: --vectors needs a .npy or a .parquet file")
        start = 0
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if "embedding" not in names:
                raise RequestError(f"{path}: has no column `embedding`; it has {', '.join(names)}")
            columns = [name for name in ("uri", "embedding") if name in names]
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                rows = batch["embedding"].to_pylist()
                if any(row is None or len(row) != len(rows[0]) for row in rows):
                    raise RequestError(f"{path}: rows {start} on: missing vectors or mixed lengths")
                given = batch["uri"].to_pylist() if "uri" in columns else [None] * len(rows)
                labels = [uri or f"vector:{start + i}" for i, uri in enumerate(given)]
                start += len(rows)
                yield labels, np.asarray(rows, dtype=np.float32)
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{path}: not readable: {' '.join(str(error).split())}") from error


# --- where answers go -------------------------------------------------------------------------


class _Sink(Protocol):
    def write(self, result: QueryResult) -> None: ...


def _row(neighbour: Neighbour) -> dict[str, Any]:
    base = {name: getattr(neighbour, name) for name in _BASE}
    return {**base, "duplicates": list(neighbour.duplicates), **neighbour.metadata}


def _json_rows(result: QueryResult) -> Iterable[str]:
    for neighbour in result.neighbours:
        yield json.dumps(_row(neighbour), default=str, ensure_ascii=True)


class _JsonStdout:
    def write(self, result: QueryResult) -> None:
        for line in _json_rows(result):
            print(line)


class _Text:
    """For a person: a line per neighbour."""

    def write(self, result: QueryResult) -> None:
        print(result.query_uri)
        for one in result.neighbours:
            also = f"  (also {len(one.duplicates)} more names)" if one.duplicates else ""
            print(f"  {one.rank:3d}  {one.score:8.4f}  {one.uri}{also}")


class _JsonLines:
    def __init__(self, path: Path) -> None:
        self._context = write_file(path.parent, path.name)

    def __enter__(self) -> _JsonLines:
        self._pending = self._context.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._context.__exit__(*error)

    def write(self, result: QueryResult) -> None:
        for line in _json_rows(result):
            self._pending.write(line.encode() + b"\n")


class _Parquet:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._context, self._schema = write_file(path.parent, path.name), schema

    def __enter__(self) -> _Parquet:
        self._pending = self._context.__enter__()
        self._writer = pq.ParquetWriter(self._pending.file, self._schema, compression="zstd")
        return self

    def __exit__(self, *error: Any) -> Any:
        self._writer.close()
        return self._context.__exit__(*error)

    def write(self, result: QueryResult) -> None:
        rows = [_row(neighbour) for neighbour in result.neighbours]
        self._writer.write_table(pa.Table.from_pylist(rows, self._schema))


def _schema(searcher: Searcher) -> pa.Schema:
    return pa.schema(
        [
            ("query_uri", pa.string()),
            ("rank", pa.int32()),
            ("uri", pa.string()),
            ("score", pa.float32()),
            ("id", pa.int64()),
            ("duplicates", pa.list_(pa.string())),
            *[(field.name, field.type) for field in searcher.metadata_schema],
        ]
    )


def _write_page(path: Path, searcher: Searcher, shown: list[QueryResult], answered: int) -> None:
    manifest = searcher.manifest
    facts = [
        ("store", str(searcher.store)),
        ("snapshot", manifest["name"]),
        ("images", f"{manifest['counts']['vectors']:,}"),
        ("model", ", ".join(feature["handle"] for feature in manifest["features"])),
        ("certificate", certificate_line(manifest["certificate"])),
    ]
    if answered > len(shown):
        facts.append(("queries", f"the first {len(shown):,} of {answered:,} are shown"))
    with write_file(path.absolute().parent, path.name) as pending:
        for piece in render_results(
            shown,
            title="Lookalikes",
            facts=facts,
            thumbnail=_Thumbnails(),
            metric=manifest["metric"],
        ):
            pending.write(piece.encode("utf-8", "replace"))


class _Thumbnails:
    """Small JPEGs of source files, or None for what cannot be had now."""

    def __init__(self) -> None:
        self._locator, self._contents = Locator(), Contents()

    def __call__(self, uri: str) -> bytes | None:
        file = self._locator.find(uri)
        if file.problem:
            return None
        try:
            data = self._contents.read(file)
            pixels = decode(data, claimed_name(file), min_side=_THUMBNAIL).pixels
        except (OSError, Rejected, NotAnImage):
            return None
        return thumbnail_jpeg(pixels, _THUMBNAIL)
