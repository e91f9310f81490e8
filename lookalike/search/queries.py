"""What is searched with: vectors, their names, and what tells a query from the stored rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.distances import Ids, Vectors


@dataclass(frozen=True)
class Queries:
    """Some queries.

    Attributes:
        names: (n,), as answers show them.
        vectors: (n, dim) float32, as the store's features make them.
        uris: (n,), what each is called in a store; None for what has no name there.
        hashes: (n,), sha256 of each one's bytes; None where there are none.
    """

    names: list[str]
    vectors: Vectors
    uris: Sequence[str | None] = ()
    hashes: Sequence[bytes | None] = ()

    def __len__(self) -> int:
        return len(self.names)

    def own(self, row: int) -> frozenset[str | bytes]:
        """What a stored row that is this query's picture has as its uri or hash."""
        known = [column[row] for column in (self.uris, self.hashes) if len(column)]
        return frozenset(one for one in known if one is not None)


def joined(some: Iterable[Queries], dim: int, most: float = math.inf) -> Queries:
    """All of them, one after the other; no more are read once there are more than `most`."""
    parts: list[Queries] = []
    for part in some:
        parts.append(part)
        if sum(map(len, parts)) > most:
            break
    return Queries(
        [name for part in parts for name in part.names],
        np.concatenate([np.empty((0, dim), np.float32), *(part.vectors for part in parts)]),
        [uri for part in parts for uri in part.uris],
        [digest for part in parts for digest in part.hashes],
    )


@dataclass(frozen=True)
class Answers:
    """The neighbours of some queries.

    Attributes:
        names: (n,) of the queries.
        ids: (n, k) int64, -1 for nothing.
        scores: (n, k) float32.
        complete: (n,) bool: False where more rows may fulfil what was asked, but only the nearest
            of all were looked at.
    """

    names: list[str]
    ids: Ids
    scores: Vectors
    complete: Sequence[bool]
