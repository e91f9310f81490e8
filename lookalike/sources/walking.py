"""Walking folders and globs, local and remote, as a stream.

A folder is walked in sorted order. Links to files are followed (the link's own name is listed);
links to folders are not entered, since they can lead in circles or out of the source: they are
named in a notice, and can be given as sources of their own.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import unquote

from lookalike.errors import UnreachableError, one_line
from lookalike.records import SourceFile
from lookalike.store import s3, storage
from lookalike.store.s3_uri import canonical, is_s3, parse, split_options, without_dots

Notice = Callable[[str], None]
Found = tuple[SourceFile, bool]
"""A file, and whether it was named itself: not found in a folder that was."""

GLOB = frozenset("*?[")
_LOST = "folder not readable"


def look_up(uri: str, strict: bool = False) -> SourceFile:
    """Size and version of one named file, or why it cannot be had.

    Raises:
        UnreachableError: Where `strict` asks for it: nobody can tell now.
    """
    try:
        if storage.is_remote(uri):
            uri = canonical(uri)
            return _remote_file(uri)
        return _local_file(storage.path_from_uri(uri))
    except (OSError, ValueError) as error:
        if strict and isinstance(error, UnreachableError):
            raise
        return SourceFile(uri, -1, "", one_line(error))


def walk(spec: str, kind: str, notice: Notice, strict: bool = False) -> Iterator[Found]:
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
        yield from files(spec, kind, strict)
        return
    path = os.path.abspath(storage.path_from_uri(spec))
    if kind == "folder":
        yield from ((file, False) for file in _walk(path, notice))
    elif kind == "file":
        yield _local_file(path), True
    else:
        yield from _local_glob(path, notice)


def _local_glob(pattern: bytes, notice: Notice) -> Iterator[Found]:
    """Files that match, and all files below folders that match.

    From the first `**` on, the tree is walked here: Python's own follows links to folders, in
    circles too.
    """
    parts = pattern.split(b"/")
    deep = parts.index(b"**") if b"**" in parts else len(parts)
    rest = os.fsdecode(b"/".join(parts[deep:]))
    for match in sorted(glob.iglob(b"/".join(parts[:deep]) or b"/")):
        if not os.path.isdir(match):
            if not rest:
                yield _local_file(match), True
        elif os.path.islink(match) and not rest:
            notice(_not_entered(match))
        else:
            for file in _walk(match, notice):
                below = os.path.relpath(storage.path_from_uri(file.uri), match)
                lost = file.problem.startswith(_LOST)  # nobody knows what would have matched
                if not rest or lost:
                    yield file, False
                elif level := _matches(_segments(os.fsdecode(below)), _segments(rest)):
                    yield file, level == _ITSELF


def _local_file(path: bytes) -> SourceFile:
    uri = storage.uri_from_path(os.path.abspath(path))
    try:
        info = os.stat(path)
    except OSError as error:
        return SourceFile(uri, -1, "", error.strerror or one_line(error))
    if not stat.S_ISREG(info.st_mode):  # a pipe would block its reader for ever
        return SourceFile(uri, -1, "", "not a regular file")
    return SourceFile(uri, info.st_size, str(info.st_mtime_ns))


def _walk(folder: bytes, notice: Notice) -> Iterator[SourceFile]:
    """Files below a folder in sorted order, holding one folder's names per level."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        uri = storage.uri_from_path(folder)
        yield SourceFile(uri, -1, "", f"{_LOST}: {error.strerror}")
        return
    for entry in listed:
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link in a circle: it is listed as a file with its problem
            is_folder = False
        if not is_folder:
            yield _local_file(entry.path)
        elif entry.is_symlink():
            notice(_not_entered(entry.path))
        else:
            yield from _walk(entry.path, notice)


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


def _s3_files(spec: str, kind: str, strict: bool) -> Iterator[Found]:
    """Keys that begin with a prefix, taken apart at each `/` for a glob alone."""
    name, globs = parse(spec), None
    if kind == "folder":
        name = name.named(name.prefix)
    else:
        plain, options = split_options(spec)
        globs = _literal_escapes(plain.partition("://")[2].partition("/")[2]).split("/")
        globs = globs if globs[-1] else globs[:-1]
        name = parse(plain[: next(i for i, mark in enumerate(plain) if mark in GLOB)] + options)
    try:
        for found in s3.list_objects(name.uri):
            level = _matches(found.key.split("/"), globs) if globs else _BELOW
            if level:
                yield SourceFile(found.uri, found.bytes, found.version), level == _ITSELF
    except OSError as error:
        if strict and isinstance(error, UnreachableError):
            raise
        folder = name.named(name.key.rpartition("/")[0]).uri
        yield SourceFile(folder, -1, "", f"{_LOST}: {one_line(error)}"), False


def _literal_escapes(pattern: str) -> str:
    """A pattern decoded: what is percent-encoded in it is no wildcard."""
    marked = re.sub("%(5b|2a|3f)", lambda mark: f"[{unquote(mark[0])}]", pattern, flags=re.I)
    return unquote(marked)


def _remote_files(spec: str, kind: str, strict: bool) -> Iterator[Found]:
    pattern, mark, options = spec.partition("?")  # s3://bucket/*.jpg?region=…
    base = pattern if kind == "folder" else _fixed_part(pattern)
    pending = [base.rstrip("/") + mark + options]
    while pending:
        folder = pending.pop()
        folders = []
        try:
            for uri, entry_kind, size, version in storage.list_remote(folder):
                if entry_kind == "folder":
                    folders.append(uri)
                elif kind == "folder":
                    yield SourceFile(uri, size, version), False
                elif level := _matches(
                    _segments(unquote(uri.partition("?")[0])), _segments(unquote(pattern))
                ):
                    yield SourceFile(uri, size, version), level == _ITSELF
        except OSError as error:
            if strict and isinstance(error, UnreachableError):
                raise
            yield SourceFile(folder, -1, "", f"{_LOST}: {one_line(error)}"), False
        pending.extend(reversed(folders))


def _fixed_part(pattern: str) -> str:
    parts = pattern.split("/")
    wild = next(i for i, part in enumerate(parts) if GLOB & set(part))
    return "/".join(parts[:wild])


_BELOW, _ITSELF = 1, 2  # how a glob matches: a folder above, or the path itself


def _segments(path: str) -> list[str]:
    return list(PurePosixPath(path).parts)


def _matches(path: list[str], pattern: list[str]) -> int:
    """Glob over the segments of a path, for it or a folder above it; 0 where it does not match.

    `**` stands for any number of segments; as in a shell, a wildcard does not match a first dot.
    """

    def match(names: list[str], globs: list[str]) -> int:
        if not globs:  # what is left lies below a folder that matches
            return _BELOW if names else _ITSELF
        if globs == ["**"]:
            return _BELOW
        if globs[0] == "**":
            shown = next((i for i, name in enumerate(names) if name[:1] == "."), len(names))
            return max(match(names[i:], globs[1:]) for i in range(shown + 1))
        return match(names[1:], globs[1:]) if names and one(names[0], globs[0]) else 0

    def one(name: str, glob: str) -> bool:
        return fnmatchcase(name, glob) and (name[:1] != "." or glob[:1] == ".")

    return match(path, pattern)
