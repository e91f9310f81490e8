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
import pyarrow.parquet as pq

from lookalike.sources.listing import Listing
from lookalike.store.objects import Store

UNLISTED = "unlisted"
"""The reason of files that lie where nothing could be listed."""
UNREADABLE = "unreadable"
"""The reason of files that could not be read themselves."""


@dataclass(frozen=True)
class Place:
    """Somewhere that could not be listed.

    Attributes:
        uri: Of its row in the listing.
        problem: Why.
        start: What the names in it begin with.
    """

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
    def of(cls, store: Store, listing: Listing) -> Hidden:
        """Those of a listing."""
        return cls(dict(_places(store, listing)))

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


def _ends(uri: str) -> Iterator[int]:
    """Where the beginnings of a name end that a place may be known by."""
    return (at + 1 for at, character in enumerate(uri) if character in "/#")


def _places(store: Store, listing: Listing) -> Iterator[tuple[str, Place]]:
    for part in listing.parts:
        with pq.ParquetFile(store.local(part)) as file:
            for batch in file.iter_batches(columns=["uri", "problem", "_hides"]):
                table = pa.Table.from_batches([batch])
                for row in table.filter(is_place(table)).to_pylist():
                    place = Place(row["uri"], row["problem"] or "it cannot be read", row["_hides"])
                    for spelt in (*_spellings(row["_hides"]), row["uri"]):
                        yield spelt, place


def _spellings(start: str) -> tuple[str, ...]:
    """A folder's name as the names in it bear it: one that is not UTF-8 is percent-encoded."""
    if not start.startswith("/"):
        return (start,)
    return start, "file://" + quote(start, safe="/ !$&'()*+,;=:@~")
