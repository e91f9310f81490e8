"""Which files below a source are taken: `images.exclude` and `images.hidden` of a config.

Patterns are those of a .gitignore, seen from the source: `cache/` is a folder anywhere, `/raw` only
at the top, `*.tmp` any file, `**` any folders, `!` takes back. What a pattern is held against is
the path below the folder (of a glob: below its part without wildcards), the name of a member in its
tar, and of a row of a manifest the whole path. What is named itself is always taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from pathspec import GitIgnoreSpec

from lookalike.errors import RequestError, one_line
from lookalike.store import storage

_IN_TAR = re.compile(r"\.(?:tar|tar\.gz|tgz)(?:\?[^#]*)?#", re.IGNORECASE)
_OFFSET = re.compile(r"(?:@[0-9]+)+$")
_HIDDEN = "images.hidden: false"


@dataclass(frozen=True)
class Selection:
    """What is left out.

    Attributes:
        exclude: Patterns.
        hidden: Whether files and folders whose names begin with a dot are taken.
    """

    exclude: tuple[str, ...] = ()
    hidden: bool = True

    def check(self) -> None:
        """Compile the patterns.

        Raises:
            RequestError: One of them is none.
        """
        _ = self._compiled

    def __bool__(self) -> bool:
        """Whether anything may be left out."""
        return bool(self.exclude) or not self.hidden

    def rule(self, relative: str, *, folder: bool = False) -> str:
        """By which rule a path below the source is left out; "" where by none.

        One is left out where a folder above it is.
        """
        parts = [part for part in relative.split("/") if part not in ("", ".", "..")]
        if not self.hidden and any(part.startswith(".") for part in parts):
            return _HIDDEN
        relative = "/".join(parts)
        return self.excluded(relative + "/" if folder else relative)

    def excluded(self, relative: str) -> str:
        """The same of the patterns alone."""
        found = self._compiled.check_file(relative) if self.exclude else None
        if found is None or not found.include or found.index is None:
            return ""
        return f"images.exclude: {self.exclude[found.index]}"

    def rule_of_name(self, uri: str, roots: Sequence[str]) -> str:
        """By which rule a name of the ledger is not to be listed below any of some folders."""
        if not self:
            return ""
        if inside := _IN_TAR.search(uri):
            if rule := self.rule(member(uri[inside.end() :])):
                return rule
            uri = uri[: inside.end() - 1]
        path = plain(uri)
        for root in roots:
            start = plain(root).rstrip("/") + "/"
            if path.startswith(start):
                return self.rule(path[len(start) :])
        return self.excluded(path.lstrip("/"))

    @cached_property
    def _compiled(self) -> GitIgnoreSpec:
        for pattern in self.exclude:
            try:
                GitIgnoreSpec.from_lines([pattern])
            except ValueError as error:
                raise RequestError(
                    f"images.exclude: {pattern!r} is no pattern of a .gitignore: {one_line(error)}"
                ) from error
        return GitIgnoreSpec.from_lines(self.exclude)


def member(name: str) -> str:
    """The name of a member, without the offset by which those of one name are told apart."""
    return _OFFSET.sub("", name)


def plain(uri: str) -> str:
    """The path of a file or object as text, without what URIs write otherwise."""
    if storage.is_remote(uri):
        return unquote(storage.plain_name(uri).partition("://")[2])
    return os.fsdecode(storage.path_from_uri(uri))
