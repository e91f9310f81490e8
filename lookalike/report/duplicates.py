"""The page of `lookalike duplicates`: each group, the picture to keep first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lookalike.copies.groups import Group
from lookalike.report.results import METRICS, Thumbnail
from lookalike.report.templates import templates

MOST_SHOWN = 24  # pictures of one group


def render_duplicates(
    groups: Iterable[Group],
    *,
    facts: Sequence[tuple[str, str]],
    thumbnail: Thumbnail,
    metric: str,
) -> Iterator[str]:
    """The page in pieces, to be written to a UTF-8 file as they come.

    Args:
        groups: In the order to show; read as a stream.
        facts: What to say above them, as (name, value).
        thumbnail: Gives a small JPEG or PNG for a uri, or None if its file cannot be read now.
        metric: One of METRICS; says what the scores mean.
    """
    return (
        templates()
        .get_template("duplicates.html.jinja")
        .generate(
            facts=facts,
            meaning=METRICS[metric][0],
            groups=groups,
            thumbnail=thumbnail,
            most=MOST_SHOWN,
        )
    )
