"""What of the metadata of tables is not carried along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from lookalike.records import SourceFile
from lookalike.sources.hive import same_value
from lookalike.sources.walking import Notice


class Untold:
    """What is not carried along of tables, told once for each column."""

    def __init__(self, notice: Notice) -> None:
        """Tell it to `notice`."""
        self._notice, self._said = notice, set[str]()

    def left_out(self, table: str, column: str) -> None:
        """A column of a table that is not carried along."""
        self._say(
            column,
            f"{table}: the column {column} is left out: of tables of images, plain values are "
            "carried, not bytes, lists or structs",
        )

    def within(
        self, file: SourceFile, said: Mapping[str, int | str | None], row: SourceFile
    ) -> SourceFile:
        """A row with what the folders above its file say; what it says itself counts."""
        for name, value in said.items():
            if name in row.metadata and not same_value(row.metadata[name], value):
                self._say(
                    name,
                    f"{file.uri}: the rows' own {name} counts ({row.metadata[name]} in {row.uri}), "
                    f"and not its folder's name ({name}={value})",
                )
        return replace(row, metadata={**said, **row.metadata})

    def _say(self, column: str, line: str) -> None:
        if column not in self._said:
            self._said.add(column)
            self._notice(line)
