"""The answers to a query: neighbours, and all of them in their order, also in a notebook."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

from lookalike.errors import RequestError
from lookalike.records import Metadata

_SHOWN = 60  # pictures of one answer in a notebook; others show their names
_PATIENCE_S = 10.0  # until those that are not ready show their names


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

    def to_dict(self) -> dict[str, object]:
        """A flat row as `lookalike query --json` prints it: nothing in it that JSON has not.

        Metadata columns stand beside the others. Times are ISO 8601 texts, bytes hexadecimal
        digits; a number that is not finite is None.
        """
        from lookalike.cells import json_value

        row = {
            "query_uri": self.query_uri,
            "rank": self.rank,
            "uri": self.uri,
            "score": self.score,
            "id": self.id,
            "duplicates": self.duplicates,
            **self.metadata,
        }
        return {name: json_value(value) for name, value in row.items()}

    def _repr_html_(self) -> str:
        """In a notebook: the picture, and what is known of it."""
        return Neighbours([self], self.query_uri)._repr_html_()


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

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of a row for each neighbour, with its metadata columns.

        Raises:
            RequestError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise RequestError("to_pandas: pandas is not here: pip install pandas") from error
        names = ["query_uri", "rank", "uri", "score", "id", "duplicates"]
        rows = [{**{name: getattr(one, name) for name in names}, **one.metadata} for one in self]
        return pandas.DataFrame(rows, columns=names if not rows else None)

    def _repr_html_(self) -> str:
        """In a notebook: small pictures of the files as they are now, in order."""
        from lookalike.images.thumbnails import Thumbnails

        pictures = Thumbnails().make((one.uri for one in self[:_SHOWN]), _PATIENCE_S)
        cards = "".join(_card(one, pictures.get(one.uri)) for one in self)
        more = "" if self.complete else " (others may fulfil what was asked)"
        return (
            f"<div><p>{_html(self.query_uri)}: {len(self)} neighbours{more}</p>"
            f'<div style="display:flex;flex-wrap:wrap;gap:8px">{cards}</div></div>'
        )


def _card(one: Neighbour, picture: bytes | None) -> str:
    name = _html(one.uri)
    told = ", ".join(f"{key}: {value}" for key, value in one.metadata.items())
    title = _html("\n".join(filter(None, (one.uri, told, *one.duplicates))))
    if picture:
        data = base64.b64encode(picture).decode("ascii")
        shown = f'<img src="data:image/jpeg;base64,{data}" alt="{name}" style="max-height:120px">'
    else:
        shown = f'<span style="overflow-wrap:anywhere">{name}</span>'
    return (
        f'<figure title="{title}" style="margin:0;max-width:200px">{shown}'
        f"<figcaption>{one.rank} · {one.score:.4f}</figcaption></figure>"
    )


def _html(text: str) -> str:
    """A text that a page shows as it is, whatever is in it."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))
