"""Where a query's answers go: Parquet, JSON lines, or text for a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from lookalike.report.results import QueryResult
from lookalike.report.text import visible
from lookalike.search.answer_rows import answer_schema, answer_table, json_lines
from lookalike.search.searcher import Searcher
from lookalike.store.durable import write_file

Sink = Callable[[QueryResult], object]


@contextmanager
def to_file(path: Path, searcher: Searcher) -> Iterator[Sink]:
    """Write answers to a .parquet or .jsonl file, which is whole or absent."""
    with write_file(path.parent, path.name) as pending:
        if path.suffix == ".jsonl":
            yield lambda result: pending.write("".join(json_lines(result.neighbours)).encode())
            return
        schema = answer_schema(searcher.metadata_schema)
        with pq.ParquetWriter(pending.file, schema, compression="zstd") as writer:
            yield lambda result: writer.write_table(answer_table(result.neighbours, schema))


def print_json(result: QueryResult) -> None:
    """A JSON object per neighbour."""
    print("".join(json_lines(result.neighbours)), end="")


def print_text(result: QueryResult) -> None:
    """For a person: a line per neighbour."""
    print(visible(result.query_uri))
    for one in result.neighbours:
        also = f"  (also {len(one.duplicates)} more names)" if one.duplicates else ""
        print(f"  {one.rank:3d}  {one.score:8.4f}  {visible(one.uri)}{also}")
