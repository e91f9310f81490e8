"""Answers for a person at a terminal: a table, and small pictures where it can show them.

Nothing opens by itself, and nothing is asked of the terminal: what it can show is told by its
environment alone, so that no answer of its own ends up in somebody's input.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lookalike.images.contact_sheet import contact_sheet, in_terminal
from lookalike.images.thumbnails import Thumbnails
from lookalike.report.results import QueryResult
from lookalike.report.text import visible

_MOST = 20  # pictures of one answer
_PATIENCE_S = 5.0  # until those that are not ready are left out
_UNSHOWN_WIDTH = 40  # characters of a metadata value, at most

_KITTY = ("xterm-kitty", "xterm-ghostty")
_ITERM = ("iTerm.app", "WezTerm", "rio")
_SIXEL = ("foot", "foot-extra", "mlterm", "yaft-256color", "contour")


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """How the terminal of an environment takes pictures; None where it is not known to."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or term.startswith(("screen", "tmux")):
        return None  # which would take them for text
    if term in _KITTY or environment.get("KITTY_WINDOW_ID"):
        return "kitty"
    if program in _ITERM or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if term in _SIXEL or program == "mintty" or "sixel" in term else None


class Terminal:
    """Shows results, one after the other."""

    def __init__(self, thumbnails: str) -> None:
        """Show pictures, too, where `thumbnails` is "auto" and the terminal is known to."""
        self._console = Console(file=sys.stdout, highlight=False)
        self._protocol = protocol_of(os.environ) if thumbnails == "auto" else None

    def __call__(self, result: QueryResult) -> None:
        """Show one."""
        shown = result.neighbours[:_MOST]
        self._console.print(Text(visible(result.query_uri), "bold"))
        if self._protocol and shown:
            made = Thumbnails().make((one.uri for one in shown), _PATIENCE_S)
            if made:
                sheet = contact_sheet([made.get(one.uri) for one in shown])
                sys.stdout.write(in_terminal(sheet, self._protocol))
                sys.stdout.flush()
        columns = list(dict.fromkeys(name for one in result.neighbours for name in one.metadata))
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("", "score"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("image", overflow="fold", ratio=1)
        for name in columns:
            table.add_column(visible(name), overflow="ellipsis", max_width=_UNSHOWN_WIDTH)
        for one in result.neighbours:
            also = f"  (also {len(one.duplicates)} more names)" if one.duplicates else ""
            cells = (one.metadata.get(name) for name in columns)
            table.add_row(
                f"{one.rank}",
                f"{one.score:.4f}",
                Text(visible(one.uri) + also),
                *(Text("" if cell is None else visible(str(cell))) for cell in cells),
            )
        self._console.print(table)
