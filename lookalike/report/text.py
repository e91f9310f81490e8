"""Strings and numbers as people are shown them, and values of unknown shape read with care.

File names and metadata come from strangers: `visible` leaves nothing in a string that hides or
reorders text, in a terminal as on a page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

_MAX_NAME = 44  # characters of a file name shown beside its picture; all of it is one click away

# Controls, lone surrogates and the marks that reorder text: a right-to-left override can make
# "gpj.exe" read "exe.jpg".
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def visible(string: str) -> str:
    r"""The string with nothing in it that hides or reorders: "a\u202eb" becomes "a\\u202eb"."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", string)


def shorten(string: str, limit: int = _MAX_NAME) -> str:
    """At most `limit` characters, "…" in the middle: the end of a name often tells most."""
    if len(string) <= limit:
        return string
    tail = (limit - 1) * 2 // 5
    return string[: limit - 1 - tail] + "…" + string[len(string) - tail :]


def short_name(uri: str) -> str:
    """The file name of a path or URI, readable and short enough for a caption."""
    last = uri.rstrip("/").rpartition("/")[2] or uri
    decoded = unquote(last, errors="replace")
    return shorten(visible(last if "\ufffd" in decoded else decoded))


def shown(value: object) -> str:
    """A value in words: thousands apart, four digits of a fraction."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def as_mapping(value: object) -> Mapping[str, object]:
    """The value if it is a mapping, else an empty one: manifests of other versions lack parts."""
    return value if isinstance(value, Mapping) else {}


def as_number(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def as_list(value: object) -> Sequence[object]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, (list, tuple)) else ()
