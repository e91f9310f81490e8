"""Walking folders and globs, local and remote, as a stream.

A folder is walked in sorted order. Links to files are followed (the link's own name is listed);
links to folders are not entered, since they can lead in circles or out of the source: they are
named in a notice, and can be given as sources of their own.

A folder that cannot be listed is one row that hides what lies in it (`SourceFile.hides`), and so is
a file that cannot be looked at.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from lookalike.errors import UnreachableError, one_line, out_of_reach
from lookalike.records import SourceFile
from lookalike.sources.globs import BELOW, GLOB, ITSELF, fixed_part, matches, matches_part, segments
from lookalike.sources.selection import Selection, plain
from lookalike.store import s3, storage
from lookalike.store.s3_uri import S3Name, canonical, is_s3, parse, split_options, without_dots

Notice = Callable[[str], None]
Found = tuple[SourceFile, bool]
"""A file, and whether it was named itself: not found in a folder that was."""

_LOST = "folder not readable"
_ALL = Selection()


def look_up(uri: str, strict: bool = False) -> SourceFile:
    """Size and version of one named file, or why it cannot be had.

    Raises:
        UnreachableError: Where `strict` asks for it: nobody can tell now, of a remote one.
    """
    if not storage.is_remote(uri):
        return _local_file(storage.path_from_uri(uri))
    try:
        uri = canonical(uri)
        return _remote_file(uri)
    except (OSError, ValueError) as error:
        if strict and isinstance(error, UnreachableError):
            raise
        hides = uri if isinstance(error, OSError) else None
        return SourceFile(uri, -1, "", one_line(error), hides=hides)


def lost_folder(uri: str, problem: str) -> SourceFile:
    """The row of a folder that cannot be listed."""
    return SourceFile(uri, -1, "", f"{_LOST}: {problem}", hides=folder_start(uri))


def folder_start(uri: str) -> str:
    """What the names of all files below a folder begin with."""
    return storage.plain_name(uri).rstrip("/") + "/"


def root_of(spec: str) -> str:
    """The folder that a folder or glob is walked from, as a uri: its part without wildcards."""
    if is_s3(spec):
        return _s3_root(spec).uri
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
) -> Iterator[Found]:
    """Files of a "folder", of a "glob" or the one "file", sorted.

    A glob names a file itself where its last part, not `**`, matches the file's name and the parts
    before it the folders above.

    Raises:
        UnreachableError: Where `strict` asks for it: remote storage cannot be listed now.
    """
    if storage.is_remote(spec):
        if kind == "file":
            yield look_up(spec, strict), True
            return
        files = _s3_files if is_s3(spec) else _remote_files
        yield from files(spec, kind, selection, strict)
        return
    path = os.path.abspath(storage.path_from_uri(spec))
    if kind == "folder":
        yield from ((file, False) for file in _Tree(path, notice, selection).files(path))
    elif kind == "file":
        yield _local_file(path), True
    else:
        yield from _local_glob(path, notice, selection)


def _local_glob(pattern: bytes, notice: Notice, selection: Selection) -> Iterator[Found]:
    """Files that match, and all files below folders that match.

    Python's own would pass over folders that cannot be listed, and follow links to folders, in
    circles too.
    """
    parts = [os.fsdecode(part) for part in pattern.split(b"/") if part]
    deep = parts.index("**") if "**" in parts else len(parts)
    fixed = next((i for i, part in enumerate(parts[:deep]) if GLOB & set(part)), deep)
    rest = "/".join(parts[deep:])
    base = os.fsencode("/" + "/".join(parts[:fixed]))
    tree = _Tree(base, notice, selection)
    for match, lost in tree.matches(base, parts[fixed:deep]):
        if lost is not None:
            yield lost, False
        elif not os.path.isdir(match):
            if not rest:
                yield _local_file(match), True
        elif os.path.islink(match) and not rest:
            notice(_not_entered(match))
        else:
            for file in tree.files(match):
                below = os.path.relpath(storage.path_from_uri(file.uri), match)
                # nobody knows what would have matched in a folder that cannot be listed
                if not rest or file.hides not in (None, file.uri):
                    yield file, False
                elif level := matches(segments(os.fsdecode(below)), segments(rest)):
                    yield file, level == ITSELF


def _local_file(path: bytes) -> SourceFile:
    uri = storage.uri_from_path(os.path.abspath(path))
    try:
        info = os.stat(path)
    except OSError as error:
        hides = uri if _in_doubt(error, path) else None
        return SourceFile(uri, -1, "", error.strerror or one_line(error), hides=hides)
    except ValueError as error:  # a NUL character
        return SourceFile(uri, -1, "", one_line(error))
    if not stat.S_ISREG(info.st_mode):  # a pipe would block its reader for ever
        return SourceFile(uri, -1, "", "not a regular file")
    return SourceFile(uri, info.st_size, str(info.st_mtime_ns))


def _in_doubt(error: OSError, path: bytes) -> bool:
    """Whether a file may be there all the same: also where its whole folder is away."""
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)
    return out_of_reach(error) or not os.path.isdir(folder)


@dataclass(frozen=True)
class _Tree:
    """What lies below a folder, as far as it is selected."""

    root: bytes
    notice: Notice
    selection: Selection

    def files(self, folder: bytes) -> Iterator[SourceFile]:
        """Files below a folder in sorted order, holding one folder's names per level."""
        try:
            listed = _entries(folder)
        except OSError as error:
            yield _lost(folder, error)
            return
        for entry in listed:
            is_folder = _is_folder(entry)
            if not self._takes(entry.path, is_folder):
                continue
            if not is_folder:
                yield _local_file(entry.path)
            elif entry.is_symlink():
                self.notice(_not_entered(entry.path))
            else:
                yield from self.files(entry.path)

    def matches(self, base: bytes, globs: list[str]) -> Iterator[tuple[bytes, SourceFile | None]]:
        """Paths below a path that match parts of a glob; folders not readable, with their row."""
        if not globs:
            try:
                os.lstat(base)
            except OSError as error:
                if out_of_reach(error):
                    yield base, _lost(os.path.dirname(base), error)
                return
            yield base, None
            return
        if not GLOB & set(globs[0]):
            yield from self.matches(os.path.join(base, os.fsencode(globs[0])), globs[1:])
            return
        try:
            listed = _entries(base)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield base, _lost(base, error)
            return
        for entry in listed:
            if matches_part(os.fsdecode(entry.name), globs[0]) and self._takes(
                entry.path, _is_folder(entry)
            ):
                yield from self.matches(entry.path, globs[1:])

    def _takes(self, path: bytes, is_folder: bool) -> bool:
        if not self.selection:
            return True
        below = os.fsdecode(os.path.relpath(path, self.root))
        return not self.selection.rule(below, folder=is_folder)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry is a folder; a link in a circle is listed as a file with its problem."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _lost(folder: bytes, error: OSError) -> SourceFile:
    return lost_folder(storage.uri_from_path(folder), error.strerror or one_line(error))


