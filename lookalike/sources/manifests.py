"""Manifests: CSV or Parquet files with a `uri` column; the other columns are metadata.

Both are read as a stream. CSV types are settled over the whole file (integer, number, true/false,
otherwise text), because a type guessed from the first block fails on the first odd row of the last.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from lookalike.errors import RequestError, one_line
from lookalike.sources.columns import carried, plain_type
from lookalike.store import storage

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
        """Names and types of the metadata columns.

        A column whose name the shards use themselves is carried as `manifest_<name>`.

        Raises:
            RequestError: It cannot be read, has no `uri` column of text, or a name twice.
        """
        schema = self._settled_schema()
        if "uri" not in schema.names:
            columns = ", ".join(schema.names) or "none"
            raise RequestError(
                f"{self.spec}: a manifest needs a column `uri`; its columns are {columns}"
            )
        kind = schema.field("uri").type
        if not any(is_kind(kind) for is_kind in _TEXT):
            raise RequestError(f"{self.spec}: the column `uri` must hold text, it holds {kind}")
        return pa.schema(
            [(carried(column.name), column.type) for column in schema if column.name != "uri"]
        )

    def rows(self) -> Iterator[tuple[str, str, Mapping[str, object]]]:
        """Rows as (uri, problem, metadata); relative paths are taken from the manifest's folder."""
        schema, number = self._settled_schema(), 0
        for batch in self._batches():
            table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
            for row in table.to_pylist():
                number += 1
                uri = row.pop("uri")
                metadata = {carried(name): value for name, value in row.items()}
                if uri is None or not str(uri).strip():
                    yield f"{self._absolute()}#row={number}", "the row has no uri", metadata
                else:
                    yield self._resolve(str(uri)), "", metadata

    def _resolve(self, uri: str) -> str:
        if storage.is_remote(uri):
            return uri
        if uri.startswith("file://"):
            return storage.uri_from_path(storage.path_from_uri(uri))
        if storage.is_remote(self.spec):
            if uri.startswith("/"):
                parts = urlsplit(self.spec)
                return f"{parts.scheme}://{parts.netloc}{uri}"
            return self.spec.rpartition("/")[0] + "/" + uri
        folder = os.path.dirname(os.path.abspath(storage.path_from_uri(self.spec)))
        return storage.uri_from_path(os.path.normpath(os.path.join(folder, uri.encode())))

    def _absolute(self) -> str:
        if storage.is_remote(self.spec):
            return self.spec
        return storage.uri_from_path(os.path.abspath(storage.path_from_uri(self.spec)))

    def _settled_schema(self) -> pa.Schema:
        schema = self._schema_as_written()
        kept = [carried(name) for name in schema.names]
        for name, kept_name in zip(schema.names, kept, strict=True):
            if kept.count(kept_name) > 1:
                raise RequestError(
                    f"{self.spec}: the column {name!r} is there twice (a column of lookalike's own "
                    "is carried as manifest_<name>); names must differ"
                )
        return schema

    def _schema_as_written(self) -> pa.Schema:
        if self.spec.lower().endswith(".parquet"):
            try:
                with self._open() as file:
                    schema = pq.ParquetFile(file).schema_arrow
            except (pa.ArrowException, OSError) as error:
                raise RequestError(
                    f"{self.spec}: not readable as Parquet: {one_line(error)}"
                ) from error
            return pa.schema([(column.name, plain_type(column.type)) for column in schema])
        names = self._csv_names()
        candidates = [[] if name == "uri" else list(_CSV_TYPES) for name in names]
        for batch in self._batches():
            for i, column in enumerate(batch.columns):
                candidates[i] = [kind for kind in candidates[i] if _converts(column, kind)]
        return pa.schema(
            [
                (name, kinds[0] if kinds else pa.string())
                for name, kinds in zip(names, candidates, strict=True)
            ]
        )

    def _csv_names(self) -> list[str]:
        with self._readable(), self._open() as file:
            return list(pacsv.open_csv(file, parse_options=_PARSE).schema.names)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with self._readable(), self._open() as file:
            if self.spec.lower().endswith(".parquet"):
                yield from pq.ParquetFile(file).iter_batches(batch_size=8192)
                return
            as_text = pacsv.ConvertOptions(
                column_types=dict.fromkeys(self._csv_names(), pa.string()),
                null_values=[""],  # and not "NA" or "null", which name things too
                strings_can_be_null=True,
            )
            yield from pacsv.open_csv(file, parse_options=_PARSE, convert_options=as_text)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise RequestError(
                f"{self.spec}: not readable as a manifest: {one_line(error)}"
            ) from error

    def _open(self) -> Any:
        if storage.is_remote(self.spec):
            fs, path = storage.filesystem(self.spec)
            return fs.open_input_file(path)
        return open(storage.path_from_uri(self.spec), "rb")


_PARSE = pacsv.ParseOptions(newlines_in_values=True)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)


def _converts(column: pa.Array, kind: pa.DataType) -> bool:
    """Whether a column of text can be read as this type, and nothing is lost by it."""
    try:
        pc.cast(column, kind)
    except pa.ArrowInvalid:
        return False
    return not pc.any(pc.match_substring_regex(column, _CSV_TYPES[kind])).as_py()
