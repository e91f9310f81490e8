"""Where groups of near-copies go: a row for each picture, as Parquet, CSV or JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import json_value
from lookalike.copies.groups import Group
from lookalike.json_text import to_json
from lookalike.store.durable import write_file

SUFFIXES = (".parquet", ".csv", ".jsonl")

Sink = Callable[[Group], object]

_SCHEMA = pa.schema(
    [
        ("group", pa.int64()),
        ("uri", pa.string()),
        ("keep", pa.bool_()),
        ("copy_of", pa.string()),
        ("score", pa.float32()),
        ("relation", pa.string()),
        ("id", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
    ]
)
_TOGETHER = 10_000  # rows of a row group, about


@contextmanager
def to_file(path: Path) -> Iterator[Sink]:
    """Write groups to a file of one of the SUFFIXES, which is whole or absent."""
    with write_file(path.parent, path.name) as pending:
        if path.suffix == ".jsonl":
            yield lambda group: pending.write(
                "".join(to_json(json_value(row)) + "\n" for row in _rows(group)).encode()
            )
            return
        if path.suffix == ".csv":
            pending.write(_csv([_SCHEMA.names]))
            yield lambda group: pending.write(_csv([list(row.values()) for row in _rows(group)]))
            return
        held: list[dict[str, Any]] = []
        with pq.ParquetWriter(pending.file, _SCHEMA, compression="zstd") as writer:

            def take(group: Group) -> None:
                held.extend(_rows(group))
                if len(held) >= _TOGETHER:
                    writer.write_table(pa.Table.from_pylist(held, _SCHEMA))
                    held.clear()

            yield take
            writer.write_table(pa.Table.from_pylist(held, _SCHEMA))


def _rows(group: Group) -> list[dict[str, Any]]:
    return [
        {name: group.number if name == "group" else getattr(one, name) for name in _SCHEMA.names}
        for one in group.members
    ]


def _csv(rows: list[list[Any]]) -> bytes:
    """Lines; true and false are written so, and nothing is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([str(cell).lower() if isinstance(cell, bool) else cell for cell in row])
    return text.getvalue().encode("utf-8", "surrogateescape")
