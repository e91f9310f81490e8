"""Manifests: CSV or Parquet files with a `uri` column; the other columns are metadata.

Both are read as a stream, and twice: once through before anything is made of them, so that one that
is not sound to its end is refused and no row is lost. CSV types are settled by that (integer,
number, true/false, otherwise text): a type guessed from the first block fails on the first odd row
of the last.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.cells import to_rows
from lookalike.csv_rows import read_csv, separator_hint
from lookalike.errors import RequestError, UnreachableError, one_line, out_of_reach
from lookalike.records import SourceFile
from lookalike.sources.containers import is_table
from lookalike.sources.file_kinds import not_parquet
from lookalike.store import storage
from lookalike.store.columns import carried, is_text, kept_type
from lookalike.store.s3_uri import resolve

_BATCH_ROWS = 8192
_SIZES, _VERSIONS = ("bytes", "size"), ("version", "etag")
_BATCH_CHARACTERS = 32 << 20
# In this order, each with the texts that it would not give back: 007, or 12345678901234567890.
_CSV_TYPES = {
    pa.int64(): r"^[+-]?0[0-9]",
    pa.float64(): r"^[+-]?(0[0-9]|[0-9]{17,}$)",
    pa.bool_(): r"^[01]",
}


@dataclass(frozen=True)
class Manifest:
    """One manifest file, local or remote."""

    spec: str

    def metadata_schema(self) -> pa.Schema:
        """Names and types of the metadata columns; told by reading all of it.

        A column whose name the shards use themselves is carried as `manifest_<name>`.

        Raises:
            RequestError: It cannot be read to its end, has a row that is not sound, no `uri` column
                of text, or a name twice.
        """
        schema, _ = self._settled
        return pa.schema(
            [(carried(column.name), column.type) for column in schema if column.name != "uri"]
        )

    def rows(self) -> Iterator[tuple[str, str, Mapping[str, object]]]:
        """Rows as (uri, problem, metadata); relative paths are taken from the manifest's folder."""
        number = 0
        for table in self.tables():
            for row in self.named(table, number):
                yield row.uri, row.problem, row.metadata
            number += table.num_rows

    def tables(self) -> Iterator[pa.Table]:
        """All rows with their types, some thousand at a time.

        Raises:
            RequestError: It is not what it was when its columns were told.
        """
        schema, count = self._settled
        number = 0
        for batch in self._batches():
            number += batch.num_rows
            yield self._typed(batch, schema)
        if number != count:
            raise self._changed()

    def named(self, table: pa.Table, before: int) -> Iterator[SourceFile]:
        """What some rows name, not looked up; `before` rows came before.

        What lies on remote storage has the size and version that its row tells, where it tells
        both, in columns `bytes` or `size`, and `version` or `etag`.
        """
        for number, row in enumerate(to_rows(table), before + 1):
            uri = row.pop("uri")
            metadata = {carried(name): value for name, value in row.items()}
            if problem := _problem(uri):
                yield SourceFile(f"{self._absolute()}#row={number}", -1, "", problem, metadata)
                continue
            name = self._resolve(str(uri))
            size, version = _told(name, row)
            yield SourceFile(name, size, version, "", metadata)

    def _resolve(self, uri: str) -> str:
        if uri.startswith("file://"):
            return storage.uri_from_path(storage.path_from_uri(uri))
        if storage.is_remote(self.spec):
            return resolve(self.spec, uri)
        if storage.is_remote(uri):
            return uri
        folder = os.path.dirname(os.path.abspath(storage.path_from_uri(self.spec)))
        return storage.uri_from_path(os.path.normpath(os.path.join(folder, uri.encode())))

    def _absolute(self) -> str:
        if storage.is_remote(self.spec):
            return self.spec
        return storage.uri_from_path(os.path.abspath(storage.path_from_uri(self.spec)))

    @cached_property
    def _settled(self) -> tuple[pa.Schema, int]:
        """The columns with their types, and the number of rows, having read all of it."""
        written = self._columns()
        candidates = [
            list(_CSV_TYPES) if self._is_csv and column.name != "uri" else [] for column in written
        ]
        count = 0
        for batch in self._batches():
            count += batch.num_rows
            for i, column in enumerate(batch.columns):
                candidates[i] = [kind for kind in candidates[i] if _converts(column, kind)]
        columns = zip(written, candidates, strict=True)
        fields = [(column.name, next(iter(kinds), column.type)) for column, kinds in columns]
        return pa.schema(fields), count

    def _columns(self) -> pa.Schema:
        """The columns as they are written, checked; of CSV, all of them text."""
        with self._readable(), self._open() as file:
            if self._is_csv:
                with closing(read_csv(file, self.spec)) as rows:
                    names = next(rows, [])
                schema = pa.schema([(name, pa.string()) for name in names])
            else:
                written = pq.ParquetFile(file).schema_arrow
                schema = pa.schema([(column.name, kept_type(column.type)) for column in written])
        if self._is_csv and not schema.names:
            raise RequestError(f"{self.spec}: it is empty; its first line names the columns")
        if "uri" not in schema.names:
            columns = ", ".join(schema.names)
            raise RequestError(
                f"{self.spec}: a manifest needs a column `uri`; its columns are {columns or 'none'}"
                + (separator_hint(columns) if self._is_csv else "")
            )
        kept = [carried(name) for name in schema.names]
        for name, kept_name in zip(schema.names, kept, strict=True):
            if kept.count(kept_name) > 1:
                raise RequestError(
                    f"{self.spec}: the column {name!r} is there twice (a column of lookalike's own "
                    "is carried as manifest_<name>); names must differ"
                )
        kind = schema.field("uri").type
        if not (is_text(kind) or pa.types.is_null(kind)):
            raise RequestError(f"{self.spec}: the column `uri` must hold text, it holds {kind}")
        return schema

    def _batches(self) -> Iterator[pa.RecordBatch]:
        """All rows; those of CSV as text, null where it is empty."""
        with self._readable(), self._open() as file:
            if self._is_csv:
                with closing(read_csv(file, self.spec)) as rows:
                    names = next(rows, [])
                    yield from (_to_batch(names, some) for some in _portions(rows))
                return
            table = pq.ParquetFile(file, page_checksum_verification=True)
            row, count = 0, table.metadata.num_rows
            batches = table.iter_batches(_BATCH_ROWS)
            while True:
                try:
                    batch = next(batches, None)
                    if batch is None and row < count:
                        raise pa.ArrowInvalid("the rows end there")
                except (pa.ArrowException, OSError) as error:
                    what = f"of {count:,} rows, none after row {row:,}: {one_line(error)}"
                    raise pa.ArrowInvalid(what) from error
                if batch is None:
                    return
                _check_text(batch, row)
                row += batch.num_rows
                yield batch

    def _typed(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
        try:
            return pa.Table.from_batches([batch]).select(schema.names).cast(schema, safe=False)
        except (pa.ArrowException, KeyError) as error:  # it held for all rows a moment ago
            raise self._changed() from error

    def _changed(self) -> RequestError:
        return RequestError(f"{self.spec}: it changed while it was read; run the command again")

    @property
    def _is_csv(self) -> bool:
        return not is_table(self.spec)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UnreachableError:
            raise
        except FileNotFoundError as error:
            raise RequestError(f"{self.spec}: no such file") from error
        except IsADirectoryError as error:
            raise RequestError(f"{self.spec}: is a folder; name a CSV or Parquet file") from error
        except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
            if isinstance(error, OSError) and out_of_reach(error):
                reason = error.strerror or one_line(error)
                raise UnreachableError(f"{self.spec}: not readable: {reason}") from error
            why = f"not readable as CSV: {one_line(error)}"
            if not self._is_csv:
                why = not_parquet(self.spec, error, "a column uri")
            raise RequestError(f"{self.spec}: {why}") from error

    def _open(self) -> Any:
        return storage.open_binary(self.spec, from_end=not self._is_csv)


def _problem(uri: object) -> str:
    """Why a uri names nothing, "" if it may."""
    if uri is None or not str(uri).strip():
        return "the row has no uri"
    return "the row's uri has a NUL character" if "\0" in str(uri) else ""


def _told(uri: str, row: Mapping[str, Any]) -> tuple[int, str]:
    """Size and version that a row tells of a remote file; -1 and "" where it does not."""
    size = next((row[name] for name in _SIZES if isinstance(row.get(name), int)), -1)
    version = next((row[name] for name in _VERSIONS if row.get(name) not in (None, "")), "")
    if size < 0 or isinstance(size, bool) or not isinstance(version, (str, int)) or not version:
        return -1, ""
    return (size, str(version)) if storage.is_remote(uri) else (-1, "")


def _check_text(batch: pa.RecordBatch, before: int) -> None:
    """Is all text UTF-8, which Arrow does not look at as it reads; `before` rows came before."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for row in range(batch.num_rows):
            for name, column in zip(batch.schema.names, batch.slice(row, 1).columns, strict=True):
                try:
                    column.validate(full=True)
                except pa.ArrowInvalid as error:
                    what = f"row {before + row + 1:,}, column {name!r}: {one_line(error)}"
                    raise pa.ArrowInvalid(what) from error
        raise


def _portions(rows: Iterable[list[str]]) -> Iterator[list[list[str]]]:
    """Some thousand rows at a time, fewer where they are large."""
    some: list[list[str]] = []
    size = 0
    for row in rows:
        some.append(row)
        size += sum(map(len, row))
        if len(some) == _BATCH_ROWS or size > _BATCH_CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some


def _to_batch(names: list[str], rows: list[list[str]]) -> pa.RecordBatch:
    columns = [
        pa.array([value or None for value in column], pa.string())
        for column in zip(*rows, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=names)


def _converts(column: pa.Array, kind: pa.DataType) -> bool:
    """Whether a column of text can be read as this type, and nothing is lost by it."""
    try:
        pc.cast(column, kind)
    except pa.ArrowInvalid:
        return False
    return not pc.any(pc.match_substring_regex(column, _CSV_TYPES[kind])).as_py()
