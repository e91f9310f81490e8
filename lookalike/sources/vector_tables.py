"""Parquet tables of vectors made elsewhere: columns `uri` and `embedding`, the others metadata.

A table is named itself, or found by a glob or in a folder. What is wrong with a whole table is
wrong with the request; what is wrong with a row is the ledger's (see `vector_units`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import RequestError, UnreachableError
from lookalike.records import SourceFile
from lookalike.sources.file_kinds import not_parquet
from lookalike.sources.globs import GLOB
from lookalike.sources.hive import NULL, all_rows_say, partition_schema, partition_values
from lookalike.sources.kinds import kind_of
from lookalike.sources.places import Notice
from lookalike.sources.walking import files_of, walk
from lookalike.store import storage
from lookalike.store.columns import (
    carried,
    is_bytes,
    is_text,
    kept_type,
    merge_columns,
    plain_type,
)

SUFFIXES = (".parquet", ".pq")
_SAMPLE_ROWS = 10_000
_BUFFER = 1 << 20  # read page by page: a row group may be larger than memory
_ROWS_PER_BYTE = 64  # of the file: more is no table but a hostile footer

UNREADABLE = (pa.ArrowException, OSError, ValueError)
"""What reading a damaged table may raise."""


@dataclass(frozen=True)
class VectorTable:
    """One table, its footer read.

    Attributes:
        file: Where it lies, with size and version.
        groups: Rows of each row group.
        dim: Components of every vector, 0 where rows may differ.
        kind: Arrow type of a component.
        metadata: Names that columns are kept by, by their names in the table.
        schema: The metadata columns, under the names that they are kept by.
        partitions: Further ones that the names of its folders say (see `hive`), in every row.
        contradicted: Of these, `name=value` where a column of the table says otherwise, and counts.
        left_out: Columns that are not kept, with their types.
    """

    file: SourceFile
    groups: tuple[int, ...]
    dim: int
    kind: pa.DataType
    metadata: dict[str, str]
    schema: pa.Schema
    partitions: Mapping[str, str | None] = field(default_factory=dict)
    contradicted: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """What changes when the table does, or is moved among partitions."""
        texts = (f"{name}={value!r}" for name, value in self.partitions.items())
        return "+".join(filter(None, (self.file.version, ";".join(texts))))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that are read."""
        return ("uri", "embedding", *self.metadata)

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return sum(self.groups)


def list_tables(specs: Sequence[str], notice: Notice) -> list[VectorTable]:
    """All tables that the sources name, each once, in order.

    `notice` is told what lies there and is left out.

    Raises:
        UnreachableError: One cannot be had now, or not be listed.
        RequestError: There is no table, or one is not readable, has not the columns, or has them in
            other types.
    """
    found: dict[str, SourceFile] = {}
    for spec in specs:
        others: list[str] = []
        for file, named in files_of(walk(spec, _kind(spec), notice, strict=True)):
            if not (named or _is_table(file.uri)) and not file.problem:
                others.append(file.uri)
                continue
            if file.problem:
                raise RequestError(f"{file.uri}: {file.problem}")
            found.setdefault(file.uri, file)
        if others:
            notice(f"{spec}: {len(others):,} files are no .parquet, for example {others[0]}")
    if not found:
        raise RequestError(f"{', '.join(specs)}: no Parquet files there; nothing to index")
    tables = [read_footer(file) for file in found.values()]
    _tell(tables, notice)
    return tables


def _tell(tables: Sequence[VectorTable], notice: Notice) -> None:
    """What of the tables is not carried along, once for each column."""
    said: set[str] = set()
    for table in tables:
        for pair in table.contradicted:
            if (name := pair.partition("=")[0]) not in said:
                said.add(name)
                notice(
                    f"{table.file.uri}: the table's own column {name} counts, and not its folder's "
                    f"name {pair}, which is not the same in every row"
                )
        for column in table.left_out:
            if column not in said:
                said.add(column)
                notice(f"{table.file.uri}: the column {column} is left out: bytes are not carried")


@contextmanager
def open_table(uri: str) -> Iterator[pq.ParquetFile]:
    """A table, local or remote, to be read in bounded memory.

    Lists of a fixed size are read as lists: Arrow cannot read the former where a row is null.

    Raises:
        OSError: It cannot be opened.
        pa.ArrowException: It is not Parquet.
    """
    with _opened(uri) as (source, file):
        if "embedding" in file.schema_arrow.names and pa.types.is_fixed_size_list(
            file.schema_arrow.field("embedding").type
        ):
            footer = _without_arrow_schema(source)
            file = pq.ParquetFile(source, metadata=footer, buffer_size=_BUFFER, pre_buffer=False)
        yield file


@contextmanager
def _opened(uri: str) -> Iterator[tuple[Any, pq.ParquetFile]]:
    with ExitStack() as stack:
        source = stack.enter_context(storage.open_binary(uri, from_end=True))
        file = stack.enter_context(pq.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False))
        yield source, file


def _without_arrow_schema(source: Any) -> pq.FileMetaData:
    """The footer with the Arrow schema under a name that Arrow does not heed."""
    end = source.seek(0, os.SEEK_END)
    source.seek(end - 8)
    length = int.from_bytes(source.read(4), "little")
    source.seek(end - 8 - length)
    footer = source.read(length).replace(b"ARROW:schema", b"arrow schema", 1)
    return pq.read_metadata(
        pa.BufferReader(b"PAR1" + footer + length.to_bytes(4, "little") + b"PAR1")
    )


