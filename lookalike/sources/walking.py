"""Walking folders and globs, local and remote, as a stream.

A folder is walked in sorted order. Links to files are followed (the link's own name is listed);
links to folders are not entered, since they can lead in circles or out of the source: they are
named in a notice, and can be given as sources of their own.

A folder that cannot be listed is one row that hides what lies in it (`SourceFile.hides`), and so is
a file that cannot be looked at, and a link that leads nowhere: a folder may have been moved to
another disk and a link left in its place, and the disk is not mounted tonight.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lookalike.errors import one_line, out_of_reach
from lookalike.records import SourceFile
from lookalike.sources.globs import GLOB, ITSELF, fixed_part, matches, matches_part, segments
from lookalike.sources.looking_up import local_file, look_up, lost_folder, lost_link
from lookalike.sources.places import FEW, Budget, Notice, Spot, ranges
from lookalike.sources.remote_walking import Found, s3_root, walk_remote
from lookalike.sources.selection import Selection
from lookalike.store import storage
from lookalike.store.s3_uri import is_s3, split_options

_ALL = Selection()


def root_of(spec: str) -> str:
    """The folder that a folder or glob is walked from, as a uri: its part without wildcards."""
    if is_s3(spec):
        return s3_root(spec).uri
    if storage.is_remote(spec):
        pattern, options = split_options(spec)
        return fixed_part(pattern).rstrip("/") + options
    path = os.path.abspath(storage.path_from_uri(spec))
    return storage.uri_from_path(os.fsencode(fixed_part(os.fsdecode(path))) or b"/")


def walk(
    spec: str,
    kind: str,
    notice: Notice,
    selection: Selection = _ALL,
    *,
    strict: bool = False,
    at: Spot | None = None,
    budget: Budget | None = None,
) -> Iterator[Found | Spot]:
    """Files of a "folder", of a "glob" or the one "file", sorted.

    A glob names a file itself where its last part, not `**`, matches the file's name and the parts
    before it the folders above.

    Args:
        spec: As the user wrote it.
        kind: See above.
        notice: Is told what is left out.
        selection: What is taken.
        strict: See Raises.
        at: Where the walk goes on that left it; None for all.
        budget: Once it is spent, what is left comes as spots, in the files' order.

    Raises:
        UnreachableError: Where `strict` asks for it: remote storage cannot be listed now.
    """
    budget = budget or Budget()
    if storage.is_remote(spec):
        if kind == "file":
            yield look_up(spec, strict), True
            return
        yield from walk_remote(spec, kind, selection, strict, at, budget)
        return
    path = os.path.abspath(storage.path_from_uri(spec))
    if kind == "folder":
        tree = _Tree(path, notice, selection, budget)
        at = at or Spot(os.fsdecode(path))
        yield from (one if isinstance(one, Spot) else (one, False) for one in tree.files(at))
    elif kind == "file":
        yield local_file(path), True
    else:
        yield from _local_glob(path, notice, selection, at, budget)


def files_of(found: Iterable[Found | Spot]) -> Iterator[Found]:
    """The files of a walk without limits."""
    return (one for one in found if not isinstance(one, Spot))


def _local_glob(
    pattern: bytes, notice: Notice, selection: Selection, at: Spot | None, budget: Budget
) -> Iterator[Found | Spot]:
    """Files that match, and all files below folders that match.

    Python's own would pass over folders that cannot be listed, and follow links to folders, in
    circles too.
    """
    parts = [os.fsdecode(part) for part in pattern.split(b"/") if part]
    deep = parts.index("**") if "**" in parts else len(parts)
    fixed = next((i for i, part in enumerate(parts[:deep]) if GLOB & set(part)), deep)
    rest = "/".join(parts[deep:])
    base = "/" + "/".join(parts[:fixed])
    tree = _Tree(os.fsencode(base), notice, selection, budget)
    at = at or Spot(base, globs=tuple(parts[fixed:deep]))
    if at.match is not None:
        yield from _below(tree, at, rest)
        return
    for one in tree.matches(at):
        if isinstance(one, Spot):
            yield one
            continue
        match, lost = one
        if lost is not None:
            yield lost, False
        elif not os.path.isdir(match):
            if row := lost_link(match):
                yield row, not rest
            elif not rest:
                yield local_file(match), True
        elif os.path.islink(match) and not rest:
            notice(_not_entered(match))
        else:
            yield from _below(tree, Spot(os.fsdecode(match), match=os.fsdecode(match)), rest)


def _below(tree: _Tree, at: Spot, rest: str) -> Iterator[Found | Spot]:
    """Files below a folder that matches, as far as the rest of the pattern does."""
    match = os.fsencode(at.match or "")
    for file in tree.files(at):
        if isinstance(file, Spot):
            yield file
            continue
        below = os.path.relpath(storage.path_from_uri(file.uri), match)
        # nobody knows what would have matched in a folder that cannot be listed
        if not rest or file.hides not in (None, file.uri):
            yield file, False
        elif level := matches(segments(os.fsdecode(below)), segments(rest)):
            yield file, level == ITSELF


@dataclass(frozen=True)
class _Tree:
    """What lies below a folder, as far as it is selected."""

    root: bytes
    notice: Notice
    selection: Selection
    budget: Budget

    def files(self, at: Spot) -> Iterator[SourceFile | Spot]:
        """Files below a folder in sorted order, holding one folder's names per level."""
        folder = os.fsencode(at.path)
        try:
            listed = _entries(at)
        except OSError as error:
            yield _lost(folder, error)
            return
        left = None
        for number, entry in enumerate(listed):
            if left is None and self.budget.spent:
                left = _left(at, listed, number)
                if left:
                    yield from left
                    return
            is_folder = _is_folder(entry)
            if not self._takes(entry.path, is_folder):
                continue
            if not is_folder:
                self.budget.take()
                lost = lost_link(entry.path) if entry.is_symlink() else None
                yield lost or local_file(entry.path)
            elif entry.is_symlink():
                self.notice(_not_entered(entry.path))
            else:
                yield from self.files(Spot(os.fsdecode(entry.path), match=at.match))

    def matches(self, at: Spot) -> Iterator[tuple[bytes, SourceFile | None] | Spot]:
        """Paths below a path that match parts of a glob; folders not readable, with their row."""
        base, globs = os.fsencode(at.path), at.globs
        if not globs:
            try:
                os.lstat(base)
            except OSError as error:
                if out_of_reach(error):
                    yield base, _lost(os.path.dirname(base), error)
                elif row := _lost_above(base):
                    yield base, row
                return
            yield base, None
            return
        if not GLOB & set(globs[0]):
            yield from self.matches(Spot(os.path.join(at.path, globs[0]), globs=globs[1:]))
            return
        try:
            listed = _entries(at)
        except (FileNotFoundError, NotADirectoryError):
            if row := _lost_above(base):
                yield base, row
            return
        except OSError as error:
            yield base, _lost(base, error)
            return
        for number, entry in enumerate(listed):
            if self.budget.spent:
                names = [os.fsdecode(one.name) for one in listed]
                before = names[number - 1] if number else at.after
                for after, until in ranges(names[number:], before, at.until):
                    yield replace(at, after=after, until=until)
                return
            if matches_part(os.fsdecode(entry.name), globs[0]) and self._takes(
                entry.path, _is_folder(entry)
            ):
                self.budget.take()
                yield from self.matches(Spot(os.fsdecode(entry.path), globs=globs[1:]))

    def _takes(self, path: bytes, is_folder: bool) -> bool:
        if not self.selection:
            return True
        below = os.fsdecode(os.path.relpath(path, self.root))
        return not self.selection.rule(below, folder=is_folder)


