"""The living rows of a snapshot as a Lance dataset, which LanceDB opens as one of its tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa

from lookalike.errors import RequestError, StoreWriteError, one_line
from lookalike.store.durable import fsync_path
from lookalike.store.exporting import LivingRows, table_columns


def write_dataset(rows: LivingRows, folder: Path) -> None:
    """Write a dataset into an empty folder: id, uri, the metadata columns, embedding as float32.

    A few batches of rows are in memory at a time.

    Args:
        rows: To write.
        folder: It may be moved afterwards, since a dataset names its files relative to it.

    Raises:
        RequestError: Lance cannot hold a column, by its name or its type.
        StoreWriteError: The folder cannot be written.
    """
    schema = _schema(rows.schema)
    _check(schema)
    failed: list[Exception] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for table in rows.batches(schema):
                yield from table.to_batches()
        except Exception as error:
            failed.append(error)  # Lance hands on its traceback as a text
            raise

    try:
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches()), folder)
    except (OSError, ValueError) as error:
        if failed:
            raise failed[0] from None
        if isinstance(error, OSError):
            raise StoreWriteError(f"{folder}: cannot be written: {one_line(error)}") from error
        raise
    for path in (*folder.rglob("*"), folder):
        fsync_path(path)  # Lance leaves that to the system


def _schema(stored: pa.Schema) -> pa.Schema:
    """What is written, of all columns of the store."""
    wide = pa.float32()  # which every reader of Lance searches by
    return pa.schema(
        field.with_type(pa.list_(wide, field.type.list_size))
        if field.name == "embedding"
        else field
        for field in map(stored.field, table_columns(stored))
    )


def _check(schema: pa.Schema) -> None:
    """Whether Lance writes and reads such columns.

    Raises:
        RequestError: It does not.
    """
    for field in schema:
        try:
            lance.write_dataset(pa.schema([field]).empty_table(), "memory://").to_table()
        except (OSError, ValueError) as error:
            said = one_line(error).partition(", /")[0]  # before a place in Lance's own source
            raise RequestError(
                f"export: Lance takes no column {field.name!r} of type {field.type} ({said}); "
                "export parquet, or index with the column under another name or as text"
            ) from error
