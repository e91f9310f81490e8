"""Walking what lies on remote storage: keys of S3 by their prefixes, other storage by its folders.

Keys are listed as they come; what is left of them once a budget is spent is parted into ranges. No
folders are asked for: keys are parted by the characters that they go on with, be it `/` or not.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import unquote

from lookalike.errors import UnreachableError, one_line
from lookalike.records import SourceFile
from lookalike.sources.globs import BELOW, GLOB, ITSELF, fixed_part, matches, segments
from lookalike.sources.looking_up import lost_folder
from lookalike.sources.places import Budget, Spot, ranges
from lookalike.sources.selection import Selection, plain
from lookalike.store import s3, storage
from lookalike.store.s3_uri import S3Name, is_s3, parse, split_options

Found = tuple[SourceFile, bool]
"""A file, and whether it was named itself: not found in a folder that was."""

_REMOTE = 10  # local files that are listed in the time that one on remote storage is
_KEY_RANGES = 64  # that the rest of a prefix is parted into, if a few requests can do it
_PROBES = 256
_LAST = "\U0010ffff"


def walk_remote(
    spec: str, kind: str, selection: Selection, strict: bool, at: Spot | None, budget: Budget
) -> Iterator[Found | Spot]:
    """Files of a folder or glob: see `walking.walk`."""
    if is_s3(spec):
        yield from _s3_files(spec, kind, selection, strict, at or Spot(""), budget)
        return
    pattern, mark, options = spec.partition("?")  # gs://bucket/*.jpg?retry_limit_seconds=…
    base = pattern if kind == "folder" else fixed_part(pattern)
    at = at or Spot(base.rstrip("/") + mark + options)
    yield from _remote_files(base, pattern, kind, selection, strict, at, budget)


# --- keys -------------------------------------------------------------------------------------


def s3_root(spec: str) -> S3Name:
    """The folder that a folder or glob begins with, without a `/` at its end."""
    plain, options = split_options(spec)
    wild = next((i for i, mark in enumerate(plain) if mark in GLOB), None)
    name = parse(spec if wild is None else plain[:wild] + options)
    key = name.key if wild is None else name.key.rpartition("/")[0]
    return name.named(key.removesuffix("/"))


def _s3_files(
    spec: str, kind: str, selection: Selection, strict: bool, at: Spot, budget: Budget
) -> Iterator[Found | Spot]:
    """Keys that begin with a prefix, taken apart at each `/` for a glob alone."""
    name, globs, root = parse(spec), None, s3_root(spec)
    if kind == "folder":
        name = name.named(name.prefix)
    else:
        plain, options = split_options(spec)
        globs = _literal_escapes(plain.partition("://")[2].partition("/")[2]).split("/")
        globs = globs if globs[-1] else globs[:-1]
        name = parse(plain[: next(i for i, mark in enumerate(plain) if mark in GLOB)] + options)
    last, ascending = at.after, True
    try:
        for found in s3.list_objects(name.uri, at.after, at.until):
            ascending &= found.key > last
            if budget.spent and ascending and not name.bucket.endswith("--x-s3"):
                yield from _parted(name, last, at)
                return
            last = found.key
            budget.take(_REMOTE)
            level = matches(found.key.split("/"), globs) if globs else BELOW
            if level and not (selection and selection.rule(found.key.removeprefix(root.prefix))):
                yield SourceFile(found.uri, found.bytes, found.version), level == ITSELF
    except OSError as error:
        if strict and isinstance(error, UnreachableError):
            raise
        yield lost_folder(root.uri, one_line(error)), False


def _literal_escapes(pattern: str) -> str:
    """A pattern decoded: what is percent-encoded in it is no wildcard."""
    marked = re.sub("%(5b|2a|3f)", lambda mark: f"[{unquote(mark[0])}]", pattern, flags=re.I)
    return unquote(marked)


def _parted(name: S3Name, last: str, at: Spot) -> Iterator[Spot]:
    """The keys of a prefix after one, up to the end of its range, as ranges."""
    ends = part_keys(lambda after: s3.first_key(name, after), name.key, last, at.until)
    for after, until in zip([last, *ends], [*ends, at.until], strict=True):
        yield replace(at, after=after, until=until)


def part_keys(
    next_key: Callable[[str], str | None], prefix: str, after: str, until: str
) -> list[str]:
    """Texts, ascending, between which keys after one are parted; they need be no keys themselves.

    Keys are told apart by the character after what they have in common, again and again.

    Args:
        next_key: Gives the first key of the prefix after a text; one request each.
        prefix: What all keys begin with.
        after: Those up to this one are done.
        until: The last of them; "" where there is no end.
    """
    waiting, starts, probes = deque([prefix]), [prefix], 0
    while waiting and len(starts) < _KEY_RANGES and probes < _PROBES:
        start, found = waiting.popleft(), list[str]()
        position = max(after, start)
        while (key := next_key(position)) and key > position and key.startswith(start):
            probes += 1
            if until and key > until:
                break
            if found and key.startswith(found[-1]):  # there is no text after all that it begins
                position = key
                continue
            found.append(start + key[len(start)])
            position = found[-1] + _LAST
        if found:
            starts.remove(start)
            starts += found
            waiting += found
    return sorted(start + _LAST for start in starts)[:-1]


# --- folders ----------------------------------------------------------------------------------


def _remote_files(
    base: str, pattern: str, kind: str, selection: Selection, strict: bool, at: Spot, budget: Budget
) -> Iterator[Found | Spot]:
    """Files of a folder, but for a range of its folders; then those of its folders."""
    root = plain(base).rstrip("/") + "/"
    folders = []
    try:
        for uri, entry_kind, size, version in storage.list_remote(at.path):
            is_folder = entry_kind == "folder"
            if selection and selection.rule(plain(uri).removeprefix(root), folder=is_folder):
                continue
            if is_folder:
                folders.append(uri)
            elif at.after or at.until:  # listed with the first range
                continue
            elif kind == "folder":
                budget.take(_REMOTE)
                yield SourceFile(uri, size, version), False
            elif level := matches(
                segments(unquote(uri.partition("?")[0])), segments(unquote(pattern))
            ):
                budget.take(_REMOTE)
                yield SourceFile(uri, size, version), level == ITSELF
    except OSError as error:
        if strict and isinstance(error, UnreachableError):
            raise
        yield lost_folder(at.path, one_line(error)), False
    folders = [uri for uri in folders if uri > at.after and (not at.until or uri <= at.until)]
    for number, folder in enumerate(folders):
        if budget.spent:
            before = folders[number - 1] if number else at.after
            for after, until in ranges(folders[number:], before, at.until):
                yield Spot(at.path, after or "\0", until)  # without bounds, the files come again
            return
        yield from _remote_files(base, pattern, kind, selection, strict, Spot(folder), budget)