def find_dim(tables: Sequence[VectorTable]) -> int:
    """Components that most vectors have, of the first 10,000 rows.

    Raises:
        RequestError: There is no vector among them.
    """
    lengths: Counter[int] = Counter()
    left = _SAMPLE_ROWS
    for table in tables:
        if left <= 0:
            break
        for block in _lengths(table, left):
            left -= len(block)
            lengths.update(block.drop_null().to_pylist())
    del lengths[0]
    if not lengths:
        names = ", ".join(table.file.uri for table in tables[:3])
        raise RequestError(
            f"{names}: no vector in the first {_SAMPLE_ROWS - left:,} rows; nothing to index"
        )
    return lengths.most_common(1)[0][0]


def metadata_schema(tables: Iterable[VectorTable]) -> pa.Schema:
    """Metadata columns of all tables together; types that do not agree become strings."""
    tables = list(tables)
    folders = partition_schema(table.partitions for table in tables)
    return merge_columns([*(table.schema for table in tables), folders])


def _kind(spec: str) -> str:
    if not spec:
        raise RequestError("an empty source was given; name a Parquet file, a folder or a glob")
    kind = kind_of(spec)
    if kind == "absent":
        if GLOB & set(storage.plain_name(spec)):
            return "glob"
        raise RequestError(f"{spec}: no such file or folder")
    if kind == "other":
        raise RequestError(f"{spec}: neither a file nor a folder")
    return kind


def _is_table(uri: str) -> bool:
    name = storage.plain_name(uri).rpartition("/")[2]
    return name.lower().endswith(SUFFIXES) and not name.startswith((".", "_"))


def read_footer(file: SourceFile) -> VectorTable:
    """What one table is.

    Raises:
        RequestError: See `list_tables`.
    """
    try:
        with _opened(file.uri) as (_, opened):
            schema, footer = opened.schema_arrow, opened.metadata
            groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    except UnreachableError:
        raise
    except UNREADABLE as error:
        why = not_parquet(file.uri, error, "the columns uri and embedding")
        raise RequestError(f"{file.uri}: {why}") from error
    if sum(groups) > _ROWS_PER_BYTE * max(file.bytes, 1 << 20):
        raise RequestError(f"{file.uri}: damaged: it announces {sum(groups):,} rows")
    dim, kind = _embedding(file.uri, schema)
    metadata = {
        column.name: carried(column.name)
        for column in schema
        if column.name not in ("uri", "embedding") and not _holds_bytes(column.type)
    }
    if len(set(schema.names)) < len(schema.names) or len(set(metadata.values())) < len(metadata):
        raise RequestError(
            f"{file.uri}: two columns would have one name (a column of lookalike's own is carried "
            "as manifest_<name>); names must differ"
        )
    kept = [(metadata[name], kept_type(schema.field(name).type)) for name in metadata]
    folders = partition_values(file.uri)
    return VectorTable(
        file,
        tuple(groups),
        dim,
        kind,
        metadata,
        pa.schema(kept),
        {
            carried(name): value
            for name, value in folders.items()
            if name not in schema.names and carried(name) not in metadata.values()
        },
        tuple(
            f"{name}={NULL if value is None else value}"
            for name, value in folders.items()
            if name in schema.names and not all_rows_say(footer, name, value)
        ),
        tuple(f"{one.name} ({one.type})" for one in schema if _holds_bytes(one.type)),
    )


def _embedding(uri: str, schema: pa.Schema) -> tuple[int, pa.DataType]:
    """Components of every vector (0 where they may differ) and their type."""
    there = ", ".join(schema.names) or "none"
    for name in ("uri", "embedding"):
        if name not in schema.names:
            raise RequestError(
                f"{uri}: needs the columns uri and embedding, it has {there}; rename the column "
                f"that is the {name}"
            )
        if schema.names.count(name) > 1:
            raise RequestError(f"{uri}: has {schema.names.count(name)} columns {name!r}, needs one")
    name_type, kind = schema.field("uri").type, schema.field("embedding").type
    if not is_text(plain_type(name_type)):
        raise RequestError(f"{uri}: the column uri must be string, it is {name_type}; cast it")
    if not is_vector(kind):
        raise RequestError(
            f"{uri}: the column embedding must be a list (or fixed_size_list) of float16, float32 "
            f"or float64, it is {kind}; cast it"
        )
    return kind.list_size if pa.types.is_fixed_size_list(kind) else 0, kind.value_type


def is_vector(kind: pa.DataType) -> bool:
    """Whether a column of that type may hold vectors: lists of floats."""
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(one(kind) for one in lists) and bool(pa.types.is_floating(kind.value_type))


def _holds_bytes(kind: pa.DataType) -> bool:
    """Bytes, a thumbnail say, are no metadata, nor is what they are part of."""
    return is_bytes(kind) or any(
        _holds_bytes(kind.field(i).type)
        for i in range(kind.num_fields if pa.types.is_nested(kind) else 0)
    )


def _lengths(table: VectorTable, rows: int) -> Iterator[pa.Array]:
    """Components of each of the first rows; null where there is no vector."""
    if table.dim:  # known without reading
        yield pa.array([table.dim] * min(rows, table.rows), pa.int64())
        return
    try:
        with open_table(table.file.uri) as file:
            for batch in file.iter_batches(1024, columns=["embedding"], use_threads=False):
                block = pc.list_value_length(batch.column(0)).slice(0, rows)
                rows -= len(block)
                yield block
                if rows <= 0:
                    return
    except UNREADABLE:
        return  # its rows will be rejected, each with the reason