def _left(at: Spot, listed: list[os.DirEntry[bytes]], number: int) -> list[Spot]:
    """Ranges of a folder's entries from a number on; none where they are few files."""
    names = [os.fsdecode(entry.name) for entry in listed[number:]]
    folders = sum(map(_is_folder, listed[number:]))
    if not folders and len(names) < FEW:
        return []
    before = os.fsdecode(listed[number - 1].name) if number else at.after
    return [
        replace(at, after=after, until=until)
        for after, until in ranges(names, before, at.until, folders)
    ]


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry is a folder; a link in a circle is listed as a file with its problem."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _lost(folder: bytes, error: OSError) -> SourceFile:
    return lost_folder(storage.uri_from_path(folder), error.strerror or one_line(error))


def _lost_above(path: bytes) -> SourceFile | None:
    """The row of the link that leads nowhere through which a lost path goes, if there is one."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return lost_link(path)


def _entries(at: Spot) -> list[os.DirEntry[bytes]]:
    after, until = os.fsencode(at.after), os.fsencode(at.until)
    with os.scandir(os.fsencode(at.path)) as entries:
        inside = (one for one in entries if one.name > after and (not until or one.name <= until))
        return sorted(inside, key=lambda entry: entry.name)


def _not_entered(folder: bytes) -> str:
    uri = storage.uri_from_path(folder)
    return f"not entered: {uri} is a link to a folder; name it with --images to include it"
