"""What `--images` names: folders, globs, manifests and single files, listed as a stream.

Every file found becomes one row, also those that cannot be reached: nothing is left out silently.
A folder is walked in sorted order. Links to files are followed (the link's own name is listed);
links to folders are not entered, since they can lead in circles or out of the source: they are
named in a notice, and can be given as sources of their own.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa

from lookalike import storage
from lookalike.errors import RequestError, one_line
from lookalike.manifests import Manifest
from lookalike.records import SourceFile

Notice = Callable[[str], None]
_GLOB = set("*?[")
_MANIFESTS = (".csv", ".parquet")
_TARS = (".tar", ".tar.gz", ".tgz")
_LOST = "folder not readable"


@dataclass(frozen=True)
class Source:
    """One SRC of the command line, checked and ready to be listed.

    Attributes:
        spec: As the user wrote it.
        kind: "folder", "glob", "manifest" or "file".
        metadata: The metadata columns that its rows carry.
    """

    spec: str
    kind: str
    metadata: pa.Schema = field(default_factory=lambda: pa.schema([]))

    def files(self, notice: Notice = print) -> Iterator[SourceFile]:
        """List it, sorted; `notice` is told what was left out and why."""
        if self.kind == "manifest":
            for uri, problem, metadata in Manifest(self.spec).rows():
                found = SourceFile(uri, -1, "", problem) if problem else look_up(uri)
                yield SourceFile(found.uri, found.bytes, found.version, found.problem, metadata)
        elif storage.is_remote(self.spec):
            yield from _remote_files(self.spec, self.kind)
        else:
            yield from _local_files(self.spec, self.kind, notice)


def open_source(spec: str) -> Source:
    """Check one SRC: does it exist, what is it, and which metadata does it carry.

    Raises:
        RequestError: There is no such thing, or it is of a kind that is not read.
    """
    if not spec:
        raise RequestError("an empty source was given; name a folder, a glob, a manifest or a file")
    kind = _kind(spec)
    if kind == "absent":
        if _GLOB & set(spec.partition("?")[0] if storage.is_remote(spec) else spec):
            return Source(spec, "glob")
        raise RequestError(f"{spec}: no such file or folder")
    if kind == "file" and spec.lower().endswith(_TARS):
        raise RequestError(f"{spec}: tar shards are not read yet; unpack it and name the folder")
    if kind == "file" and spec.lower().endswith(_MANIFESTS):
        return Source(spec, "manifest", Manifest(spec).metadata_schema())
    if kind == "other":
        raise RequestError(f"{spec}: neither a file nor a folder")
    return Source(spec, kind)


def metadata_schema(sources: list[Source]) -> pa.Schema:
    """Metadata columns of all sources together; types that do not agree become strings."""
    fields: dict[str, pa.DataType] = {}
    for source in sources:
        for column in source.metadata:
            known = fields.setdefault(column.name, column.type)
            fields[column.name] = _common_type(known, column.type)
    return pa.schema(list(fields.items()))


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both, such as int64 for int32 and int64; else string."""
    schemas = [pa.schema([("value", kind)]) for kind in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("value").type
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.string()


def look_up(uri: str) -> SourceFile:
    """Size and version of one named file, or why it cannot be had."""
    try:
        if storage.is_remote(uri):
            kind, size, version = storage.remote_info(uri)
            problem = "" if kind == "file" else f"no such file ({kind})"
            return SourceFile(uri, size, version, problem)
        return _local_file(storage.path_from_uri(uri))
    except (OSError, ValueError) as error:
        return SourceFile(uri, -1, "", one_line(error))


def _kind(spec: str) -> str:
    if storage.is_remote(spec):
        return storage.remote_info(spec)[0]
    try:
        mode = os.stat(storage.path_from_uri(spec)).st_mode
    except FileNotFoundError:
        return "absent"
    except (OSError, ValueError) as error:
        raise RequestError(f"{spec}: {one_line(error)}") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def _local_files(spec: str, kind: str, notice: Notice) -> Iterator[SourceFile]:
    path = os.path.abspath(storage.path_from_uri(spec))
    if kind == "folder":
        yield from _walk(path, notice)
    elif kind == "file":
        yield _local_file(path)
    else:
        yield from _local_glob(path, notice)


def _local_glob(pattern: bytes, notice: Notice) -> Iterator[SourceFile]:
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
                yield _local_file(match)
        elif os.path.islink(match) and not rest:
            notice(_not_entered(match))
        else:
            for file in _walk(match, notice):
                below = os.path.relpath(storage.path_from_uri(file.uri), match)
                lost = file.problem.startswith(_LOST)  # nobody knows what would have matched
                if not rest or lost or _matches(os.fsdecode(below), rest):
                    yield file


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


def _remote_files(spec: str, kind: str) -> Iterator[SourceFile]:
    if kind == "file":
        yield look_up(spec)
        return
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
                elif kind == "folder" or _matches(unquote(uri.partition("?")[0]), unquote(pattern)):
                    yield SourceFile(uri, size, version)
        except OSError as error:
            yield SourceFile(folder, -1, "", f"{_LOST}: {one_line(error)}")
        pending.extend(reversed(folders))


def _fixed_part(pattern: str) -> str:
    parts = pattern.split("/")
    wild = next(i for i, part in enumerate(parts) if _GLOB & set(part))
    return "/".join(parts[:wild])


def _matches(path: str, pattern: str) -> bool:
    """Glob over the segments of a path, for it or a folder above it.

    `**` stands for any number of segments; as in a shell, a wildcard does not match a first dot.
    """

    def match(names: list[str], globs: list[str]) -> bool:
        if not globs:
            return True  # what is left lies below a folder that matches
        if globs[0] == "**":
            shown = next((i for i, name in enumerate(names) if name[0] == "."), len(names))
            return any(match(names[i:], globs[1:]) for i in range(shown + 1))
        return bool(names) and one(names[0], globs[0]) and match(names[1:], globs[1:])

    def one(name: str, glob: str) -> bool:
        return fnmatchcase(name, glob) and (name[0] != "." or glob[0] == ".")

    return match(list(PurePosixPath(path).parts), list(PurePosixPath(pattern).parts))
