"""Parts that reports are made of: tables, sections, notes, and values read with care."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from lookalike.pages.markup import text


def shown(value: object) -> str:
    """A value in words: thousands apart, four digits of a fraction."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def as_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], decimals: int | None = None
) -> str:
    """Numbers to the right; a long word such as a fingerprint may break anywhere."""

    def cell(value: object, number: bool) -> str:
        kind = ' class="n"' if number else ' class="long"' if len(str(value)) > 24 else ""
        rounded = decimals is not None and isinstance(value, float)
        words = f"{value:.{decimals}f}" if rounded else shown(value)
        return f"<td{kind}>{text(words)}</td>"

    listed = [list(row) for row in rows]
    numeric = [
        bool(listed) and all(isinstance(row[i], (int, float)) or row[i] == "" for row in listed)
        for i in range(len(columns))
    ]
    head = "".join(
        f'<th scope="col"{" class=n" if right else ""}>{text(name)}</th>'
        for name, right in zip(columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(cell(v, right) for v, right in zip(row, numeric, strict=True)) + "</tr>\n"
        for row in listed
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def as_part(heading: str, *content: str) -> str:
    """A section with its heading."""
    return f'<section class="part">\n<h2>{text(heading)}</h2>\n{"".join(content)}</section>\n'


def as_heading(words: str) -> str:
    """A heading within a section."""
    return f"<h3>{text(words)}</h3>\n"


def as_note(words: str, bad: bool = False) -> str:
    """A paragraph in small print."""
    return f'<p class="note {"bad" if bad else "soft"}">{text(words)}</p>\n'


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
