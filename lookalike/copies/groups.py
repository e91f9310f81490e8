"""Groups of near-copies with all that is known of their pictures, and which of these to keep.

To keep is the one with the most pixels; of equals that which is compressed least, so the one of
most bytes; of equals the first by its name. Nothing is removed, here or elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from lookalike.batching import at_least
from lookalike.copies.spec import Joined
from lookalike.distances import Ids, score_pairs
from lookalike.store.duplicates import DuplicateReader
from lookalike.store.living import read_rows
from lookalike.store.snapshot import files_of

SAME_FILE = "same file"
"""The relation of names of the same bytes."""

_COLUMNS = ("uri", "width", "height", "bytes")
_AT_ONCE = 32_768  # rows described together; of a larger group all names are held


@dataclass(frozen=True)
class Member:
    """A picture of a group.

    Attributes:
        id: Of its row; other names of the same bytes have the same.
        keep: Whether it is one to keep.
        copy_of: The one to keep of which this is a copy; None for that itself.
        score: Exact, to that one; of one to keep, to the group's first.
        relation: What it is to that one, where that is known.
        width: In pixels; 0 where the store does not know it.
        height: Likewise.
        bytes: Of the file; likewise.
    """

    uri: str
    id: int
    keep: bool
    copy_of: str | None
    score: float
    relation: str | None
    width: int
    height: int
    bytes: int

    @property
    def preference(self) -> tuple[int, int, str]:
        """The smallest is the one to keep."""
        return -self.width * self.height, -self.bytes, self.uri


@dataclass(frozen=True)
class Group:
    """Near-copies in order of preference; numbered from 1, the largest group first."""

    number: int
    members: tuple[Member, ...]


class Describer:
    """Rows of a snapshot as members of groups."""

    def __init__(self, joined: Joined) -> None:
        """Read footers."""
        self._joined = joined
        lines = files_of(joined.manifest, "duplicates")
        self._names = DuplicateReader(joined.store, [str(line["path"]) for line in lines])

    def groups(self, rows: Iterable[Ids]) -> Iterator[Group]:
        """The groups, numbered as they come, of the ids of the rows of each."""
        number = 0
        for some in at_least(((own, len(own)) for own in rows), _AT_ONCE):
            ids = np.unique(np.concatenate(some))
            table = read_rows(self._joined.reader, self._joined.schema, ids, _COLUMNS)
            names = self._names.of(ids)
            for own in some:
                number += 1
                yield self._group(
                    number, table.take(pa.array(np.searchsorted(ids, own))), own, names
                )

    def _group(
        self, number: int, table: pa.Table, ids: Ids, names: dict[int, tuple[str, ...]]
    ) -> Group:
        found = []
        for row, i in zip(table.to_pylist(), ids.tolist(), strict=True):
            sizes = [int(row[name] or 0) for name in _COLUMNS[1:]]
            found += [
                Member(uri, i, False, None, 0.0, None, *sizes)
                for uri in (row["uri"], *names.get(i, ()))
            ]
        found.sort(key=lambda member: member.preference)
        kept = replace(found[0], keep=True)
        copies = [self.compared(member, kept) for member in found[1:]]
        scores = self.scores(kept.id, [kept, *copies])
        members = zip([kept, *copies], scores, strict=True)
        return Group(number, tuple(replace(one, score=score) for one, score in members))

    @staticmethod
    def compared(member: Member, kept: Member) -> Member:
        """The member as a copy of one to keep."""
        same = SAME_FILE if member.id == kept.id else None
        return replace(member, keep=False, copy_of=kept.uri, relation=same)

    def scores(self, kept: int, members: Iterable[Member]) -> list[float]:
        """Exact scores of members to a row."""
        ids = np.array([member.id for member in members], dtype=np.int64)
        reader, metric, found = self._joined.reader, self._joined.metric, []
        one = reader.vectors(np.array([kept]))
        for start in range(0, len(ids), _AT_ONCE):
            vectors = reader.vectors(ids[start : start + _AT_ONCE])
            chosen, rows = np.zeros(len(vectors), dtype=np.intp), np.arange(len(vectors))
            found += score_pairs(one, vectors, chosen, rows, metric).tolist()
        return found
