"""Answers as rows, a neighbour each: dicts, lines of JSON or of CSV, an Arrow table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lookalike.cells import json_value, shown
from lookalike.json_text import to_json
from lookalike.search.neighbour import Neighbour
from lookalike.store.columns import fit_or_none

_BASE = pa.schema(
    [
        ("query_uri", pa.string()),
        ("rank", pa.int32()),
        ("uri", pa.string()),
        ("score", pa.float32()),
        ("id", pa.int64()),
        ("duplicates", pa.list_(pa.string())),
    ]
)


def answer_schema(metadata: pa.Schema) -> pa.Schema:
    """Columns of the table of answers, where a store has these columns of metadata."""
    return pa.schema([*_BASE, *[(field.name, field.type) for field in metadata]])


def answer_row(neighbour: Neighbour) -> Mapping[str, Any]:
    """A neighbour by the names of the columns, its metadata beside the others."""
    base = {name: getattr(neighbour, name) for name in _BASE.names}
    return {**base, "duplicates": list(neighbour.duplicates), **neighbour.metadata}


def json_lines(neighbours: Iterable[Neighbour]) -> Iterator[str]:
    """A line of JSON for each neighbour."""
    for one in neighbours:
        yield to_json(json_value(answer_row(one))) + "\n"


def csv_lines(neighbours: Iterable[Neighbour], columns: Sequence[str]) -> Iterator[str]:
    """A line of CSV for each neighbour, after one of the columns' names.

    What is no single value (the duplicates, say) is there as JSON; nothing is an empty cell.
    """
    yield _csv_line(columns)
    for one in neighbours:
        row = answer_row(one)
        cells = (row.get(name) for name in columns)
        yield _csv_line(["" if cell is None else shown(cell) for cell in cells])


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def answer_table(neighbours: Iterable[Neighbour], schema: pa.Schema) -> pa.Table:
    """The neighbours as a table of such columns (see `answer_schema`)."""
    kinds = {column.name: column.type for column in schema}
    rows = [
        {name: fit_or_none(value, kinds[name]) for name, value in answer_row(one).items()}
        for one in neighbours
    ]
    return pa.Table.from_pylist(rows, schema)
