"""Choose among rows found: few of each group, and unlike one another.

Maximal marginal relevance: Carbonell and Goldstein, "The use of MMR, diversity-based reranking for
reordering documents and producing summaries", SIGIR 1998.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from lookalike.distances import Ids, Scores, Vectors

Similarity = Callable[[Vectors, Vectors], Scores]
"""Of one vector (1, d) to others (m, d): (1, m), higher for what is more alike."""


def few_of_each(groups: Ids, k: int, per_group: int) -> Ids:
    """Positions of the first k, of which at most `per_group` share a group (n,) of 0 to n - 1."""
    counts: Counter[int] = Counter()
    chosen: list[int] = []
    for position, group in enumerate(groups.tolist()):
        if len(chosen) == k:
            break
        if counts[group] < per_group:
            counts[group] += 1
            chosen.append(position)
    return np.array(chosen, dtype=np.int64)


def diverse(
    relevance: npt.ArrayLike,
    vectors: Vectors,
    k: int,
    balance: float,
    similarity: Similarity,
    groups: Ids,
    per_group: int,
) -> Ids:
    """Positions of k rows by maximal marginal relevance, in the order in which they were chosen.

    The next one is always that for which balance * relevance - (1 - balance) * (its greatest
    similarity to those chosen before) is the greatest; the earlier one of equals.

    Args:
        relevance: (n,), higher for what is nearer to the query, best first.
        vectors: (n, d) of the rows.
        k: How many.
        balance: From 0 to 1.
        similarity: Of rows, on the scale of the relevance.
        groups: (n,), of which each has at most
        per_group: so many rows.
    """
    near = np.asarray(relevance, dtype=np.float64)
    nearest = np.full(len(near), -np.inf)  # similarity to what is chosen
    open_ = np.ones(len(near), dtype=bool)
    counts: Counter[int] = Counter()
    chosen: list[int] = []
    while len(chosen) < k and open_.any():
        value = balance * near - (1 - balance) * nearest if chosen else near
        best = int(np.argmax(np.where(open_, value, -np.inf)))
        chosen.append(best)
        open_[best] = False
        group = int(groups[best])
        counts[group] += 1
        if counts[group] == per_group:
            open_ &= groups != group
        found = similarity(vectors[best : best + 1], vectors)[0]
        np.maximum(nearest, found, out=nearest)
    return np.array(chosen, dtype=np.int64)
