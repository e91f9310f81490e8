"""The page of a query job: every query beside its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from lookalike import cells
from lookalike.report.templates import templates
from lookalike.search.neighbour import Neighbour

Thumbnail = Callable[[str], "bytes | None"]

# What a score means, and whether it fills a bar from 0 to 1.
METRICS: Mapping[str, tuple[str, bool]] = {
    "cosine": ("cosine, 1 is identical", True),
    "jaccard": ("jaccard, 1 is identical", True),
    "inner_product": ("inner product, larger is closer", False),
    "l2": ("distance, 0 is identical", False),
}


@dataclass(frozen=True)
class QueryResult:
    """One query and its answers.

    Attributes:
        query_uri: The query's path or URI, or "vector:<row>".
        neighbours: By rank.
        problem: Why the query could not be answered ("" if it was).
    """

    query_uri: str
    neighbours: Sequence[Neighbour] = ()
    problem: str = ""


def render_results(
    results: Iterable[QueryResult],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    thumbnail: Thumbnail,
    metric: str = "cosine",
) -> Iterator[str]:
    """The page of a query job in pieces, to be written to a UTF-8 file as they come.

    Args:
        results: The queries in the order to show; read as a stream.
        title: Heading and window title.
        facts: What to say about the store above the results, as (name, value).
        thumbnail: Gives a small JPEG or PNG for a uri, or None if its file cannot be read now. It
            is asked once for every place a picture is shown in, so it may want a cache.
        metric: One of METRICS; says what the scores mean.

    Raises:
        ValueError: An unknown metric, or a thumbnail that is neither JPEG nor PNG.
    """
    if metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    meaning, bounded = METRICS[metric]
    return (
        templates()
        .get_template("results.html.jinja")
        .generate(
            title=title,
            facts=facts,
            meaning=meaning,
            bar=_bar if bounded else lambda score: None,
            results=results,
            thumbnail=thumbnail,
            cell=cells.shown,
        )
    )


def _bar(score: float) -> float | None:
    """Per cent of its bar that a score fills; None for one that is not finite."""
    return 100 * min(max(score, 0.0), 1.0) if isfinite(score) else None
