"""Columns that are in the names of folders, as Hive and Spark lay tables out.

    photos/year=2024/label=cat/part-0.parquet    ->    year 2024, label "cat"

All folders of a path count, the given one's own and those above it too: a table has the same
columns however it was named. Of two folders for one column the outer counts, as in pyarrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.records import SourceFile
from lookalike.sources.places import Notes
from lookalike.store import storage
from lookalike.store.columns import carried

NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_INT64 = range(-(2**63), 2**63)

Values = Mapping[str, str | None]


def partition_values(uri: str) -> dict[str, str | None]:
    """The values that the folders above a file say, as text, by the names of the columns."""
    if storage.is_remote(uri):
        path = unquote(uri.partition("?")[0])
    else:
        path = storage.path_from_uri(uri).decode("utf-8", "replace")
    values: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            values.setdefault(unquote(name), None if value == NULL else unquote(value))
    return values


def partition_schema(tables: Iterable[Values]) -> pa.Schema:
    """The columns of all tables: int64 where all values are integers, else string."""
    texts: dict[str, set[str | None]] = {}
    for values in tables:
        for name, value in values.items():
            texts.setdefault(name, set()).add(value)
    return pa.schema([(name, _kind(found - {None})) for name, found in texts.items()])


def _kind(texts: set[Any]) -> pa.DataType:
    whole = texts and all(_WHOLE.fullmatch(text) and int(text) in _INT64 for text in texts)
    return pa.int64() if whole else pa.string()


class Partitions:
    """The typed values of some files that are listed together, under the names they are kept by."""

    def __init__(self, uris: Iterable[str]) -> None:
        """Tell the types from all of the files."""
        named = (partition_values(uri) for uri in uris)
        self.schema = partition_schema(
            {carried(name): value for name, value in values.items()} for values in named
        )

    def of(self, uri: str) -> dict[str, int | str | None]:
        """What the folders above one of the files say."""
        values: dict[str, int | str | None] = {}
        for name, text in partition_values(uri).items():
            place = self.schema.get_field_index(carried(name))  # -1: it came since they were told
            whole = place >= 0 and pa.types.is_integer(self.schema.field(place).type)
            values[carried(name)] = int(text) if text and whole else text
        return values


def tell_within(
    row: SourceFile,
    said: Mapping[str, int | str | None],
    file: SourceFile,
    source: int,
    notes: Notes,
) -> SourceFile:
    """A row with what the folders above its file say; what it says itself counts."""
    for name, value in said.items():
        if name in row.metadata and not same_value(row.metadata[name], value):
            notes.tell(
                f"{file.uri}: the rows' own {name} counts ({row.metadata[name]} in {row.uri}), "
                f"and not its folder's name ({name}={value})",
                about=f"{source}:{name}",
            )
    return replace(row, metadata={**said, **row.metadata})


def same_value(own: object, given: int | str | None) -> bool:
    """Whether a row's own value is the one that the folder's name says."""
    if isinstance(given, str) and _says(own, given):
        return True
    return own == given or str(own) == str(given)


def all_rows_say(footer: pq.FileMetaData, column: str, text: str | None) -> bool:
    """Whether the statistics of a table show that a column has one value throughout."""
    for group in range(footer.num_row_groups):
        columns = (footer.row_group(group).column(i) for i in range(footer.num_columns))
        found = next((one for one in columns if one.path_in_schema == column), None)
        stats = found and found.statistics
        if not stats or not stats.has_null_count:
            return False
        if text is None:
            if stats.null_count != footer.row_group(group).num_rows:
                return False
        elif (
            stats.null_count
            or not stats.has_min_max
            or not (stats.min == stats.max and _says(stats.min, text))
        ):
            return False
    return True


def _says(value: object, text: str) -> bool:
    if isinstance(value, int) and _WHOLE.fullmatch(text):
        return value == int(text)
    return str(value) == text