def _entries(folder: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _not_entered(folder: bytes) -> str:
    uri = storage.uri_from_path(folder)
    return f"not entered: {uri} is a link to a folder; name it with --images to include it"


def _remote_file(uri: str) -> SourceFile:
    kind, size, version = storage.remote_info(uri)
    if kind == "absent" and is_s3(uri) and (plain := without_dots(parse(uri).key)):
        # No key is spelled so: then dots lead where they do in URIs.
        named = parse(uri).named(plain).uri
        if named != uri:
            return _remote_file(named)
    return SourceFile(uri, size, version, "" if kind == "file" else f"no such file ({kind})")


def _s3_root(spec: str) -> S3Name:
    """The folder that a folder or glob begins with, without a `/` at its end."""
    plain, options = split_options(spec)
    wild = next((i for i, mark in enumerate(plain) if mark in GLOB), None)
    name = parse(spec if wild is None else plain[:wild] + options)
    key = name.key if wild is None else name.key.rpartition("/")[0]
    return name.named(key.removesuffix("/"))


def _s3_files(spec: str, kind: str, selection: Selection, strict: bool) -> Iterator[Found]:
    """Keys that begin with a prefix, taken apart at each `/` for a glob alone."""
    name, globs, root = parse(spec), None, _s3_root(spec)
    if kind == "folder":
        name = name.named(name.prefix)
    else:
        plain, options = split_options(spec)
        globs = _literal_escapes(plain.partition("://")[2].partition("/")[2]).split("/")
        globs = globs if globs[-1] else globs[:-1]
        name = parse(plain[: next(i for i, mark in enumerate(plain) if mark in GLOB)] + options)
    try:
        for found in s3.list_objects(name.uri):
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


def _remote_files(spec: str, kind: str, selection: Selection, strict: bool) -> Iterator[Found]:
    pattern, mark, options = spec.partition("?")  # s3://bucket/*.jpg?region=…
    base = pattern if kind == "folder" else fixed_part(pattern)
    pending = [base.rstrip("/") + mark + options]
    root = plain(base).rstrip("/") + "/"

    def takes(uri: str, entry_kind: str) -> bool:
        below = plain(uri).removeprefix(root)
        return not selection.rule(below, folder=entry_kind == "folder")

    while pending:
        folder = pending.pop()
        folders = []
        try:
            for uri, entry_kind, size, version in storage.list_remote(folder):
                if selection and not takes(uri, entry_kind):
                    continue
                if entry_kind == "folder":
                    folders.append(uri)
                elif kind == "folder":
                    yield SourceFile(uri, size, version), False
                elif level := matches(
                    segments(unquote(uri.partition("?")[0])), segments(unquote(pattern))
                ):
                    yield SourceFile(uri, size, version), level == ITSELF
        except OSError as error:
            if strict and isinstance(error, UnreachableError):
                raise
            yield lost_folder(folder, one_line(error)), False
        pending.extend(reversed(folders))
