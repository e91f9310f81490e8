"""What a listing could not see: names that may lie in folders or containers nobody could list.

A name of the last ledger that was not listed is gone; unless it lies where nothing could be listed,
as then nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

UNLISTED = "unlisted"
"""The reason of files that lie where nothing could be listed."""
UNREADABLE = "unreadable"
"""The reason of files that could not be read themselves."""
PLACE = pa.schema([("uri", pa.string()), ("problem", pa.string()), ("_hides", pa.string())])
"""Of a listing's rows that stand for places, what is to be known of them everywhere."""


@dataclass(frozen=True)
class Place:
    """Somewhere that could not be listed, why, and what the names in it begin with."""

    uri: str
    problem: str
    start: str

    @property
    def detail(self) -> str:
        """What the rows of the files in it say."""
        return f"{self.uri}: {self.problem}"


@dataclass(frozen=True)
class Hidden:
    """All such places, by what the names in them begin with, and their own; "" is every name."""

    places: Mapping[str, Place]

    @classmethod
    def of(cls, table: pa.Table) -> Hidden:
        """Those of the rows of `PLACE`, in the order of the listing."""
        return cls(dict(_spelt(table)))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.places)

    def covering(self, uris: Sequence[str]) -> list[Place | None]:
        """Where each of some names lies, None where all could be listed."""
        if not self.places:
            return [None] * len(uris)
        return [self._covering(uri) for uri in uris]

    def _covering(self, uri: str) -> Place | None:
        for end in (*_ends(uri), len(uri)):
            if (place := self.places.get(uri[:end])) is not None:
                return place
        return self.places.get("")


def is_place(table: pa.Table) -> pa.ChunkedArray:
    """Which rows of a listing stand for more than a file: (n,) bool."""
    return pc.fill_null(pc.not_equal(table["_hides"], table["uri"]), False)


def places_of(table: pa.Table) -> pa.Table:
    """The rows of a listing that stand for more than a file: `PLACE`."""
    return table.filter(is_place(table)).select(PLACE.names).cast(PLACE)


def _ends(uri: str) -> Iterator[int]:
    """Where the beginnings of a name end that a place may be known by."""
    return (at + 1 for at, character in enumerate(uri) if character in "/#")


def _spelt(table: pa.Table) -> Iterator[tuple[str, Place]]:
    for row in table.to_pylist():
        place = Place(row["uri"], row["problem"] or "it cannot be read", row["_hides"])
        for spelt in (*_spellings(row["_hides"]), row["uri"]):
            yield spelt, place


def _spellings(start: str) -> tuple[str, ...]:
    """A folder's name as the names in it bear it: one that is not UTF-8 is percent-encoded."""
    if not start.startswith("/"):
        return (start,)
    return start, "file://" + quote(start, safe="/ !$&'()*+,;=:@~")
