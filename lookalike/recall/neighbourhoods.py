"""Who is near whom: near-duplicate groups and outliers, found with the index itself.

The rows that the last run added, and then a sample of all rows, are searched for until the time
given is over, so the cost does not depend on the size of the store. Two rows count as
near-duplicates when they are as near as one picture saved twice. A row is an outlier when its
nearest row is far away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Scores, Vectors
from lookalike.recall.histograms import Histogram, histogram
from lookalike.search.searcher import Searcher
from lookalike.store.vector_reader import VectorReader

SEED = 20
_NEIGHBOURS = 6
_MEMBERS = 5  # of a group, described
_BLOCK = 128  # queries between two looks at the clock
_READ_ROWS = 4096  # vectors in memory at a time
_ALIKE: Mapping[str, tuple[float, str]] = {
    "cosine": (0.98, "cosine of at least 0.98"),
    "inner_product": (0.98, "cosine of at least 0.98"),
    "l2": (0.98, "distance of at most 0.2 times the length"),  # 1 - 0.2² / 2
    "jaccard": (0.9, "jaccard of at least 0.9"),
}


class Member(TypedDict):
    """A row of a group of near-duplicates."""

    uri: str
    id: int
    fresh: bool


class Group(TypedDict):
    """Near-duplicates, of which some are described."""

    size: int
    members: list[Member]


class Outlier(Member):
    """A row that is far from its nearest."""

    likeness: float
    nearest: str


class Neighbourhoods(TypedDict, total=False):
    """See `neighbourhoods`."""

    asked: int
    fresh: int
    living: int
    alike: str
    with_near_duplicates: int
    share: float | None
    group_count: int
    groups: list[Group]
    outliers: list[Outlier]
    nearest: Histogram


def sample_rows(rows: Mapping[int, int], deleted: Ids, count: int, seed: int = SEED) -> Ids:
    """A uniform sample of living rows, drawn without reading anything.

    Args:
        rows: Rows of each embedding file, by its number.
        deleted: Ids of tombstones.
        count: How many; all of them where there are not as many.
        seed: Another seed gives another sample.

    Returns:
        Ids, int64, ascending.
    """
    numbers = np.array(sorted(rows), dtype=np.int64)
    ends = np.cumsum([rows[number] for number in numbers.tolist()], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    living = total - len(deleted)
    if living <= 0 or count <= 0:
        return np.empty(0, dtype=np.int64)
    # So many that enough of them live, but for a chance that costs a few rows of the sample.
    wanted = min(total, count * total // living + 4 * int(count**0.5) + 16)
    places = np.random.default_rng(seed).choice(total, wanted, replace=False)
    at = np.searchsorted(ends, places, side="right")
    starts = ends - np.array([rows[number] for number in numbers.tolist()], dtype=np.int64)
    ids = numbers[at] << 32 | (places - starts[at])
    return np.sort(ids[~np.isin(ids, deleted)][:count])


def neighbourhoods(
    searcher: Searcher,
    reader: VectorReader,
    sample: Ids,
    fresh: Ids,
    *,
    seconds: float,
    groups: int,
    outliers: int,
) -> Neighbourhoods:
    """Groups of near-duplicates and outliers among some rows and their neighbours.

    Args:
        searcher: Of the snapshot.
        reader: Of its rows.
        sample: Ids of living rows.
        fresh: Ids of rows that are new in the snapshot; they are looked at first.
        seconds: When to stop, after the queries that are under way.
        groups: How many to describe, those with fresh rows first, then the largest.
        outliers: How many to describe, the farthest first.

    Returns:
        `asked` rows, of them `fresh`, out of `living`; `alike`: what counts as near-duplicates;
        `with_near_duplicates` of the asked, and `share` of those that are not fresh;
        `group_count`, and of some `groups` the `size` and some `members` (uri, id, fresh);
        `outliers` (uri, id, fresh, likeness, nearest); `nearest`: a histogram of how like the
        nearest row is.
    """
    asked, found, likeness = _ask(searcher, reader, _in_turn(sample, fresh), seconds)
    least, words = _ALIKE[searcher.metric]
    best = likeness[:, 0] if likeness.shape[1] else np.empty(0, np.float32)
    known = np.isfinite(best)
    pairs = np.argwhere(likeness >= least)
    sampled = best[~np.isin(asked, fresh)] if len(best) else best
    joined = _join(asked[pairs[:, 0]], found[pairs[:, 0], pairs[:, 1]])
    return {
        "asked": len(asked),
        "fresh": int(np.isin(asked, fresh).sum()),
        "living": searcher.count,
        "alike": words,
        "with_near_duplicates": int((best >= least).sum()),
        "share": round(float((sampled >= least).mean()), 4) if len(sampled) else None,
        "group_count": len(joined),
        "groups": _groups(reader, joined, fresh, groups),
        "outliers": _outliers(reader, asked[known], found[known], best[known], fresh, outliers),
        "nearest": histogram(best[known]),
    }


def _in_turn(sample: Ids, fresh: Ids) -> Ids:
    """Fresh rows, then the others, shuffled: whenever time runs out, those asked are a sample."""
    shuffle = np.random.default_rng(SEED).permutation
    return np.concatenate([shuffle(fresh), shuffle(sample[~np.isin(sample, fresh)])])


def _ask(
    searcher: Searcher, reader: VectorReader, rows: Ids, seconds: float
) -> tuple[Ids, Ids, Scores]:
    """As many of the rows as there is time for, (n,); their neighbours (n, k) and likeness (n, k).

    The likeness is -inf where there is no neighbour. The most alike comes first.
    """
    end, parts = monotonic() + seconds, []
    k = max(0, min(_NEIGHBOURS, searcher.count - 1))
    for start in range(0, len(rows) if k else 0, _BLOCK):
        if start and monotonic() > end:
            break
        block = rows[start : start + _BLOCK]
        vectors = reader.vectors(block)
        ids, scores = searcher.search_vectors(vectors, k + 1)
        ids, scores = _without_itself(block, ids, scores)
        likeness = _likeness(searcher.metric, reader, vectors, ids, scores)
        order = np.argsort(-likeness, axis=1, kind="stable")  # inner products prefer long vectors
        parts.append((block, *(np.take_along_axis(each, order, 1) for each in (ids, likeness))))
    if not parts:
        return rows[:0], np.empty((0, 0), np.int64), np.empty((0, 0), np.float32)
    asked, found, alike = (np.concatenate(column) for column in zip(*parts, strict=True))
    return asked, found, alike


def _without_itself(rows: Ids, ids: Ids, scores: Scores) -> tuple[Ids, Scores]:
    """Neighbours (n, k) of rows out of (n, k + 1): each one's own id goes, else the last."""
    own = ids == rows[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(ids), ids.shape[1] - 1)
    return ids[~own].reshape(shape), scores[~own].reshape(shape)


