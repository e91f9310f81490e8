"""Tar shards in the WebDataset layout, listed without unpacking: headers and small sidecars only.

`.json` (an object), `.txt` and `.cls` members become metadata columns of the members that they lie
beside (see `tar_samples`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from itertools import chain, islice, repeat

import pyarrow as pa

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.records import SourceFile, container_start
from lookalike.sources.tar_members import BrokenTarError, Member, NotATarError, name_hash, walk
from lookalike.sources.tar_samples import describe, name_text
from lookalike.sources.tar_streams import open_tar
from lookalike.store.columns import common_type, merge_columns, type_of

GROUP = 2048
"""Members of a plain tar that are one piece of work; a gzipped one is read from its beginning, so
it is one piece as a whole."""

_MAX_COLUMNS = 256
_AT_ONCE = 16  # shards that are looked into
_FIRST, _OTHERS = 10_000, 100  # members from which the columns are told


class Untaken:
    """Counts sidecars that gave nobody metadata, to tell of all of them in one line."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def add(self, shard: SourceFile, member: Member, why: str) -> None:
        """Take one, and why."""
        self.first = self.first or f"{shard.uri}#{name_text(member.name)}: {why}"
        self.count += 1


def check_tar(shard: SourceFile) -> None:
    """Is it a tar at all; what is wrong further on is reported by `members`.

    Raises:
        UnreachableError: It cannot be read.
        RequestError: It is none.
    """
    said = f"{shard.uri}: not readable as a tar shard"
    if shard.problem:
        raise (UnreachableError if shard.hides else RequestError)(f"{said}: {shard.problem}")
    try:
        with open_tar(shard.uri) as stream:
            next(walk(stream), None)
    except NotATarError as error:
        raise RequestError(f"{said}: {one_line(error)}") from error
    except BrokenTarError:
        return
    except UnreachableError:
        raise
    except OSError as error:
        raise UnreachableError(f"{said}: {error.strerror or one_line(error)}") from error


def members(shard: SourceFile, untaken: Untaken | None = None) -> Iterator[SourceFile]:
    """The files in a tar shard, in order, and last the shard itself where it is damaged.

    Names are names: nothing is unpacked, so `..` leads nowhere. A link is the file that it stands
    for in the tar; one that stands for none, and a device, has its problem. `untaken` is told of
    sidecars that are no metadata.
    """
    if shard.problem:
        yield replace(shard, hides=container_start(shard))
        return
    names, listed, told = _Names(), 0, untaken or Untaken()
    problem = ""
    try:
        with open_tar(shard.uri) as stream:
            found = describe(stream, lambda member, why: told.add(shard, member, why))
            while True:
                try:
                    member, metadata = next(found)
                except StopIteration as end:
                    problem = end.value
                    break
                yield SourceFile(
                    f"{shard.uri}#{names.unique(member)}",
                    member.bytes,
                    f"{shard.version}+{member.offset}",
                    member.problem,
                    metadata,
                    shard.uri,
                    member.offset,
                    listed // GROUP if stream.seekable else 0,
                )
                listed += 1
    except OSError as error:
        problem = error.strerror or one_line(error)
    if problem:
        hides = container_start(shard)
        yield SourceFile(shard.uri, shard.bytes, shard.version, problem, hides=hides)


def metadata_schema(shards: Iterable[SourceFile]) -> pa.Schema:
    """Metadata columns of shards, told from much of the first and the beginning of the others."""
    schemas: list[pa.Schema] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # of very many shards on object storage
        for found in pool.map(_shard_schema, shards, chain([_FIRST], repeat(_OTHERS))):
            schemas = [pa.schema(list(merge_columns([*schemas, found]))[:_MAX_COLUMNS])]
    return pa.schema(
        [
            (column.name, pa.string() if pa.types.is_null(column.type) else column.type)
            for schema in schemas
            for column in schema
        ]
    )


def _shard_schema(shard: SourceFile, count: int) -> pa.Schema:
    types: dict[str, set[pa.DataType]] = {"__key__": {pa.string()}}
    try:
        with open_tar(shard.uri) as stream:
            for _, metadata in islice(describe(stream), count):
                for name, value in metadata.items():
                    if name in types or len(types) < _MAX_COLUMNS:
                        types.setdefault(name, set()).add(type_of(value))
    except OSError:
        return pa.schema([])  # listed with its problem
    return pa.schema(
        [(name, reduce(common_type, sorted(kinds, key=str))) for name, kinds in types.items()]
    )


class _Names:
    """Names of members as URIs hold them; one that occurred before gets its offset added."""

    def __init__(self) -> None:
        self._seen: set[int] = set()  # hashes: a shard may hold very many

    def unique(self, member: Member) -> str:
        """The name of the next member."""
        name = name_text(member.name)
        while (digest := name_hash(name.encode())) in self._seen:
            name += f"@{member.offset}"
        self._seen.add(digest)
        return name
