"""The templates that pages are drawn with: this folder's *.html.jinja and style.css.

A page is a single HTML file that needs no network and no script: style sheet inside, pictures as
data: URIs, and a Content-Security-Policy that forbids everything else. Whatever a template prints
is escaped, and made `visible` before; no template says `safe`.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

from lookalike.report.text import short_name, shorten, shown, visible

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def templates() -> Environment:
    """The environment, made when the first page is: jinja2 takes longer to import than a query."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("lookalike", "report"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "brief": lambda string, limit: shorten(visible(string), limit),
        "data_uri": data_uri,
        "short_name": short_name,
        "shown": shown,
    }
    return made


def draw(template: str, macro: str, **values: object) -> str:
    """HTML that a macro of a template makes of the values, which it escapes."""
    drawn: str = getattr(templates().get_template(template).module, macro)(**values)
    return drawn


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


def _finalize(value: object) -> object:
    """What is printed of a value: HTML that a macro made as it is, any other string visible."""
    return value if hasattr(value, "__html__") else visible(str(value))
