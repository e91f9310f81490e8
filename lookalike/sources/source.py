"""One source, listed as a stream: all of it, or what lies in a place of it.

Every file found becomes one row, also those that cannot be reached: nothing is left out silently.
Containers are tar shards and tables of images. One that is named, or matched by a glob, is opened
and its images are listed; one that lies in a folder is a file like others there, and no image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from lookalike.errors import RequestError, UnreachableError
from lookalike.records import SourceFile
from lookalike.sources import image_tables, tar_shards
from lookalike.sources.containers import TABLE_SUFFIX, TAR_SUFFIXES, is_table, is_tar
from lookalike.sources.hive import Partitions, tell_within
from lookalike.sources.looking_up import folder_start, look_up
from lookalike.sources.manifests import Manifest
from lookalike.sources.places import Budget, Notes, Notice, Place, Spot, spread
from lookalike.sources.reach import Reach, looked_up
from lookalike.sources.selection import Selection, member
from lookalike.sources.walking import root_of, walk
from lookalike.store import storage
from lookalike.store.columns import merge_columns

MANIFESTS = (".csv", ".csv.gz", ".parquet")
_BLOCK_ROWS = 1 << 15  # of a manifest, that are looked up by one task
_REMOTE = 100  # local files that are listed in the time that a remote one is looked up in

Keep = Callable[[pa.Table], Mapping[str, Any]]
"""Keeps rows of a manifest for another task; returns the record of their file."""

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
        for file, kind in self.containers:
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
    def containers(self) -> Sequence[tuple[SourceFile, str]]:
        """Tar shards, tables and manifests, whose rows or members are listed."""
        if not self.may_hold_containers():
            return []
        return [
            pair
            for pair in self._found(lambda _: None)
            if not isinstance(pair, Spot) and pair[1] != "file"
        ]

    def holding(self, containers: Sequence[tuple[SourceFile, str]]) -> Source:
        """The same, of which is known what containers it holds."""
        found = replace(self)
        found.__dict__["containers"] = containers
        return found

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to a task: not the containers, which are places of their own."""
        _ = self._partitions
        return {name: one for name, one in self.__dict__.items() if name != "containers"}

    def _said(self, uri: str) -> Mapping[str, int | str | None]:
        """What the folders above a container say; of most that needs no look at the others."""
        return self._partitions.of(uri) if "=" in uri else {}

    @cached_property
    def _partitions(self) -> Partitions:
        return Partitions(file.uri for file, _ in self.containers)

    def _manifest(self, file: SourceFile) -> Manifest:
        """One for each file: it remembers what it found when it read itself through."""
        name = self.spec if self.kind == "manifest" else file.uri
        return self._manifests.setdefault(name, Manifest(name))

    def files(self, notice: Notice = print) -> Iterator[SourceFile]:
        """List it, sorted; `notice` is told what was left out and why."""
        notes = Notes(notice)
        for file in self.listed(Place(0), notes, Budget()):
            if isinstance(file, SourceFile):  # of places, nothing is left
                yield file
        notes.finish()

    def listed(
        self, place: Place, notes: Notes, budget: Budget, keep: Keep | None = None
    ) -> Iterator[SourceFile | Place]:
        """Its rows in a place, and the places in it that are left to others, in order."""
        if self.kind == "lost":
            yield from _lost(self.spec, self.problem)
            return
        if place.is_container:
            yield from self._inside(place.file, place, notes, budget, keep)
            return
        for found in self._found(notes.tell, place.spot, budget):
            if isinstance(found, Spot):
                yield replace(place, kind="walk", spot=found)
                continue
            file, kind = found
            if kind == "file":
                yield file
                continue
            inside = Place(place.source, kind, None, file.uri, file.bytes, file.version)
            if file.problem or budget.admits(file.bytes if kind == "tar" else 0):
                yield from self._inside(file, inside, notes, budget, keep)
            else:
                yield inside

    def _inside(
        self, file: SourceFile, place: Place, notes: Notes, budget: Budget, keep: Keep | None
    ) -> Iterator[SourceFile | Place]:
        """What lies in a container, with what the folders above it say."""
        if place.kind == "tar":
            rows: Iterable[SourceFile | Place] = self._members(file, place, notes)
        elif place.kind == "table":
            rows = self._rows_of_table(file, place, notes, budget)
        else:
            rows = self._manifest_rows(file, place, budget, keep)
        said = self._said(file.uri)
        for row in rows:
            if isinstance(row, SourceFile):
                budget.take()
                row = tell_within(row, said, file, place.source, notes) if said else row
            yield row

    def _members(self, file: SourceFile, place: Place, notes: Notes) -> Iterator[SourceFile]:
        untaken = tar_shards.Untaken()
        yield from filter(self._takes_member, tar_shards.members(file, untaken))
        if untaken.count:
            notes.take(place.source, untaken.count, untaken.first)

    def _takes_member(self, file: SourceFile) -> bool:
        if not self.selection or not file.container:
            return True
        name = file.uri.removeprefix(f"{file.container}#")
        return not self.selection.rule(member(name))

    def _rows_of_table(
        self, file: SourceFile, place: Place, notes: Notes, budget: Budget
    ) -> Iterator[SourceFile | Place]:
        """Its rows; one that cannot be read may be a manifest, whose rows may name anything."""

        def left_out(table: str, column: str) -> None:
            notes.tell(
                f"{table}: the column {column} is left out: of tables of images, plain values are "
                "carried, not bytes, lists or structs",
                about=f"{place.source}:{column}",
            )

        for row in image_tables.rows(file, left_out, place.first, place.end, budget):
            if isinstance(row, range):
                for first, end in spread(row.start, row.stop):
                    yield replace(place, first=first, end=end)
                continue
            yield row
            if row.uri == file.uri and self.names_manifests and _is_away(file):
                yield replace(row, hides="")

    def _manifest_rows(
        self, file: SourceFile, place: Place, budget: Budget, keep: Keep | None
    ) -> Iterator[SourceFile | Place]:
        """Its rows, looked up, and blocks of others, which are left."""
        manifest, reach = self._manifest(file), Reach(self.known)
        left: list[pa.Table] = []
        number, whole = 0, True

        def block() -> Place:
            assert keep is not None
            rows = pa.concat_tables(left)
            left.clear()
            first = number - rows.num_rows
            return replace(place, kind="rows", first=first, block=keep(rows))

        for rows in manifest.tables():
            if budget.spent and keep:
                number, whole = number + rows.num_rows, False
                left.append(rows)
                if sum(one.num_rows for one in left) >= _BLOCK_ROWS:
                    yield block()
                continue
            for row in looked_up(manifest.named(rows, number), self.selection, reach):
                budget.take(_REMOTE - 1 if storage.is_remote(row.uri) else 0)
                yield row
            number += rows.num_rows
        if left:
            yield block()
        if whole:
            reach.finish()

    def block(self, place: Place, rows: pa.Table) -> Iterator[SourceFile]:
        """The rows of a block of a manifest, looked up."""
        manifest = self._manifest(place.file)
        named, said = manifest.named(rows, place.first), self._said(place.uri)
        return (
            replace(row, metadata={**said, **row.metadata}) if said else row
            for row in looked_up(named, self.selection, Reach(self.known))
        )

    def _found(
        self, notice: Notice, at: Spot | None = None, budget: Budget | None = None
    ) -> Iterator[tuple[SourceFile, str] | Spot]:
        """What lies there: containers that were named, as "tar", "table" or "manifest", and files.

        A glob names manifests where it ends as they do; `*` finds them among the pictures.
        """
        if self.kind in ("tar", "table", "manifest"):
            yield look_up(self.spec), self.kind
            return
        manifests = self.names_manifests
        for found in walk(self.spec, self.kind, notice, self.selection, at=at, budget=budget):
            if isinstance(found, Spot):
                yield found
                continue
            file, is_named = found
            named = is_named and self.kind == "glob" and not file.problem
            if named and is_tar(file.uri):
                yield file, "tar"
            elif named and is_table(file.uri):
                kind = image_tables.kind_of_table(file.uri)
                yield file, kind if manifests or kind == "table" else "file"
            else:
                yield file, "manifest" if named and manifests else "file"

    @property
    def names_manifests(self) -> bool:
        """Whether it is a glob of manifests, which are checked before all else."""
        return self.kind == "glob" and storage.plain_name(self.spec).lower().endswith(MANIFESTS)

    def may_hold_containers(self) -> bool:
        """Whether any may lie there; not where a glob ends in another suffix."""
        if self.kind != "glob":
            return self.kind in ("tar", "table", "manifest")
        pattern = storage.plain_name(self.spec)
        end = pattern.lower()[max(pattern.rfind(mark) for mark in "*?]") + 1 :]
        return any(
            suffix.endswith(end) or end.endswith(suffix)
            for suffix in (*TAR_SUFFIXES, TABLE_SUFFIX, *MANIFESTS)
        )


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
    if storage.plain_name(spec).lower().endswith(MANIFESTS):  # whose rows may name anything
        starts.append("")
    return (SourceFile(uri, -1, "", problem, hides=start) for start in starts)
