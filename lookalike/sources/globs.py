"""Globs over the parts of a path, as a shell matches them, with `**` for any number of parts."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath

GLOB = frozenset("*?[")
BELOW, ITSELF = 1, 2  # how a glob matches: a folder above, or the path itself


def fixed_part(pattern: str) -> str:
    """The folders before the first part with a wildcard."""
    parts = pattern.split("/")
    wild = next((i for i, part in enumerate(parts) if GLOB & set(part)), len(parts))
    return "/".join(parts[:wild])


def segments(path: str) -> list[str]:
    """The parts of a path."""
    return list(PurePosixPath(path).parts)


def matches(path: list[str], pattern: list[str]) -> int:
    """Glob over the segments of a path, for it or a folder above it; 0 where it does not match.

    `**` stands for any number of segments; as in a shell, a wildcard does not match a first dot.
    """

    def match(names: list[str], globs: list[str]) -> int:
        if not globs:  # what is left lies below a folder that matches
            return BELOW if names else ITSELF
        if globs == ["**"]:
            return BELOW
        if globs[0] == "**":
            shown = next((i for i, name in enumerate(names) if name[:1] == "."), len(names))
            return max(match(names[i:], globs[1:]) for i in range(shown + 1))
        return match(names[1:], globs[1:]) if names and matches_part(names[0], globs[0]) else 0

    return match(path, pattern)


def matches_part(name: str, glob: str) -> bool:
    """The same for one part."""
    return fnmatchcase(name, glob) and (name[:1] != "." or glob[:1] == ".")
