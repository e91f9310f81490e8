"""The code blocks of Markdown pages, to be run as a reader would.

A block that is not to be run says why in a comment before it: `<!-- not run: … -->`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_FENCE = re.compile(r"```(\w*)\s*")
_MARK = re.compile(r"<!-- (not run|synopsis)(?:: (.+))? -->")

Block = tuple[int, str]  # line of its first line, from 1; the code


def blocks(path: Path, language: str) -> list[Block]:
    """The blocks of a language that are to be run; "" is that of an indented block."""
    return [(line, code) for line, kind, code, mark in _all(path) if kind == language and not mark]


def marked(path: Path, mark: str) -> list[Block]:
    """The blocks that bear a mark: "not run", or "synopsis" (how commands are called)."""
    return [(line, code) for line, _, code, found in _all(path) if found == mark]


def languages(path: Path) -> set[str]:
    """Those of the blocks that are to be run."""
    return {kind for _, kind, _, mark in _all(path) if not mark}


def script(path: Path, language: str = "python", without: Collection[str] = ()) -> str:
    """All blocks of a language as one, each in the line that it has on the page.

    Args:
        path: Of the page.
        language: Of the blocks.
        without: Libraries; blocks that import one are left out.
    """
    lines: list[str] = []
    for line, code in blocks(path, language):
        if any(f"import {name}\n" in code for name in without):
            continue
        lines += [""] * (line - 1 - len(lines)) + code.splitlines()
    return "\n".join(lines) + "\n"


def _all(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(line, language, code, mark) of every block, in order."""
    lines, number, mark = path.read_text(encoding="utf-8").splitlines(), 0, ""
    while number < len(lines):
        line = lines[number]
        fence, found = _FENCE.fullmatch(line), _MARK.fullmatch(line)
        if fence:
            begin = number = number + 1
            while lines[number] != "```":
                number += 1
            yield begin + 1, fence[1], "\n".join(lines[begin:number]), mark
        elif line.startswith("    ") and (not number or not lines[number - 1].strip()):
            begin = number
            while number + 1 < len(lines) and _indented(lines, number + 1):
                number += 1
            code = "\n".join(text[4:] for text in lines[begin : number + 1])
            yield begin + 1, "", code, mark
        elif found:
            assert found[1] == "synopsis" or found[2], f"{path}:{number + 1}: say why not"
        if found or line.strip():  # blank lines may stand between a mark and its block
            mark = found[1] if found else ""
        number += 1


def _indented(lines: list[str], number: int) -> bool:
    """Whether a line goes on with an indented block: blank ones do, if another follows."""
    while number < len(lines) and not lines[number].strip():
        number += 1
    return number < len(lines) and lines[number].startswith("    ")
