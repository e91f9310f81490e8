"""Ways to ask beyond "the k nearest": several pictures at once, less like some, other weights.

A `Ways` says what is wanted; this module checks it against a store and turns the queries'
vectors into those to search with. What is chosen of the rows found is `lookalike.search.choosing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np

from lookalike.distances import Vectors, candidate_vectors
from lookalike.errors import RequestError
from lookalike.search.queries import Queries
from lookalike.store.manifest import Manifest
from lookalike.whole_numbers import whole_number

UNLIKE_WEIGHT = 0.5
"""Part of the pictures that answers shall be unlike, beside 1 for the query; Rocchio (1971)."""

BALANCE = 0.5
"""Of relevance and diversity, unless told otherwise: the lambda of maximal marginal relevance."""

TOGETHER = ("mean", "max")
MOST_TOGETHER = 1000
"""Pictures of one query."""

_NAMED = 3  # of these


@dataclass(frozen=True)
class Ways:
    """How queries are asked; see `Searcher.search` for what each means.

    Attributes:
        together: mean or max: all pictures are one query; None: each is one.
        weights: Of the features by name, in place of the store's.
        min_score: The worst score that a neighbour may have.
        group_by: Column of which each value has at most
        per_group: so many neighbours.
        diversify: Lambda of maximal marginal relevance, from 0 (diverse) to 1 (relevant).
        exclude_self: Whether the rows of the query's own pictures are left out.
    """

    together: str | None = None
    weights: Mapping[str, float] | None = None
    min_score: float | None = None
    group_by: str | None = None
    per_group: int = 1
    diversify: float | None = None
    exclude_self: bool = False

    @property
    def choose(self) -> bool:
        """Whether rows are chosen from more than the k nearest."""
        return self.exclude_self or self.group_by is not None or self.diversify is not None


def asked_ways(
    *,
    together: Any = None,
    weights: Any = None,
    min_score: Any = None,
    group_by: Any = None,
    per_group: SupportsIndex | None = None,
    diversify: Any = None,
    exclude_self: bool = False,
) -> Ways:
    """Ways as a caller or a command line gives them.

    Args:
        together: As in `Ways`.
        weights: A mapping, or a text: "low=.3,deep=.7".
        min_score: A number.
        group_by: As in `Ways`.
        per_group: As in `Ways`, 1 by default.
        diversify: A number from 0 to 1, True for the usual one, None or False for none.
        exclude_self: As in `Ways`.

    Raises:
        RequestError: One has no such value.
    """
    if together is not None and together not in TOGETHER:
        raise RequestError(f"together: must be {' or '.join(TOGETHER)}, got {together!r:.80}")
    if not isinstance(group_by, str | None):
        raise RequestError(f"group_by: needs the name of a column, got {group_by!r:.80}")
    if per_group is not None and group_by is None:
        raise RequestError("per_group: only with group_by, the column whose groups are meant")
    if not isinstance(exclude_self, bool | np.bool_):
        raise RequestError(f"exclude_self: must be True or False, got {exclude_self!r:.80}")
    if isinstance(diversify, bool):
        diversify = BALANCE if diversify else None
    balance = None if diversify is None else _number("diversify", diversify)
    if balance is not None and not 0 <= balance <= 1:
        raise RequestError(
            f"diversify: needs a number from 0, all diversity, to 1, all nearness; got {balance:g}"
        )
    return Ways(
        together,
        None if weights is None else _weights(weights),
        None if min_score is None else _number("min_score", min_score),
        group_by,
        1 if per_group is None else whole_number("per_group", per_group),
        balance,
        bool(exclude_self),
    )


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise RequestError(f"{name}: needs a finite number, got {value!r:.80}")
    return number


def _weights(given: Any) -> dict[str, float]:
    if isinstance(given, str):
        pairs = [part.partition("=") for part in given.split(",")]
        try:
            pairs_of = [(name.strip(), float(weight)) for name, _, weight in pairs]
        except ValueError:
            raise RequestError(
                f"weights: needs a number for each feature, as low=.3,deep=.7; got {given!r:.80}"
            ) from None
        given = dict(pairs_of)
        if len(given) < len(pairs):
            raise RequestError(f"weights: a feature is named twice in {', '.join(dict(pairs_of))}")
    if not isinstance(given, Mapping):
        raise RequestError(f"weights: needs a mapping of features to numbers, got {given!r:.80}")
    found = {str(name): _number(f"weights: {name}", weight) for name, weight in given.items()}
    if not found or min(found.values()) < 0 or not 0 < sum(found.values()) < math.inf:
        raise RequestError(
            f"weights: needs numbers from 0 on, one above 0 at least; got {_shown(found)}"
        )
    return found


def _shown(weights: Mapping[str, float]) -> str:
    return ",".join(f"{name}={weight:g}" for name, weight in weights.items()) or "none"


class Blender:
    """Makes the vectors to search with from those of pictures, for one store."""

    def __init__(self, ways: Ways, manifest: Manifest, unlike: Vectors | None = None):
        """Check that the store can be asked that way.

        Args:
            ways: What is wanted.
            manifest: Of the snapshot.
            unlike: (m, dim) float32 of the pictures that answers shall be unlike.

        Raises:
            RequestError: It cannot.
        """
        self._ways, self.metric = ways, str(manifest["metric"])
        if unlike is not None and self.metric not in ("cosine", "inner_product"):
            raise RequestError(
                f"unlike: subtracts a picture's direction, and the metric {self.metric} compares "
                "no directions; it needs a store of the metric cosine or inner_product"
            )
        self._unlike = unlike if unlike is not None and len(unlike) else None
        self._factors = None if ways.weights is None else _factors(ways.weights, manifest)

    @property
    def weighed(self) -> bool:
        """Whether scores are means of the features' cosines by other weights than the store's."""
        return self._factors is not None

    def blend(self, queries: Queries) -> Queries:
        """The queries to search with: as many, or one where they are taken together by the mean.

        Raises:
            RequestError: They are too many to be taken together, or cancel one another out.
        """
        if self._ways.together and len(queries) > MOST_TOGETHER:
            raise RequestError(
                f"together: takes at most {MOST_TOGETHER:,} pictures as one query, and there are "
                "more; give fewer"
            )
        names, vectors = queries.names, queries.vectors
        if self._ways.together == "mean" and len(queries):
            vectors = self._units(vectors).mean(axis=0, dtype=np.float64, keepdims=True)
            names = [together_name(names)]
        if self._unlike is not None and len(names):
            away = self._units(self._unlike).mean(axis=0, dtype=np.float64)
            vectors = self._units(vectors) - UNLIKE_WEIGHT * away
        if vectors is queries.vectors and self._factors is None:
            return queries
        blended = np.asarray(vectors, dtype=np.float32)
        if len(blended) and not blended.any(axis=1).all() and self.metric != "l2":
            raise RequestError(
                f"{names[int(np.argmin(blended.any(axis=1)))]}: together, or less what they shall "
                "be unlike, the pictures cancel one another out; leave some out"
            )
        return Queries(names, self.weigh(blended), queries.uris, queries.hashes)

    def weigh(self, vectors: Vectors) -> Vectors:
        """Vectors (n, dim) whose inner products with stored ones are the scores by the weights."""
        if self._factors is None:
            return vectors
        return np.asarray(candidate_vectors(vectors, "cosine") * self._factors, dtype=np.float32)

    def _units(self, vectors: Vectors) -> Vectors:
        return candidate_vectors(vectors, "cosine") if self.metric == "cosine" else vectors


def _factors(weights: Mapping[str, float], manifest: Manifest) -> Vectors:
    """What each component (dim,) of a query is multiplied by, so that its blocks weigh so much."""
    features: Sequence[Mapping[str, Any]] = manifest.get("features") or []
    names = [str(one["name"]) for one in features]
    metric = manifest["metric"]
    if len(features) < 2:
        raise RequestError(
            "weights: only a store of several features has any, this one has "
            f"{names[0] if names else 'vectors made elsewhere'} alone"
        )
    if manifest.get("projection"):
        raise RequestError(
            "weights: this store's projection mixes the features, so that none has components of "
            "its own; index without a projection"
        )
    if metric not in ("cosine", "inner_product"):
        raise RequestError(
            f"weights: change the cosines of features, and the metric {metric} compares none; it "
            "needs a store of the metric cosine or inner_product"
        )
    if set(weights) != set(names):
        raise RequestError(
            f"weights: name each feature of the store, which are {', '.join(names)}; got "
            f"{_shown(weights)}"
        )
    total, own = sum(weights.values()), sum(float(one["weight"]) for one in features)
    return np.concatenate(
        [
            np.full(
                int(one["info"]["dim"]),
                (weights[one["name"]] / total) / (float(one["weight"]) / own),
            )
            for one in features
        ]
    ).astype(np.float32)


def together_name(names: Sequence[str]) -> str:
    """Several pictures' names as that of one query."""
    more = [f"{len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return " + ".join([*names[:_NAMED], *more])
