"""What `--images` names, listed as a stream: folders, globs, single files, manifests, containers.

Every file found becomes one row, also those that cannot be reached: nothing is left out silently.
Containers are tar shards and tables of images. One that is named, or matched by a glob, is opened
and its images are listed; one that lies in a folder is a file like others there, and no image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.records import SourceFile
from lookalike.sources import image_tables, tar_shards
from lookalike.sources.columns import merge_columns
from lookalike.sources.manifests import Manifest
from lookalike.sources.walking import GLOB, Notice, walk
from lookalike.sources.walking import look_up as look_up
from lookalike.store import storage
from lookalike.store.s3_uri import canonical

_MANIFESTS = (".csv", ".csv.gz", ".parquet")
_MOST_LOST = 20  # rows of a manifest in a row that cannot be reached


@dataclass(frozen=True)
class Source:
    """One SRC of the command line, checked and ready to be listed.

    Attributes:
        spec: As the user wrote it.
        kind: "folder", "glob", "file", "manifest", "tar" or "table".
    """

    spec: str
    kind: str

    @cached_property
    def _manifest(self) -> Manifest:
        return Manifest(self.spec)  # which remembers what it found when it read itself through

    @cached_property
    def metadata(self) -> pa.Schema:
        """The metadata columns that its rows carry; of shards, told from samples."""
        if self.kind == "manifest":
            return self._manifest.metadata_schema()
        return merge_columns(self._schemas())

    def files(self, notice: Notice = print) -> Iterator[SourceFile]:
        """List it, sorted; `notice` is told what was left out and why."""
        if self.kind == "manifest":
            yield from self._manifest_files()
            return
        untaken = tar_shards.Untaken()
        for file, kind in self._found(notice):
            if kind == "tar":
                yield from tar_shards.members(file, untaken)
            elif kind == "table":
                yield from image_tables.rows(file)
            else:
                yield file
        untaken.tell(notice)

    def _manifest_files(self) -> Iterator[SourceFile]:
        """Its rows; where many in a row cannot be reached, or all, it is the source that cannot."""
        lost: list[UnreachableError] = []
        answered = False
        for uri, problem, metadata in self._manifest.rows():
            found = SourceFile(uri, -1, "", problem)
            if not problem:
                try:
                    found = look_up(uri, strict=True)
                    answered = True
                    lost.clear()
                except UnreachableError as error:
                    lost.append(error)
                    if len(lost) == _MOST_LOST:
                        raise
                    found = SourceFile(canonical(uri), -1, "", one_line(error))
            yield SourceFile(found.uri, found.bytes, found.version, found.problem, metadata)
        if lost and not answered:
            raise lost[0]

    def _found(self, notice: Notice) -> Iterator[tuple[SourceFile, str]]:
        """What lies there: containers that were named, as "tar" or "table", and files."""
        if self.kind in ("tar", "table"):
            [(file, _)] = walk(self.spec, "file", notice)
            yield file, self.kind
            return
        for file, is_named in walk(self.spec, self.kind, notice):
            named = is_named and self.kind == "glob" and not file.problem
            if named and tar_shards.is_tar(file.uri):
                yield file, "tar"
            elif named and image_tables.is_table(file.uri):
                yield file, "table" if image_tables.is_to_be_listed(file.uri) else "file"
            else:
                yield file, "file"

    def _schemas(self) -> Iterator[pa.Schema]:
        if not self._may_hold_containers():
            return
        tars: list[SourceFile] = []
        for file, kind in self._found(lambda _: None):
            if kind == "tar":
                tars.append(file)
            elif kind == "table" and (columns := image_tables.find_columns(file.uri)):
                yield columns.schema
        yield tar_shards.metadata_schema(tars)

    def _may_hold_containers(self) -> bool:
        """Spares the walk where a glob ends in another suffix."""
        if self.kind != "glob":
            return self.kind in ("tar", "table")
        pattern = storage.plain_name(self.spec)
        end = pattern.lower()[max(pattern.rfind(mark) for mark in "*?]") + 1 :]
        return any(
            suffix.endswith(end) or end.endswith(suffix)
            for suffix in (*tar_shards.SUFFIXES, image_tables.SUFFIX)
        )


def open_source(spec: str) -> Source:
    """Check one SRC: does it exist, what is it, and can its metadata be told.

    Raises:
        RequestError: There is no such thing, or it is of a kind that is not read.
        UnreachableError: Nobody can tell now.
    """
    if not spec:
        raise RequestError("an empty source was given; name a folder, a glob, a manifest or a file")
    kind = kind_of(spec)
    if kind == "absent":
        if GLOB & set(storage.plain_name(spec)):
            return Source(spec, "glob")
        raise RequestError(f"{spec}: no such file or folder")
    if kind == "other":
        raise RequestError(f"{spec}: neither a file nor a folder")
    if kind == "file" and tar_shards.is_tar(spec):
        tar_shards.check_tar(look_up(spec))
        return Source(spec, "tar")
    if kind == "file" and image_tables.is_table(spec) and image_tables.find_columns(spec):
        return Source(spec, "table")
    if kind == "file" and storage.plain_name(spec).lower().endswith(_MANIFESTS):
        source = Source(spec, "manifest")
        _ = source.metadata  # it is checked as it is told
        return source
    return Source(spec, kind)


def metadata_schema(sources: list[Source]) -> pa.Schema:
    """Metadata columns of all sources together; types that do not agree become strings."""
    return merge_columns(source.metadata for source in sources)


def kind_of(spec: str) -> str:
    """What a path or URI is: "file", "folder", "absent" or "other"."""
    if storage.is_remote(spec):
        return storage.remote_info(spec, folders=True)[0]
    try:
        mode = os.stat(storage.path_from_uri(spec)).st_mode
    except FileNotFoundError:
        return "absent"
    except (OSError, ValueError) as error:
        raise RequestError(f"{spec}: {one_line(error)}") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"
