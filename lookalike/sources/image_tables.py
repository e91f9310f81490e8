"""Parquet tables that hold images as bytes: one row is one file, `<table>#<row number>`.

Listing reads the other columns only, so the sizes of the images are not known before they are read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.cells import to_rows
from lookalike.errors import RequestError, UnreachableError, one_line, out_of_reach
from lookalike.records import SourceFile, container_start
from lookalike.sources.image_columns import TableColumns, image_columns
from lookalike.sources.places import Budget
from lookalike.store import storage

_LIST_ROWS = 1024
_READ_ROWS = 16
_ROWS_PER_BYTE = 64  # of the file: more is no table but a hostile footer
_BUFFER = 1 << 20  # read page by page: a row group may be larger than memory


class _NotParquetError(ValueError):
    """It cannot be read as Parquet; the message is Arrow's, or the system's."""

    def __init__(self, message: str, out_of_reach: bool) -> None:
        super().__init__(message)
        self.out_of_reach = out_of_reach


def find_columns(uri: str) -> TableColumns | None:
    """See `image_columns`; None too where it is no Parquet.

    Raises:
        UnreachableError: It cannot be read.
    """
    try:
        with _opened(uri) as file:
            return image_columns(uri, file.schema_arrow)
    except _NotParquetError as error:
        if error.out_of_reach:
            raise UnreachableError(f"{uri}: {error}") from error
        return None


def kind_of_table(uri: str) -> str:
    """What a Parquet file is in a listing.

    "table" where `rows` has something to say: images, or that it cannot be read; "manifest" where
    it has a column `uri` and no images; else "file".
    """
    try:
        with _opened(uri) as file:
            if image_columns(uri, file.schema_arrow) is not None:
                return "table"
            return "manifest" if "uri" in file.schema_arrow.names else "file"
    except (_NotParquetError, UnreachableError):
        return "table"


def rows(
    table: SourceFile,
    left_out: Callable[[str, str], None] = lambda table, column: None,
    first: int = 0,
    end: int = -1,
    budget: Budget | None = None,
) -> Iterator[SourceFile | range]:
    """The rows of a table of images; a row group that cannot be read is one row with a problem.

    The metadata columns are read here, the images are not.

    Args:
        table: As it was listed.
        left_out: Is told the table and each column that is not carried along.
        first: The first row group.
        end: The one after the last; -1 for all.
        budget: Once it is spent, the row groups that are left come as a range.
    """
    problem = table.problem
    if not problem:
        try:
            with _opened(table.uri) as file:
                columns = image_columns(table.uri, file.schema_arrow)
                if columns is not None:
                    for column in columns.left_out:
                        left_out(table.uri, column)
                    yield from _rows(table, file, columns, first, end, budget or Budget())
                    return
                problem = "no column of image bytes"
        except _NotParquetError as error:
            problem = f"not readable as Parquet: {error}"
        except UnreachableError as error:
            problem = one_line(error)
    hides = container_start(table)
    yield SourceFile(table.uri, table.bytes, table.version, problem, hides=hides)


class TableReader:
    """Images of a table by row group and row; reading on in order costs no second reading."""

    def __init__(self, uri: str) -> None:
        """Open it.

        Raises:
            OSError: It cannot be opened, or has no images.
        """
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(_opened(uri))
                columns = image_columns(uri, self._file.schema_arrow)
            except (_NotParquetError, RequestError) as error:
                raise OSError(one_line(error)) from error
            if columns is None:
                raise OSError("no column of image bytes")
            self._columns, self._stack = columns, stack.pop_all()
        footer = self._file.metadata
        counts = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        self._starts = [0, *accumulate(counts)]  # first row of each group
        self._group = self._start = -1
        self._broken: dict[int, tuple[int, str]] = {}  # from which row of a group on, and why
        self._values: list[Any] = []
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def close(self) -> None:
        """Close the file."""
        self._batches = iter(())
        self._stack.close()

    def read(self, file: SourceFile, limit: int | None = None) -> bytes:
        """The bytes of one row, or the first `limit` of them.

        Raises:
            OSError: They cannot be read, or there are none.
        """
        if not 0 <= file.offset < self._starts[-1]:
            raise OSError(f"no row {file.offset}: the table has {self._starts[-1]:,}")
        group = bisect_right(self._starts, file.offset) - 1
        row = file.offset - self._starts[group]
        broken, why = self._broken.get(group, (row + 1, ""))
        if row >= broken:
            raise OSError(why)
        if group != self._group or row < self._start:
            self._begin(group)
        while row >= self._start + len(self._values):
            self._next()
        value = self._values[row - self._start]
        if value is None:
            raise OSError("the row has no bytes")
        data: bytes = value
        return data if limit is None else data[:limit]

    def _begin(self, group: int) -> None:
        self._batches = self._file.iter_batches(
            _READ_ROWS, row_groups=[group], columns=[self._columns.path], use_threads=False
        )
        self._group, self._start, self._values = group, 0, []

    def _next(self) -> None:
        self._start += len(self._values)
        self._values = []
        try:
            column = next(self._batches).column(self._columns.image)
        except MemoryError:
            raise
        except (pa.ArrowException, OSError, StopIteration) as error:
            why = one_line(error) if str(error) else "fewer rows than the row group announces"
            self._broken[self._group], self._group = (self._start, why), -1
            raise OSError(why) from error
        if pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        self._values = column.to_pylist()


@contextmanager
def _opened(uri: str) -> Iterator[pq.ParquetFile]:
    with ExitStack() as stack:
        try:
            source = stack.enter_context(storage.open_binary(uri, from_end=True))
            file = pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
        except UnreachableError:
            raise
        except (pa.ArrowException, OSError) as error:
            away = isinstance(error, OSError) and out_of_reach(error)
            message = getattr(error, "strerror", None) or one_line(error)
            raise _NotParquetError(message, away) from error
        yield stack.enter_context(file)


# --- rows -------------------------------------------------------------------------------------


def _rows(
    table: SourceFile,
    file: pq.ParquetFile,
    columns: TableColumns,
    first: int,
    end: int,
    budget: Budget,
) -> Iterator[SourceFile | range]:
    counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    end = len(counts) if end < 0 else min(end, len(counts))
    start = sum(counts[:first])
    for group, count in enumerate(counts[first:end], first):
        if budget.spent and group > first:
            yield range(group, end)
            return
        row = 0
        most = _ROWS_PER_BYTE * max(table.bytes, 1 << 20)
        problem = f"it announces {count:,} rows" if count > most else ""
        try:
            for metadata in _metadata(file, group, count, columns) if not problem else ():
                number = start + row
                yield SourceFile(
                    f"{table.uri}#{number}",
                    -1,
                    f"{table.version}+{number}",
                    "",
                    metadata,
                    table.uri,
                    number,
                    group,
                )
                row += 1
        except (pa.ArrowException, OSError, ValueError) as error:
            problem = one_line(error)
        if not problem and row != count:
            problem = f"{row:,} rows of {count:,}"
        if problem:
            left = f"{table.uri}#{start + row}-{start + count - 1}"
            problem = f"row group {group}: {problem}"
            yield SourceFile(left, -1, table.version, problem, hides=container_start(table))
        start += count


def _metadata(
    file: pq.ParquetFile, group: int, count: int, columns: TableColumns
) -> Iterator[dict[str, object]]:
    """The metadata of each row of a row group."""
    if not columns.metadata:
        yield from ({} for _ in range(count))
        return
    batches = file.iter_batches(
        _LIST_ROWS, row_groups=[group], columns=list(columns.metadata), use_threads=False
    )
    for batch in batches:
        arrays = []
        for name, kept in columns.metadata.items():
            if name in batch.schema.names:
                array = batch.column(name)
            else:
                array = pc.struct_field(batch.column(columns.image), "path")
            arrays.append(array.cast(columns.schema.field(kept).type, safe=False))
        yield from to_rows(pa.RecordBatch.from_arrays(arrays, schema=columns.schema))
