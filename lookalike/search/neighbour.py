"""The answers to a query: neighbours, and all of them in their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lookalike.records import Metadata


@dataclass(frozen=True)
class Neighbour:
    """One answer to one query.

    Attributes:
        query_uri: The query's path or URI, or "vector:<row>" for a bare vector.
        rank: From 1.
        uri: The neighbour's path or URI as indexed.
        score: Exact, from the stored vectors, in the snapshot's metric.
        id: file number << 32 | row.
        duplicates: Other names of the same bytes, sorted.
        metadata: The neighbour's metadata columns; whatever these hold, it can be a key or a
            member of a set, for the hash is of the others.
    """

    query_uri: str
    rank: int
    uri: str
    score: float
    id: int
    duplicates: tuple[str, ...] = field(default=(), hash=False)
    metadata: Metadata = field(default_factory=dict, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """A flat row as `lookalike query --json` prints it: nothing in it that JSON has not.

        Metadata columns stand beside the others. Times are ISO 8601 texts, bytes hexadecimal
        digits; a number that is not finite is None.
        """
        from lookalike.cells import json_value

        row = {
            "query_uri": self.query_uri, "rank": self.rank, "uri": self.uri, "score": self.score,
            "id": self.id, "duplicates": self.duplicates, **self.metadata,
        }  # fmt: skip
        return {name: json_value(value) for name, value in row.items()}


class Neighbours(list[Neighbour]):
    """The neighbours of one query, best first; or in the order in which diverse ones were chosen.

    Attributes:
        query_uri: As each neighbour says it.
        complete: Whether nothing else in the store could be among them by what was asked; False
            where there are fewer than k, and only the nearest of all were looked at.
    """

    def __init__(
        self, neighbours: Iterable[Neighbour] = (), query_uri: str = "", complete: bool = True
    ) -> None:
        super().__init__(neighbours)
        self.query_uri, self.complete = query_uri, complete
