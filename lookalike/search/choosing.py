"""Answers that are more than the k nearest rows: chosen from as many as it takes.

Some rows are found, those that may not be answers are left out, and of the others k are chosen. For
queries that come out short more are found, until there are k, or no more rows, or too many to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.distances import (
    Ids,
    Scores,
    Vectors,
    better_is_higher,
    score,
    squared_lengths,
    top_k,
    worst_score,
)
from lookalike.errors import RequestError
from lookalike.search.diversity import diverse, few_of_each
from lookalike.search.queries import Answers, Queries
from lookalike.search.ways import Blender, Ways, together_name

DEEPEST = 1 << 16  # rows to choose from, for one query
_FIRST_PER_K = 10  # rows to choose diverse ones from, of which
_FIRST = 100  # so many at least
_SPARE = 4  # beyond k, of rows that are the query's own
_WIDER = 4
_AT_ONCE = 1 << 20  # rows found of all queries together
_READ_ROWS = 8192  # vectors in memory at a time, where several pictures are one query

Search = Callable[[npt.NDArray[np.intp], int], tuple[Ids, Scores]]
"""The nearest rows, ids (n, m) and scores, of the queries at some positions (n,)."""

_NAME, _CONTENT = "uri", "content_sha256"


class Rows(Protocol):
    """Stored rows by id."""

    def vectors(self, ids: Ids) -> Vectors:
        """Vectors (n, d) of the ids (n,)."""

    def columns(self, ids: Ids, names: Sequence[str]) -> pa.Table:
        """Those columns of the ids (n,), in their order."""


class Chooser:
    """Finds and chooses the answers of some queries."""

    def __init__(self, ways: Ways, blender: Blender, rows: Rows, search: Search, k: int) -> None:
        """Choose k rows for each query, of what `search` finds."""
        self._ways, self._blender, self._rows, self._search, self._k = (
            ways,
            blender,
            rows,
            search,
            k,
        )
        self._metric = blender.metric
        self._sign = 1 if better_is_higher(self._metric) else -1

    def answers(self, queries: Queries) -> Answers:
        """The neighbours of blended queries."""
        together = self._ways.together == "max" and len(queries) > 0
        names = [together_name(queries.names)] if together else queries.names

        def find(rows: npt.NDArray[np.intp], depth: int) -> tuple[Ids, Scores]:
            if together:
                return self._found_together(queries, depth)
            return self._scaled(queries, rows, depth)

        if self._ways.together and names:
            own = [frozenset().union(*map(queries.own, range(len(queries.uris))))]
        else:
            own = [queries.own(row) for row in range(len(names))]
        ids = np.full((len(names), self._k), -1, dtype=np.int64)
        scores = np.full(ids.shape, worst_score(self._metric), dtype=np.float32)
        complete = np.ones(len(names), dtype=bool)
        depth, pending = self._first(), np.arange(len(names) if self._k else 0)
        if not self._ways.choose and self._ways.min_score is None and len(pending):
            found, values = find(pending, depth)
            ids[:, : found.shape[1]], scores[:, : found.shape[1]] = found, values
            pending = pending[:0]
        while len(pending):
            short, step = [], max(1, _AT_ONCE // depth)
            for start in range(0, len(pending), step):
                some = pending[start : start + step]
                found, values = find(some, depth)
                allowed = self._allowed(found, values, [own[row] for row in some.tolist()])
                groups = self._groups(found)
                for place, row in enumerate(some.tolist()):
                    where = np.flatnonzero(allowed[place])
                    chosen = where[self._chosen(found[place], values[place], groups[place], where)]
                    ids[row, : len(chosen)] = found[place, chosen]
                    scores[row, : len(chosen)] = values[place, chosen]
                    if len(chosen) < self._k and not self._all(found[place], values[place], depth):
                        short.append(row)
            if depth >= DEEPEST:
                complete[short] = False
                break
            depth, pending = min(_WIDER * depth, DEEPEST), np.array(short, dtype=np.intp)
        return Answers(list(names), ids, scores, complete.tolist())

    def _first(self) -> int:
        """Rows to find at first."""
        depth = self._k + (_SPARE if self._ways.exclude_self else 0)
        if self._ways.group_by is not None:
            depth = _WIDER * self._k
        if self._ways.diversify is not None:
            depth = max(_FIRST_PER_K * self._k, _FIRST)
        return depth

    def _all(self, found: Ids, values: Scores, depth: int) -> bool:
        """Whether a row that was not found could be no answer."""
        if len(found) < depth or found[-1] < 0:
            return True
        least = self._ways.min_score
        return least is not None and bool(self._sign * values[-1] < self._sign * least)

    # --- what is found --------------------------------------------------------------------------

    def _scaled(
        self, queries: Queries, rows: npt.NDArray[np.intp], depth: int
    ) -> tuple[Ids, Scores]:
        ids, scores = self._search(rows, depth)
        if self._blender.weighed and self._metric == "cosine":
            # The cosine is of the length of the query as well, which is where the weights are.
            lengths = np.sqrt(squared_lengths(queries.vectors[rows]))
            scores = np.asarray(scores * lengths[:, None], dtype=np.float32)
        return ids, scores

    def _found_together(self, queries: Queries, depth: int) -> tuple[Ids, Scores]:
        """The best rows by the best of their scores to all queries: (1, m)."""
        every = np.arange(len(queries))
        per = max(1, _AT_ONCE // depth)
        found = np.concatenate(
            [np.unique(self._search(every[at : at + per], depth)[0]) for at in every[::per]]
        )
        ids = np.unique(found[found >= 0])
        best = np.empty(len(ids), dtype=np.float32)
        metric = "inner_product" if self._blender.weighed else self._metric
        for start in range(0, len(ids), _READ_ROWS):
            part = slice(start, start + _READ_ROWS)
            values = self._sign * score(queries.vectors, self._vectors(ids[part]), metric)
            best[part] = self._sign * values.max(axis=0)
        return top_k(ids[None], best[None], min(depth, len(ids)), self._metric)

    def _vectors(self, ids: Ids) -> Vectors:
        """Stored vectors, of unit length where weights are of cosines."""
        vectors = self._rows.vectors(ids)
        if not self._blender.weighed or self._metric != "cosine":
            return vectors
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        return np.asarray(vectors / np.where(lengths > 0, lengths, 1)[:, None], dtype=np.float32)

    # --- what may be an answer ------------------------------------------------------------------

    def _allowed(
        self, found: Ids, values: Scores, own: Sequence[frozenset[str | bytes]]
    ) -> npt.NDArray[np.bool_]:
        allowed = found >= 0
        if self._ways.min_score is not None:
            allowed &= self._sign * values >= self._sign * np.float32(self._ways.min_score)
        if self._ways.exclude_self:
            for row, mine in zip(*self._suspects(found, own), strict=True):
                for place, one in enumerate(own):
                    if mine & one:
                        allowed[place] &= found[place] != row
        return allowed

    def _suspects(
        self, found: Ids, own: Sequence[frozenset[str | bytes]]
    ) -> tuple[list[int], list[frozenset[str | bytes]]]:
        """Rows found that are the picture of any query, and what each has as uri and hash."""
        ids = np.unique(found[found >= 0])
        table = self._rows.columns(ids, [_NAME, _CONTENT])
        every = frozenset[str | bytes]().union(*own)
        names = pa.array([one for one in every if isinstance(one, str)], pa.string())
        hashes = pa.array([one for one in every if isinstance(one, bytes)], pa.binary(32))
        mine = pc.or_(pc.is_in(table[_NAME], names), pc.is_in(table[_CONTENT], hashes))
        where = np.flatnonzero(mine.to_numpy())
        rows = table.take(pa.array(where)).to_pylist()
        return ids[where].tolist(), [frozenset(row.values()) - {None} for row in rows]

    def _groups(self, found: Ids) -> Ids:
        """A number for the group of each row found, as their ids where there are no groups."""
        if self._ways.group_by is None:
            return found
        ids, place = np.unique(found, return_inverse=True)
        column = self._rows.columns(ids[ids >= 0], [self._ways.group_by]).column(0)
        codes = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode").indices
        numbers = np.concatenate([np.full(int((ids < 0).sum()), -1), codes.to_numpy()])
        return np.asarray(numbers[place.reshape(found.shape)], dtype=np.int64)

    def _chosen(self, found: Ids, values: Scores, groups: Ids, where: Ids) -> Ids:
        """Positions, among those allowed (n,), of what is answered, in order."""
        if self._ways.diversify is None:
            if self._ways.group_by is None:
                return np.arange(min(self._k, len(where)))
            return few_of_each(groups[where], self._k, self._ways.per_group)
        return diverse(
            self._sign * values[where],
            self._vectors(found[where]),
            self._k,
            self._ways.diversify,
            self._alike,
            groups[where],
            self._ways.per_group,
        )

    def _alike(self, one: Vectors, others: Vectors) -> Scores:
        if self._blender.weighed:
            return score(self._blender.weigh(one), others, "inner_product")
        return np.asarray(self._sign * score(one, others, self._metric))


def check_group(name: str, schema: pa.Schema, asked: str = "group_by") -> None:
    """Whether rows can be grouped by a column.

    Raises:
        RequestError: There is no such column, or one whose values are no single ones.
    """
    names = [one for one in schema.names if one != "embedding"]
    if name not in names:
        raise RequestError(
            f"{asked}: there is no column {name!r}; the columns are {', '.join(names)}"
        )
    if pa.types.is_nested(schema.field(name).type):
        raise RequestError(
            f"{asked}: the values of column {name} are {schema.field(name).type}, which make no "
            "groups; name a column of single values"
        )
