"""Which rows of a store fulfil a condition: the embedding shards' columns, read in batches.

Only the columns that the condition names are read, a row group or a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import RequestError, one_line
from lookalike.store.columns import is_binary
from lookalike.store.literals import exact_of, family, is_counted, mismatch, scalar_of
from lookalike.store.objects import Store
from lookalike.store.steps import COMPARE, steps_of
from lookalike.store.where import (
    Both,
    Column,
    Comparison,
    Condition,
    Either,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    Operand,
    Value,
    columns_of,
    parse,
)

Ids = npt.NDArray[np.int64]

_BATCH_ROWS = 65_536
_HIDDEN = ("embedding", "content_sha256")  # columns that no condition can use


def matching_ids(store: Store, files: Mapping[int, str], where: str) -> Ids:
    """Ids of the rows for which a condition is true, (n,) int64, ascending.

    A column that some files lack is null in their rows.

    Raises:
        RequestError: The condition cannot be understood, names a column that no file has, or
            compares what cannot be compared.
    """
    condition = parse(where)
    names = columns_of(condition)
    numbers = sorted(files)
    found = store.at_once(lambda number: _of_file(store, files[number], condition, names), numbers)
    there: set[str] = {name for _, columns in found for name in columns}
    unknown = sorted(names - there)
    if unknown and numbers:
        raise RequestError(f"where {where!r}: {_unknown(unknown[0], there)}")
    ids = [rows + (number << 32) for number, (rows, _) in zip(numbers, found, strict=True)]
    return np.concatenate([np.empty(0, dtype=np.int64), *ids])


def _of_file(
    store: Store, path: str, condition: Condition, names: Iterable[str]
) -> tuple[Ids, list[str]]:
    """Row numbers of one file that match, and the columns it has."""
    try:
        with pq.ParquetFile(store.parquet(path), memory_map=True) as file:
            columns = [name for name in file.schema_arrow.names if name not in _HIDDEN]
            present = [name for name in columns if name in names]
            absent = {name: pa.null() for name in names if name not in present}
            if not present:
                rows = file.metadata.num_rows
                return _rows([pa.nulls(rows)], absent, condition, ()), columns
            batches = file.iter_batches(_BATCH_ROWS, columns=present, use_threads=False)
            return _rows(batches, absent, condition, present), columns
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{store.shown(path)}: cannot be filtered: {one_line(error)}") from error


def _rows(
    batches: Iterable[Any], absent: Mapping[str, Any], condition: Condition, present: Iterable[str]
) -> Ids:
    start, found = 0, [np.empty(0, dtype=np.int64)]
    for batch in batches:
        size = len(batch)
        columns = {name: batch.column(name) for name in present}
        columns |= {name: pa.nulls(size, kind) for name, kind in absent.items()}
        mask = evaluate(condition, columns).fill_null(False)
        found.append(np.flatnonzero(mask.to_numpy(zero_copy_only=False)) + start)
        start += size
    return np.concatenate(found)


def _unknown(name: str, there: Iterable[str]) -> str:
    columns = sorted(there)
    close = get_close_matches(name.lower(), [one.lower() for one in columns], 1)
    meant = [one for one in columns if one.lower() in close]
    hint = f", did you mean {meant[0]}" if meant else ""
    return f"there is no column {name}{hint}; the columns are {', '.join(columns)}"


# --- one batch --------------------------------------------------------------------------------


def evaluate(condition: Condition, columns: Mapping[str, Any]) -> Any:
    """A condition over arrays of equal length by name: a boolean array, null where unknown.

    Raises:
        RequestError: Types that do not compare.
    """
    match condition:
        case Comparison(left, operator, right):
            return _compare(left, operator, right, columns)
        case In(column, values):
            return _is_in(column.name, _plain(columns[column.name]), values)
        case Like(column, pattern):
            array = _plain(columns[column.name])
            if not _has_values(array):
                return _no_values(array)
            if family(array.type) != "text":
                raise mismatch(column.name, array.type, "matched with like")
            return pc.match_like(array, pattern)
        case IsNull(column):
            return pc.is_null(columns[column.name])
        case Not(inner):
            return pc.invert(evaluate(inner, columns))
        case Both(parts):
            return reduce(pc.and_kleene, (evaluate(part, columns) for part in parts))
        case Either(parts):
            return reduce(pc.or_kleene, (evaluate(part, columns) for part in parts))


def _compare(left: Operand, operator: str, right: Operand, columns: Mapping[str, Any]) -> Any:
    if isinstance(left, Literal):  # the column to the left: 500 < width is width > 500
        turned = operator.translate(str.maketrans("<>", "><"))
        return _compare(right, turned, left, columns)
    array = _plain(columns[left.name])
    if not _has_values(array):
        return _no_values(array)
    try:
        if isinstance(right, Column):
            return _compare_columns(left.name, array, operator, right.name, columns)
        if is_counted(array.type):
            return steps_of(array).compare(operator, exact_of(left.name, array.type, right.value))
        return COMPARE[operator](array, scalar_of(left.name, array.type, right.value))
    except pa.ArrowException as error:
        raise RequestError(f"column {left.name} cannot be compared: {one_line(error)}") from error


def _compare_columns(
    name: str, array: Any, operator: str, other_name: str, columns: Mapping[str, Any]
) -> Any:
    other = _plain(columns[other_name])
    if not _has_values(other):
        return _no_values(array)
    what = f"compared with {other_name} ({other.type})"
    if family(array.type) != family(other.type) or family(array.type) == "other":
        raise mismatch(name, array.type, what)
    zones = [getattr(one, "tz", None) for one in (array.type, other.type)]
    if pa.types.is_timestamp(array.type) and pa.types.is_timestamp(other.type) and any(zones):
        if not all(zones):
            raise RequestError(
                f"column {name} ({array.type}) cannot be {what}: only one of them has a time zone; "
                "compare each with a text"
            )
        array, other = (one.cast(pa.timestamp(one.type.unit, "UTC")) for one in (array, other))
    elif any(zones):  # a date begins by the other's clock
        array, other = (_at_midnight(one, zones[0] or zones[1]) for one in (array, other))
    if pa.types.is_floating(array.type) != pa.types.is_floating(other.type):
        array, other = (one.cast(pa.float64(), safe=False) for one in (array, other))
    elif array.type != other.type and pa.uint64() in (array.type, other.type):
        array, other = (one.cast(pa.decimal128(38, 0)) for one in (array, other))
    return COMPARE[operator](array, other)


def _at_midnight(array: Any, zone: str | None) -> Any:
    if not pa.types.is_date(array.type):
        return array
    return pc.assume_timezone(
        array.cast(pa.timestamp("s")), zone, ambiguous="earliest", nonexistent="latest"
    )


def _is_in(name: str, array: Any, values: Iterable[Value]) -> Any:
    if not _has_values(array):
        return _no_values(array)
    if is_counted(array.type):
        return steps_of(array).is_in(exact_of(name, array.type, value) for value in values)
    scalars = [scalar_of(name, array.type, value) for value in values]
    if pa.types.is_floating(array.type):  # to a hash table, 0 and -0 differ
        return reduce(pc.or_, (pc.equal(array, scalar) for scalar in scalars))
    found = pc.is_in(array, pa.array([one.as_py() for one in scalars], array.type))
    return pc.if_else(pc.is_valid(array), found, pa.scalar(None, pa.bool_()))


def _plain(array: Any) -> Any:
    """The same values in a type that compares."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if isinstance(array, pa.ExtensionArray):  # such as UUIDs
        return _plain(array.storage)
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if is_binary(kind):
        return array.cast(pa.large_binary())
    return array


def _has_values(array: Any) -> bool:
    return not pa.types.is_null(array.type)


def _no_values(array: Any) -> Any:
    return pa.nulls(len(array), pa.bool_())
