"""Which rows of a store fulfil a condition: the embedding shards' columns, read in batches.

Only the columns that the condition names are read, a row group or a batch at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.errors import RequestError, one_line
from lookalike.parallel import run_all
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
_INT64 = range(-(2**63), 2**63)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal,
    ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip


def matching_ids(store: Path, files: Mapping[int, str], where: str) -> Ids:
    """Ids of the rows for which a condition is true, (n,) int64, ascending.

    A column that some files lack is null in their rows.

    Args:
        store: The store's root.
        files: Paths of embedding shards by file number.
        where: The condition, in the language of `lookalike.store.where`.

    Raises:
        RequestError: The condition cannot be understood, names a column that no file has, or
            compares what cannot be compared.
    """
    condition = parse(where)
    names = columns_of(condition)
    numbers = sorted(files)
    found = run_all(lambda number: _of_file(store / files[number], condition, names), numbers)
    there: set[str] = {name for _, columns in found for name in columns}
    unknown = sorted(names - there)
    if unknown and numbers:
        raise RequestError(f"where {where!r}: {_unknown(unknown[0], there)}")
    ids = [rows + (number << 32) for number, (rows, _) in zip(numbers, found, strict=True)]
    return np.concatenate([np.empty(0, dtype=np.int64), *ids])


def _of_file(path: Path, condition: Condition, names: Iterable[str]) -> tuple[Ids, list[str]]:
    """Row numbers of one file that match, and the columns it has."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            columns = [name for name in file.schema_arrow.names if name not in _HIDDEN]
            present = [name for name in columns if name in names]
            absent = {name: pa.null() for name in names if name not in present}
            if not present:
                rows = file.metadata.num_rows
                return _rows([pa.nulls(rows)], absent, condition, ()), columns
            batches = file.iter_batches(_BATCH_ROWS, columns=present, use_threads=False)
            return _rows(batches, absent, condition, present), columns
    except (OSError, pa.ArrowException) as error:
        raise RequestError(f"{path}: cannot be filtered: {one_line(error)}") from error


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
            if _family(array.type) != "text":
                raise _mismatch(column.name, array.type, "matched with like")
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
    if isinstance(right, Column):
        other: Any = _plain(columns[right.name])
        if not (_has_values(array) and _has_values(other)):
            return _no_values(array)
        if _family(array.type) != _family(other.type) or _family(array.type) == "other":
            raise _mismatch(left.name, array.type, f"compared with {right.name} ({other.type})")
    else:
        if not _has_values(array):
            return _no_values(array)
        other = _scalar(left.name, array.type, right.value)
    if pa.types.is_integer(array.type) and pa.types.is_floating(other.type):
        array = array.cast(pa.float64(), safe=False)  # Arrow itself refuses those above 2^53
    try:
        return _COMPARE[operator](array, other)
    except pa.ArrowException as error:
        raise RequestError(f"column {left.name} cannot be compared: {one_line(error)}") from error


def _is_in(name: str, array: Any, values: Iterable[Value]) -> Any:
    if not _has_values(array):
        return _no_values(array)
    scalars = [_scalar(name, array.type, value) for value in values]
    if pa.types.is_floating(array.type):  # to a hash table, 0 and -0 differ
        return reduce(pc.or_, (pc.equal(array, scalar) for scalar in scalars))
    # A number that the column's type cannot hold is in none of its rows.
    fitting = [one for one in (_cast(scalar, array.type) for scalar in scalars) if one is not None]
    found = pc.is_in(array, pa.array([one.as_py() for one in fitting], array.type))
    return pc.if_else(pc.is_valid(array), found, pa.scalar(None, pa.bool_()))


def _cast(scalar: Any, kind: Any) -> Any | None:
    try:
        return scalar.cast(kind)
    except (pa.ArrowInvalid, OverflowError):
        return None


def _plain(array: Any) -> Any:
    """The same values in a type that compares."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    if pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    return array


def _has_values(array: Any) -> bool:
    return not pa.types.is_null(array.type)


def _no_values(array: Any) -> Any:
    return pa.nulls(len(array), pa.bool_())


def _family(kind: Any) -> str:
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    if types.is_integer(kind) or types.is_floating(kind):
        return "number"
    if types.is_boolean(kind):
        return "boolean"
    return "time" if types.is_timestamp(kind) or types.is_date(kind) else "other"


def _scalar(name: str, kind: Any, value: Value) -> Any:
    """A literal as what a column of that type compares with."""
    family = _family(kind)
    if family == "text" and isinstance(value, str):
        return pa.scalar(value, kind)
    if family == "boolean" and isinstance(value, bool):
        return pa.scalar(value)
    if family == "time" and isinstance(value, str):
        try:
            return pa.scalar(value).cast(kind)
        except pa.ArrowException as error:
            raise RequestError(
                f"column {name} holds {kind}, {value!r} is none; write it as 2024-12-31 or "
                f"2024-12-31T23:59:59: {one_line(error)}"
            ) from error
    if family == "number" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(kind, value)
    raise _mismatch(name, kind, f"compared with {_shown(value)}")


def _number(kind: Any, value: int | float) -> Any:
    if pa.types.is_floating(kind):  # as the column rounds it, so that score = 0.1 finds 0.1
        return pa.scalar(float(value), kind)
    if isinstance(value, float) and not value.is_integer():
        return pa.scalar(value)
    whole = int(value)
    if pa.types.is_uint64(kind) and 0 <= whole < 2**64:
        return pa.scalar(whole, kind)
    fits = whole in _INT64 and not pa.types.is_uint64(kind)
    return pa.scalar(whole) if fits else pa.scalar(float(whole))


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"the text {value!r}" if isinstance(value, str) else f"the number {value}"


def _mismatch(name: str, kind: Any, what: str) -> RequestError:
    wanted = {
        "text": "text in single quotes", "number": "a number", "boolean": "true or false",
        "time": "a date or time in single quotes", "other": "only is null and is not null",
    }[_family(kind)]  # fmt: skip
    return RequestError(f"column {name} ({kind}) cannot be {what}; it takes {wanted}")
