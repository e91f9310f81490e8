"""Rows of embedding shards by id: names and metadata, as they are decoded from Parquet files.

Footers, and some columns of some row groups, are all that is asked for, of all files of a batch at
once; what was decoded last is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.cells import cells, has_times, to_rows
from lookalike.distances import Ids
from lookalike.store.objects import Store
from lookalike.store.ranges import parts_file
from lookalike.store.recent import Recent
from lookalike.store.shard_format import (
    COLUMNS,
    Addresses,
    addresses_of,
    column_ranges,
    file_numbers,
    metadata_columns,
    row_numbers,
)

Positions = npt.NDArray[np.intp]
Row = Mapping[str, Any]
"""Columns of a row by name; those of metadata are of any type."""

_KNOWN_FILES = 65536  # of which the addresses are kept
_FOOTER_BYTES = 32 << 20  # of footers, as they are stored
_GROUPS_AT_ONCE = 32  # row groups to ask for, and to hold, at a time
_TABLE_BYTES = 64 << 20  # of decoded names and metadata
_FEW_ROWS = 8  # of one table, whose cells are read one by one: a call of Arrow's costs as much


@dataclass(frozen=True)
class _File:
    """What a footer says of a file, without the footer.

    Attributes:
        addresses: Of its vectors, where it has any.
        columns: Names of all columns but the vector.
        described: Those of the name and the metadata.
        ends: The row after each row group, (groups,) int64.
    """

    addresses: Addresses | None
    columns: tuple[str, ...]
    described: tuple[str, ...]
    ends: Ids


class _Group(NamedTuple):
    """Some columns of one row group of a file."""

    file_no: int
    number: int
    columns: tuple[str, ...]


Columns = Callable[[_File], tuple[str, ...]]


class ColumnReader:
    """Columns of rows by id from the shards of a store; safe to use from several threads."""

    def __init__(self, store: Store, files: Mapping[int, str]) -> None:
        """Make a reader; no file is opened yet."""
        self._store, self._files = store, dict(files)
        self._lock = Lock()  # of what follows; reading goes on beside it
        self._known: Recent[int, _File] = Recent(_KNOWN_FILES)
        self._footers: Recent[int, pq.FileMetaData]
        self._footers = Recent(_FOOTER_BYTES, lambda footer: int(footer.serialized_size))
        self._tables: Recent[_Group, pa.Table]
        self._tables = Recent(_TABLE_BYTES, lambda table: int(table.nbytes))

    def rows(self, ids: Iterable[int], columns: Sequence[str] | None = None) -> list[Row]:
        """The columns named (by default all but the vector) of each id, in their order."""
        wanted = np.asarray(list(ids), dtype=np.int64)
        chosen = None if columns is None else tuple(columns)
        return self._cells(wanted, lambda file: file.columns if chosen is None else chosen)

    def described(self, ids: Ids) -> list[Row]:
        """The uri and the metadata columns of each id (n,), in their order."""
        return self._cells(ids, lambda file: file.described)

    def _cells(self, ids: Ids, columns: Columns) -> list[Row]:
        output: list[Row] = [{} for _ in range(len(ids))]
        for positions, table, inner in self.tables(ids, columns):
            for position, row in zip(positions.tolist(), _dicts(table, inner), strict=True):
                output[position] = row
        return output

    def tables(self, ids: Ids, columns: Columns) -> Iterator[tuple[Positions, pa.Table, Ids]]:
        """The row groups that hold some ids (n,), in order of file and row.

        Args:
            ids: In any order.
            columns: Names of those to read, by what a file has.

        Yields:
            Which of the ids lie in the row group, its table, and the rows of that.
        """
        parts = list(by_file(ids))
        known = self._files_of(file_no for _, file_no in parts)
        asked: list[tuple[Positions, _Group, Ids]] = []
        for positions, file_no in parts:
            file, rows = known[file_no], row_numbers(ids[positions])
            groups = np.searchsorted(file.ends, rows, side="right")
            for start, stop in _runs(groups):
                number = int(groups[start])
                first = int(file.ends[number - 1]) if number else 0
                group = _Group(file_no, number, columns(file))
                asked.append((positions[start:stop], group, rows[start:stop] - first))
        for start in range(0, len(asked), _GROUPS_AT_ONCE):
            window = asked[start : start + _GROUPS_AT_ONCE]
            tables = self._tables_of([group for _, group, _ in window])
            for (positions, _, rows), table in zip(window, tables, strict=True):
                yield positions, table, rows

    def _tables_of(self, groups: Sequence[_Group]) -> list[pa.Table]:
        with self._lock:
            kept = {group: self._tables.get(group) for group in groups}
        missing = [group for group, table in kept.items() if table is None]
        if missing:
            kept.update(zip(missing, self._read(missing), strict=True))
        return [kept[group] for group in groups]

    def _read(self, groups: Sequence[_Group]) -> Iterator[pa.Table]:
        """Row groups that are not kept yet, asked for together."""
        numbers = list(dict.fromkeys(group.file_no for group in groups))
        known = dict(zip(numbers, self._store.at_once(self._footer, numbers), strict=True))
        footers = [known[group.file_no] for group in groups]
        wanted = [
            (self._files[group.file_no], column_ranges(footer, group.number, group.columns))
            for group, footer in zip(groups, footers, strict=True)
        ]
        found = self._store.read_many(wanted)
        for group, footer, (_, ranges), data in zip(groups, footers, wanted, found, strict=True):
            source = parts_file(ranges, data)
            with pq.ParquetFile(source, metadata=footer, pre_buffer=False) as file:
                columns = list(group.columns)
                table = file.read_row_group(group.number, columns=columns, use_threads=False)
            with self._lock:
                self._tables.put(group, table)
            yield table

    # --- footers --------------------------------------------------------------------------------

    def schemas(self) -> list[pa.Schema]:
        """Those of all files, in their order."""
        return self._store.at_once(
            lambda file_no: self._footer(file_no).schema.to_arrow_schema(), self._files
        )

    def metadata_schema(self) -> pa.Schema:
        """Columns that are not this module's own, of all files together."""
        return metadata_columns(self.schemas())

    def _files_of(self, numbers: Iterable[int]) -> dict[int, _File]:
        """What is known of files; the footers that were not read yet are read together."""
        with self._lock:
            found = {number: self._known.get(number) for number in numbers}
        missing = [number for number, file in found.items() if file is None]
        looked = dict(zip(missing, self._store.at_once(self._look, missing), strict=True))
        with self._lock:
            for number, file in looked.items():
                self._known.put(number, file)
        return {number: file or looked[number] for number, file in found.items()}

    def _look(self, file_no: int) -> _File:
        path, footer = self._files[file_no], self._footer(file_no)
        names = footer.schema.to_arrow_schema().names
        groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        return _File(
            addresses_of(footer, self._store.shown(path), self._store.size(path)),
            tuple(name for name in names if name != "embedding"),
            tuple(name for name in names if name == "uri" or name not in COLUMNS),
            np.cumsum(groups, dtype=np.int64),
        )

    def _footer(self, file_no: int) -> pq.FileMetaData:
        with self._lock:
            footer = self._footers.get(file_no)
        if footer is None:
            footer = pq.read_metadata(self._store.parquet(self._files[file_no]))
            with self._lock:
                self._footers.put(file_no, footer)
        return footer


def by_file(ids: Ids) -> Iterator[tuple[Positions, int]]:
    """Positions of the ids that share a file, in order of file and row."""
    if not len(ids):
        return
    order = np.argsort(ids, kind="stable")
    numbers = file_numbers(ids[order])
    for start, stop in _runs(numbers):
        yield order[start:stop], int(numbers[start])


def _runs(values: Ids) -> Iterator[tuple[int, int]]:
    """Starts and stops of runs of equal values (n,), one value or more."""
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    return pairwise(edges)


def _dicts(table: pa.Table, rows: Ids) -> Sequence[Row]:
    """Some rows (n,) of a table."""
    if len(rows) > _FEW_ROWS:
        return to_rows(table.take(pa.array(rows)))
    columns = [
        (name, column, has_times(column.type))
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return [
        {
            name: cells(column.slice(row, 1))[0] if times else column[row].as_py()
            for name, column, times in columns
        }
        for row in rows.tolist()
    ]
