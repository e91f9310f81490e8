"""Metadata columns: their names beside lookalike's own, and types that hold what sources give."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

import pyarrow as pa

from lookalike.cells import as_text, cells

_FIRST_YEAR_NS, _LAST_YEAR_NS = 1678, 2261  # that 64 bits of nanoseconds reach

# Names that the shards, the query results and the unit files use themselves.
RESERVED = frozenset(
    [
        *("id", "uri", "content_sha256", "width", "height", "format", "bytes", "embedding"),
        *("query_uri", "rank", "score", "duplicates", "version", "problem"),
        *("_container", "_offset", "_group", "_hides"),
        *("_key", "_was", "_was_sha256", "_was_id", "_was_metadata_hash"),
    ]
)


def carried(name: str) -> str:
    """The name under which a source's column is kept: `manifest_<name>` where it is reserved."""
    return f"manifest_{name}" if name in RESERVED else name


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary column, of any other its own."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, of whichever layout."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes."""
    kind = plain_type(kind)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, or numbers of bytes such as hashes."""
    return is_bytes(kind) or bool(pa.types.is_fixed_size_binary(plain_type(kind)))


def kept_type(kind: pa.DataType) -> pa.DataType:
    """The type by which a table's column is kept.

    Views of text and bytes, as some programs write them, hold what plain columns hold; Arrow can
    neither choose nor sort rows of them.
    """
    kind = plain_type(kind)
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(kept_type(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(kept_type(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(kept_type(kind.value_type)))
    return kind


def merge_columns(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of all schemas in order of appearance; types that do not agree become strings."""
    fields: dict[str, pa.DataType] = {}
    for schema in schemas:
        for column in schema:
            known = fields.setdefault(column.name, column.type)
            fields[column.name] = common_type(known, column.type)
    return pa.schema(list(fields.items()))


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both, such as int64 for int32 and int64; else string."""
    if one == other:
        return one
    if is_binary(one) != is_binary(other) and not any(map(pa.types.is_null, (one, other))):
        return pa.string()  # Arrow would make bytes of text
    if _is_zoned(one) and _is_zoned(other) and one.tz != other.tz:
        one, other = pa.timestamp(one.unit, "UTC"), pa.timestamp(other.unit, "UTC")
    schemas = [pa.schema([("value", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.string()


def type_of(value: object) -> pa.DataType:
    """The type of a plain value; what is none becomes a string."""
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return pa.int64()
    return pa.float64() if isinstance(value, float) else pa.string()


def fit(value: Any, kind: pa.DataType) -> Any:
    """The value as a column of that type takes it.

    Sources may disagree on a type (see `merge_columns`), and a shard's types are told from samples.

    Raises:
        ValueError: It does not fit.
    """
    if value is None:
        return None
    if pa.types.is_string(kind):
        return as_text(value)
    sound = True
    if pa.types.is_boolean(kind):
        sound = isinstance(value, bool)
    elif pa.types.is_integer(kind):
        sound = type_of(value) == pa.int64() or pa.types.is_uint64(kind)
    elif pa.types.is_floating(kind):
        sound = isinstance(value, (int, float)) and not isinstance(value, bool)
        value = float(value) if sound and type_of(value) == pa.int64() else value
    elif pa.types.is_timestamp(kind) and kind.unit == "ns" and isinstance(value, datetime):
        sound = _FIRST_YEAR_NS <= value.year <= _LAST_YEAR_NS
    if not sound:
        raise ValueError(f"{value!r} is no {kind}")
    return value


def cast(column: Any, kind: pa.DataType) -> Any:
    """An array as a column of that type takes it (see `fit`); null where a value does not fit."""
    if column.type == kind:
        return column
    if not (is_binary(column.type) and pa.types.is_string(kind)):  # Arrow takes bytes for text
        with suppress(pa.ArrowNotImplementedError, pa.ArrowInvalid):
            return column.cast(kind, safe=not pa.types.is_floating(kind))
    return pa.array([fit_or_none(value, kind) for value in cells(column)], kind)


def fitting(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Rows with the columns that are wanted, in their types; null where they have none."""
    there = set(table.column_names)
    columns = [
        table[field.name].cast(field.type)
        if field.name in there
        else pa.nulls(table.num_rows, field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


def fit_or_none(value: Any, kind: pa.DataType) -> Any:
    """See `fit`; None where the value does not fit."""
    try:
        return fit(value, kind)
    except ValueError:
        return None


def _is_zoned(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) and kind.tz)
