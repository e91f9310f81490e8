"""The page of a query job: every query beside its neighbours."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from lookalike.cells import shown
from lookalike.pages.markup import MAX_VALUE, Facts, head, short_name, shorten, text, visible
from lookalike.records import Neighbour

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


def data_uri(data: bytes) -> str:
    """JPEG or PNG bytes as a data: URI.

    Raises:
        ValueError: The bytes are neither; a page must not guess.
    """
    if data.startswith(b"\xff\xd8\xff"):
        kind = "jpeg"
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = "png"
    else:
        raise ValueError(
            f"a thumbnail must be JPEG or PNG, and these {len(data)} bytes start with {data[:4]!r}"
        )
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _picture(uri: str, alt: str, thumbnail: Thumbnail) -> str:
    data = thumbnail(uri)
    if data is None:
        why = "file not readable now"
        return f'<div class="none" role="img" aria-label="{text(alt)}: {why}">{why}</div>'
    return f'<img src="{data_uri(data)}" alt="{text(alt)}" title="{text(uri)}" decoding="async">'


def _neighbour(neighbour: Neighbour, bar: bool, thumbnail: Thumbnail) -> str:
    name = short_name(neighbour.uri)
    parts = [
        "<li><figure>",
        _picture(neighbour.uri, f"neighbour {neighbour.rank}: {name}", thumbnail),
        f'<figcaption><div class="line"><b>{neighbour.rank}</b>'
        f"<span>{neighbour.score:.3f}</span></div>",
    ]
    if bar and isfinite(neighbour.score):
        width = 100 * min(max(neighbour.score, 0.0), 1.0)
        parts.append(f'<span class="bar"><i style="width:{width:.1f}%"></i></span>')
    parts.append(
        f'<details><summary><span class="name" title="{text(neighbour.uri)}">{text(name)}</span>'
        "</summary>"
        f"<p>{text(neighbour.uri)}</p></details>"
    )
    if neighbour.duplicates:
        count = len(neighbour.duplicates)
        items = "".join(f"<li>{text(uri)}</li>" for uri in neighbour.duplicates)
        places = "1 other place" if count == 1 else f"{count:,} other places"
        parts.append(f"<details><summary>also at: {places}</summary><ul>{items}</ul></details>")
    known = [(key, value) for key, value in neighbour.metadata.items() if value is not None]
    if known:
        rows = "".join(
            f"<div><dt>{text(shorten(visible(str(key))))}</dt>"
            f"<dd>{text(shorten(visible(shown(value)), MAX_VALUE))}</dd></div>"
            for key, value in known
        )
        parts.append(f'<dl class="meta">{rows}</dl>')
    parts.append("</figcaption></figure></li>\n")
    return "".join(parts)


def _query(number: int, result: QueryResult, bar: bool, thumbnail: Thumbnail) -> str:
    name = short_name(result.query_uri)
    if result.problem:
        answers = f'<p class="bad">not answered: {text(result.problem)}</p>\n'
    elif not result.neighbours:
        answers = '<p class="soft">no neighbours found</p>\n'
    else:
        items = "".join(_neighbour(neighbour, bar, thumbnail) for neighbour in result.neighbours)
        answers = f'<ol class="grid">\n{items}</ol>\n'
    return (
        f'<section class="query" aria-labelledby="q{number}">\n<figure>'
        f"{_picture(result.query_uri, f'query {number}: {name}', thumbnail)}"
        f'<figcaption><span class="soft">query {number}</span>'
        f'<h2 id="q{number}" title="{text(result.query_uri)}">{text(name)}</h2>'
        f"<details><summary>path</summary><p>{text(result.query_uri)}</p></details></figcaption></figure>\n"
        f"{answers}</section>\n"
    )


def render_results(
    results: Iterable[QueryResult],
    *,
    title: str,
    facts: Facts = (),
    thumbnail: Thumbnail,
    metric: str = "cosine",
) -> Iterator[str]:
    """The page of a query job, one piece per query, to be written to a UTF-8 file as it comes.

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
    meaning, bar = METRICS[metric]
    return _results(results, title, facts, thumbnail, meaning, bar)


def _results(
    results: Iterable[QueryResult],
    title: str,
    facts: Facts,
    thumbnail: Thumbnail,
    meaning: str,
    bar: bool,
) -> Iterator[str]:
    yield head(title, facts, f"score: {meaning}")
    number = 0
    for number, result in enumerate(results, start=1):
        yield _query(number, result, bar, thumbnail)
    queries = "1 query" if number == 1 else f"{number:,} queries"
    yield f"<footer>{queries} · lookalike</footer>\n</body>\n</html>\n"