def _likeness(
    metric: str, reader: VectorReader, vectors: Vectors, ids: Ids, scores: Scores
) -> Scores:
    """How like neighbours (n, k) are, 1 for the same: -inf where there is none.

    Cosine or Jaccard; for l2 what the cosine would be of two vectors of one length, their geometric
    mean, at that distance.
    """
    if metric in ("cosine", "jaccard"):
        like = scores.astype(np.float64)
    else:
        lengths = _lengths(reader, ids)
        product = np.maximum(_norms(vectors)[:, None] * lengths, np.finfo(np.float64).tiny)
        wide = scores.astype(np.float64)
        like = 1 - wide**2 / (2 * product) if metric == "l2" else wide / product
    return np.where(ids >= 0, like, -np.inf).astype(np.float32)


def _lengths(reader: VectorReader, ids: Ids) -> npt.NDArray[np.float64]:
    distinct, inverse = np.unique(ids[ids >= 0], return_inverse=True)
    norms = [
        _norms(reader.vectors(distinct[start : start + _READ_ROWS]))
        for start in range(0, len(distinct), _READ_ROWS)
    ]
    lengths = np.ones(ids.shape)
    lengths[ids >= 0] = np.concatenate(norms)[inverse] if norms else 1.0
    return lengths


def _norms(vectors: Vectors) -> npt.NDArray[np.float64]:
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1))


def _join(left: Ids, right: Ids) -> list[list[int]]:
    """The groups that pairs (n,), (n,) form, each ascending."""
    above: dict[int, int] = {}

    def root(one: int) -> int:
        while (parent := above.setdefault(one, one)) != one:
            above[one] = above[parent]  # shortens the way for the next
            one = parent
        return one

    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        first, second = sorted((root(a), root(b)))
        above[second] = first
    joined: dict[int, list[int]] = {}
    for one in sorted(above):
        joined.setdefault(root(one), []).append(one)
    return list(joined.values())


def _groups(
    reader: VectorReader, joined: Sequence[Sequence[int]], fresh: Ids, most: int
) -> list[Group]:
    new = set(fresh.tolist())
    ranked = sorted(joined, key=lambda ids: (new.isdisjoint(ids), -len(ids), ids[0]))[:most]
    shown = [sorted(ids, key=lambda one: (one not in new, one))[:_MEMBERS] for ids in ranked]
    uris = _uris(reader, [one for ids in shown for one in ids])
    return [
        {
            "size": len(ids),
            "members": [{"uri": uris[one], "id": one, "fresh": one in new} for one in some],
        }
        for ids, some in zip(ranked, shown, strict=True)
    ]


def _outliers(
    reader: VectorReader, asked: Ids, found: Ids, best: Scores, fresh: Ids, most: int
) -> list[Outlier]:
    last = np.lexsort((asked, best))[:most]
    ids, nearest = asked[last].tolist(), found[last, 0].tolist() if len(last) else []
    uris = _uris(reader, [*ids, *nearest])
    return [
        {
            "uri": uris[one],
            "id": one,
            "fresh": bool(np.isin(one, fresh)),
            "likeness": round(float(like), 4),
            "nearest": uris[other],
        }
        for one, other, like in zip(ids, nearest, best[last].tolist(), strict=True)
    ]


def _uris(reader: VectorReader, ids: Sequence[int]) -> dict[int, str]:
    rows = reader.rows(ids, ("uri",))
    return {one: str(row["uri"]) for one, row in zip(ids, rows, strict=True)}
