"""What `--images` names, listed as a stream: folders, globs, single files, manifests, containers.

Every file found becomes one row, also those that cannot be reached: nothing is left out silently.
Containers are tar shards and tables of images. One that is named, or matched by a glob, is opened
and its images are listed; one that lies in a folder is a file like others there, and no image.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import pyarrow as pa

from lookalike.errors import RequestError, UnreachableError, one_line, out_of_reach
from lookalike.records import SourceFile
from lookalike.sources import image_tables, tar_shards
from lookalike.sources.globs import GLOB
from lookalike.sources.hive import Partitions
from lookalike.sources.manifests import Manifest
from lookalike.sources.selection import Selection, member
from lookalike.sources.untold import Untold
from lookalike.sources.walking import Notice, folder_start, root_of, walk
from lookalike.sources.walking import look_up as look_up
from lookalike.store import storage
from lookalike.store.columns import merge_columns
from lookalike.store.s3_uri import canonical

_MANIFESTS = (".csv", ".csv.gz", ".parquet")
_MOST_LOST = 20  # rows of a manifest in a row that cannot be reached


_ALL = Selection()


@dataclass(frozen=True)
class Source:
    """One SRC of the command line, checked and ready to be listed.

    Attributes:
        spec: As the user wrote it.
        kind: "folder", "glob", "file", "manifest", "tar" or "table"; "lost" for one that was there
            in an earlier run and cannot be reached.
        selection: What of it is taken.
        problem: Why it cannot be reached.
        known: Of manifests, whether an earlier run listed it.
    """

    spec: str
    kind: str
    selection: Selection = _ALL
    problem: str = ""
    known: bool = False
    _manifests: dict[str, Manifest] = field(default_factory=dict, repr=False, compare=False)

    @property
    def root(self) -> str:
        """The uri of what is listed: of a glob, the folder above its first wildcard."""
        if self.kind == "glob" or storage.is_remote(self.spec):
            return root_of(self.spec)
        return storage.uri_from_path(os.path.abspath(storage.path_from_uri(self.spec)))

    @cached_property
    def metadata(self) -> pa.Schema:
        """The metadata columns that its rows carry; of shards, told from samples."""
        schemas, tars = [], []
        for file, kind in self._containers:
            if kind == "tar":
                tars.append(file)
            elif kind == "manifest":
                schemas.append(self._manifest(file).metadata_schema())
            else:
                with suppress(UnreachableError):  # it is listed with its problem
                    if columns := image_tables.find_columns(file.uri):
                        schemas.append(columns.schema)
        return merge_columns([*schemas, tar_shards.metadata_schema(tars), self._partitions.schema])

    @cached_property
    def _containers(self) -> list[tuple[SourceFile, str]]:
        """Tar shards, tables and manifests, whose rows or members are listed."""
        if not self._may_hold_containers():
            return []
        return [pair for pair in self._found(lambda _: None) if pair[1] != "file"]

    @cached_property
    def _partitions(self) -> Partitions:
        return Partitions(file.uri for file, _ in self._containers)

    def _manifest(self, file: SourceFile) -> Manifest:
        """One for each file: it remembers what it found when it read itself through."""
        name = self.spec if self.kind == "manifest" else file.uri
        return self._manifests.setdefault(name, Manifest(name))

    def files(self, notice: Notice = print) -> Iterator[SourceFile]:
        """List it, sorted; `notice` is told what was left out and why."""
        if self.kind == "lost":
            yield from _lost(self.spec, self.problem)
            return
        untaken, untold = tar_shards.Untaken(), Untold(notice)
        for file, kind in self._found(notice):
            if kind == "tar":
                members = tar_shards.members(file, untaken)
                rows: Iterable[SourceFile] = filter(self._takes_member, members)
            elif kind == "table":
                rows = self._rows_of_table(file, untold)
            elif kind == "manifest":
                rows = self._manifest_rows(self._manifest(file))
            else:
                yield file
                continue
            said = self._partitions.of(file.uri)
            yield from map(partial(untold.within, file, said), rows) if said else rows
        untaken.tell(notice)

    def _takes_member(self, file: SourceFile) -> bool:
        if not self.selection or not file.container:
            return True
        name = file.uri.removeprefix(f"{file.container}#")
        return not self.selection.rule(member(name))

    def _rows_of_table(self, file: SourceFile, untold: Untold) -> Iterator[SourceFile]:
        """Its rows; one that cannot be read may be a manifest, whose rows may name anything."""
        for row in image_tables.rows(file, untold.left_out):
            yield row
            if row.uri == file.uri and self.names_manifests and _is_away(file):
                yield replace(row, hides="")

    def _manifest_rows(self, manifest: Manifest) -> Iterator[SourceFile]:
        """Its rows; where many in a row cannot be reached, the others are not tried.

        Of a manifest that no run before has listed, it is the source then that cannot be reached.
        """
        lost: list[UnreachableError] = []
        answered = False
        for uri, problem, metadata in manifest.rows():
            if self.selection.exclude and self.selection.rule_of_name(uri, ()):
                continue
            found = SourceFile(uri, -1, "", problem)
            if not problem and len(lost) < _MOST_LOST:
                try:
                    found = look_up(uri, strict=True)
                    answered = True
                    lost.clear()
                except UnreachableError as error:
                    lost.append(error)
                    if len(lost) == _MOST_LOST and not self.known:
                        raise
            if not problem and lost:
                name = canonical(uri)
                found = SourceFile(name, -1, "", one_line(lost[-1]), hides=name)
            yield replace(found, metadata=metadata)
        if lost and not answered and not self.known:
            raise lost[0]

    def _found(self, notice: Notice) -> Iterator[tuple[SourceFile, str]]:
        """What lies there: containers that were named, as "tar", "table" or "manifest", and files.

        A glob names manifests where it ends as they do; `*` finds them among the pictures.
        """
        if self.kind in ("tar", "table", "manifest"):
            [(file, _)] = walk(self.spec, "file", notice)
            yield file, self.kind
            return
        manifests = self.names_manifests
        for file, is_named in walk(self.spec, self.kind, notice, self.selection):
            named = is_named and self.kind == "glob" and not file.problem
            if named and tar_shards.is_tar(file.uri):
                yield file, "tar"
            elif named and image_tables.is_table(file.uri):
                found = image_tables.kind_of_table(file.uri)
                yield file, found if manifests or found == "table" else "file"
            else:
                yield file, "manifest" if named and manifests else "file"

    @property
    def names_manifests(self) -> bool:
        """Whether it is a glob of manifests, which are checked before all else."""
        return self.kind == "glob" and storage.plain_name(self.spec).lower().endswith(_MANIFESTS)

    def _may_hold_containers(self) -> bool:
        """Spares the walk where a glob ends in another suffix."""
        if self.kind != "glob":
            return self.kind in ("tar", "table", "manifest")
        pattern = storage.plain_name(self.spec)
        end = pattern.lower()[max(pattern.rfind(mark) for mark in "*?]") + 1 :]
        return any(
            suffix.endswith(end) or end.endswith(suffix)
            for suffix in (*tar_shards.SUFFIXES, image_tables.SUFFIX, *_MANIFESTS)
        )


def open_source(
    spec: str,
    selection: Selection = _ALL,
    is_known: Callable[[str], bool] = lambda name: False,
) -> Source:
    """Check one SRC: does it exist, what is it, and can its metadata be told.

    Args:
        spec: As the user wrote it.
        selection: What of it is taken.
        is_known: Whether an earlier run listed something of that name, or below it. What is away
            or cannot be read then is a source that is "lost" for tonight.

    Raises:
        RequestError: There is no such thing, or it is of a kind that is not read.
        UnreachableError: Nobody can tell now.
    """
    if not spec:
        raise RequestError("an empty source was given; name a folder, a glob, a manifest or a file")
    try:
        source = _open(spec, selection, is_known)
    except UnreachableError as error:
        if not is_known(spec):
            raise
        return Source(spec, "lost", problem=one_line(error))
    if source.kind == "absent":
        if not is_known(spec):
            raise RequestError(f"{spec}: no such file or folder")
        return Source(spec, "lost", problem="no such file or folder")
    if source.kind == "glob" and kind_of(root := source.root) == "absent" and is_known(root):
        return Source(spec, "lost", problem="no such folder")
    return source


def _open(spec: str, selection: Selection, is_known: Callable[[str], bool]) -> Source:
    kind = kind_of(spec)
    if kind == "absent":
        is_glob = GLOB & set(storage.plain_name(spec))
        source = Source(spec, "glob" if is_glob else "absent", selection, known=is_known(spec))
        if source.names_manifests:
            _ = source.metadata  # they are checked as it is told
        return source
    if kind == "other":
        raise RequestError(f"{spec}: neither a file nor a folder")
    if kind == "file" and tar_shards.is_tar(spec):
        tar_shards.check_tar(look_up(spec))
        return Source(spec, "tar", selection)
    if kind == "file" and image_tables.is_table(spec) and image_tables.find_columns(spec):
        return Source(spec, "table", selection)
    if kind == "file" and storage.plain_name(spec).lower().endswith(_MANIFESTS):
        source = Source(spec, "manifest", selection, known=is_known(spec))
        _ = source.metadata  # it is checked as it is told
        return source
    return Source(spec, kind, selection)


def _is_away(file: SourceFile) -> bool:
    """Whether a table cannot be opened tonight, whatever it holds."""
    try:
        image_tables.find_columns(file.uri)
    except UnreachableError:
        return True
    except RequestError:
        return False
    return False


def _lost(spec: str, problem: str) -> Iterator[SourceFile]:
    """The rows of a source that cannot be reached, for all that it may have been."""
    uri = root_of(spec)
    starts = [folder_start(uri), f"{uri}#"]
    if storage.plain_name(spec).lower().endswith(_MANIFESTS):  # whose rows may name anything
        starts.append("")
    return (SourceFile(uri, -1, "", problem, hides=start) for start in starts)


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
        if isinstance(error, OSError) and out_of_reach(error):
            reason = error.strerror or one_line(error)
            raise UnreachableError(f"{spec}: cannot be reached: {reason}") from error
        raise RequestError(f"{spec}: {one_line(error)}") from error
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"
