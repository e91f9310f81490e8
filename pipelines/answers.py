"""Where a query's answers go: Parquet, JSON lines, or text for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import json_value
from lookalike.json_text import to_json
from lookalike.report.results import QueryResult
from lookalike.report.text import visible
from lookalike.search.neighbour import Neighbour
from lookalike.search.searcher import Searcher
from lookalike.store.columns import fit_or_none
from lookalike.store.files import write_file

Sink = Callable[[QueryResult], object]

_BASE = ("query_uri", "rank", "uri", "score", "id", "duplicates")


@contextmanager
def to_file(path: Path, searcher: Searcher) -> Iterator[Sink]:
    """Write answers to a .parquet or .jsonl file, which is whole or absent."""
    with write_file(path.parent, path.name) as pending:
        if path.suffix == ".jsonl":
            yield lambda result: pending.write("".join(_lines(result)).encode())
            return
        schema = _schema(searcher)
        with pq.ParquetWriter(pending.file, schema, compression="zstd") as writer:
            yield lambda result: writer.write_table(_to_table(result, schema))


def print_json(result: QueryResult) -> None:
    """A JSON object per neighbour."""
    print("".join(_lines(result)), end="")


def print_text(result: QueryResult) -> None:
    """For a person: a line per neighbour."""
    print(visible(result.query_uri))
    for one in result.neighbours:
        also = f"  (also {len(one.duplicates)} more names)" if one.duplicates else ""
        print(f"  {one.rank:3d}  {one.score:8.4f}  {visible(one.uri)}{also}")


def _lines(result: QueryResult) -> Iterator[str]:
    for row in _rows(result):
        yield to_json(json_value(row)) + "\n"


def _rows(result: QueryResult) -> list[dict[str, Any]]:
    return [_row(neighbour) for neighbour in result.neighbours]


def _row(neighbour: Neighbour) -> dict[str, Any]:
    base = {name: getattr(neighbour, name) for name in _BASE}
    return {**base, "duplicates": list(neighbour.duplicates), **neighbour.metadata}


def _to_table(result: QueryResult, schema: pa.Schema) -> pa.Table:
    rows, kinds = _rows(result), {column.name: column.type for column in schema}
    fitted = [
        {name: fit_or_none(value, kinds[name]) for name, value in row.items()} for row in rows
    ]
    return pa.Table.from_pylist(fitted, schema)


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
