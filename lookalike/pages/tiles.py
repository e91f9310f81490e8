"""Tiles of a report: a small picture of a file, or the words why there is none, and its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lookalike.pages.markup import short_name, shorten, text, visible
from lookalike.pages.page import data_uri

Pictures = Mapping[str, bytes]

_MAX_WORDS = 160


def tile(uri: str, pictures: Pictures, *, without: str = "no picture", words: str = "") -> str:
    """One file.

    Args:
        uri: Its name.
        pictures: JPEG or PNG bytes by name.
        without: What stands in place of the picture where there is none.
        words: More about it.
    """
    name, data = short_name(uri), pictures.get(uri)
    if data is None:
        picture = f'<div class="none">{text(without)}</div>'
    else:
        picture = f'<img src="{data_uri(data)}" alt="{text(name)}" decoding="async">'
    more = (
        f'<div class="more soft">{text(shorten(visible(words), _MAX_WORDS))}</div>' if words else ""
    )
    return (
        f"<li><figure>{picture}<figcaption><details><summary>"
        f'<span class="name" title="{text(uri)}">{text(name)}</span></summary>'
        f"<p>{text(uri)}</p></details>{more}</figcaption></figure></li>\n"
    )


def tiles(listed: Iterable[str]) -> str:
    """Tiles side by side; "" where there are none."""
    together = "".join(listed)
    return f'<ul class="grid tiles">\n{together}</ul>\n' if together else ""


def uri_of(row: Mapping[str, Any]) -> str:
    """A row's file."""
    return str(row.get("uri") or "")
