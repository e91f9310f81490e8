"""Tar shards in the WebDataset layout, listed without unpacking: headers and small siblings only.

Consecutive members whose names are equal up to the first dot of the last path part are one sample.
Its `.json` (an object), `.txt` and `.cls` members become metadata columns of its other members.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from lookalike.errors import RequestError, one_line
from lookalike.records import SourceFile
from lookalike.sources.columns import carried, common_type, merge_columns, type_of
from lookalike.sources.tar_members import BrokenTarError, Member, NotATarError, walk
from lookalike.sources.tar_streams import TarStream, open_tar
from lookalike.store import storage

SUFFIXES = (".tar", ".tar.gz", ".tgz")
GROUP = 2048
"""Members of a plain tar that are one piece of work; a gzipped one is read from its beginning, so
it is one piece as a whole."""

_SIBLINGS = ("json", "txt", "cls")
_MAX_SIBLING = 1 << 20  # bytes of a .json, .txt or .cls that is taken for metadata
_MAX_COLUMNS = 256
_MAX_SAMPLE = 1000  # members held at once
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FIRST, _OTHERS = 10_000, 100  # samples from which the columns are told


@dataclass
class _Sample:
    """Members that belong together, and what their siblings say of them."""

    key: bytes | None
    members: list[Member] = field(default_factory=list)
    metadata: dict[str, object] = field(default_factory=dict)
    siblings: set[str] = field(default_factory=set)


def is_tar(uri: str) -> bool:
    """Whether a file's name says that it is a tar shard."""
    path = uri.partition("?")[0] if storage.is_remote(uri) else uri
    return path.lower().endswith(SUFFIXES)


def check_tar(shard: SourceFile) -> None:
    """Is it a tar at all; what is wrong further on is reported by `members`.

    Raises:
        RequestError: It is not, or cannot be read.
    """
    problem = shard.problem
    if not problem:
        try:
            with open_tar(shard.uri) as stream:
                next(walk(stream), None)
        except (NotATarError, OSError) as error:
            problem = one_line(error)
        except BrokenTarError:
            return
    if problem:
        raise RequestError(f"{shard.uri}: not readable as a tar shard: {problem}")


def members(shard: SourceFile) -> Iterator[SourceFile]:
    """The files in a tar shard, in order, and last the shard itself where it is damaged.

    Names are names: nothing is unpacked, so `..` leads nowhere. Links and devices are no files.
    """
    if shard.problem:
        yield shard
        return
    names, listed = _Names(), 0
    problem = ""
    try:
        with open_tar(shard.uri) as stream:
            samples = _samples(stream)
            while True:
                try:
                    sample = next(samples)
                except StopIteration as end:
                    problem = end.value
                    break
                for member in sample.members:
                    yield SourceFile(
                        f"{shard.uri}#{names.unique(member)}",
                        member.bytes,
                        f"{shard.version}+{member.offset}",
                        member.problem,
                        sample.metadata,
                        shard.uri,
                        member.offset,
                        listed // GROUP if stream.seekable else 0,
                    )
                    listed += 1
    except OSError as error:
        problem = error.strerror or one_line(error)
    if problem:
        yield SourceFile(shard.uri, shard.bytes, shard.version, problem)


def metadata_schema(shards: Iterable[SourceFile]) -> pa.Schema:
    """Metadata columns of shards, told from much of the first and the beginning of the others."""
    schemas: list[pa.Schema] = []
    for number, shard in enumerate(shards):
        schema = merge_columns([*schemas, _shard_schema(shard, _OTHERS if number else _FIRST)])
        schemas = [pa.schema(list(schema)[:_MAX_COLUMNS])]
    return pa.schema(
        [
            (column.name, pa.string() if pa.types.is_null(column.type) else column.type)
            for schema in schemas
            for column in schema
        ]
    )


def _shard_schema(shard: SourceFile, samples: int) -> pa.Schema:
    types: dict[str, set[pa.DataType]] = {"__key__": {pa.string()}}
    try:
        with open_tar(shard.uri) as stream:
            for sample in islice(_samples(stream), samples):
                for name, value in sample.metadata.items():
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
        name = _text(member.name)
        while (digest := _hash(name)) in self._seen:
            name += f"@{member.offset}"
        self._seen.add(digest)
        return name


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _text(name: bytes) -> str:
    """As `storage.uri_from_path`: UTF-8 as it is, other names percent-encoded."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return quote(name, safe="/ !$&'()*+,;=:@~")


# --- samples ----------------------------------------------------------------------------------


def _samples(stream: TarStream) -> Generator[_Sample, None, str]:
    """Samples in order; returns what is wrong with the tar where it ends, "" if nothing is."""
    sample = _Sample(None)
    problem = ""
    try:
        for member in walk(stream):
            key, extension = _split(member.name)
            if sample.members or sample.siblings:
                other = key is None or key != sample.key
                if other or len(sample.members) >= _MAX_SAMPLE:
                    yield _finished(sample)
                    sample = _Sample(key)
            sample.key = key
            if not _take_sibling(stream, sample, member, extension):
                sample.members.append(member)
    except BrokenTarError as error:
        problem = one_line(error, limit=1000)
    except OSError as error:
        problem = error.strerror or one_line(error)
    yield _finished(sample)
    return problem


def _split(name: bytes) -> tuple[bytes | None, str]:
    """Key and extension, as WebDataset splits names at the first dot of the last part.

    Where that part begins with the dot there is no key, and the member is a sample of its own.
    """
    folder, slash, last = name.rpartition(b"/")
    stem, dot, extension = last.partition(b".")
    if not (stem and dot):
        return None, ""
    return folder + slash + stem, extension.decode("utf-8", "replace").lower()


def _finished(sample: _Sample) -> _Sample:
    if sample.key is not None:
        sample.metadata["__key__"] = _text(sample.key)
    return sample


def _take_sibling(stream: TarStream, sample: _Sample, member: Member, extension: str) -> bool:
    """Read a member that is metadata; what cannot be read as such is a member like others."""
    if extension not in _SIBLINGS or sample.key is None or extension in sample.siblings:
        return False
    if member.bytes > _MAX_SIBLING or member.problem:
        return False
    data = stream.read(member.bytes)
    if len(data) < member.bytes:
        return False
    if extension == "json":
        found = _json_columns(data)
        if found is None:
            return False
        sample.metadata = {**found, **sample.metadata}  # the other siblings' names are their own
    else:
        text = data.decode("utf-8", "replace")
        label = text.strip()
        is_number = extension == "cls" and _INTEGER.fullmatch(label)
        sample.metadata[extension] = int(label) if is_number else text
    sample.siblings.add(extension)
    return True


def _json_columns(data: bytes) -> dict[str, object] | None:
    """The columns of a JSON object, None where it is none."""
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            return None
        return {carried(_clean(key)): _plain(one) for key, one in value.items()}
    except (ValueError, RecursionError):
        return None


def _plain(value: Any) -> object:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if type_of(value) == pa.int64() else str(value)
    return _clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    """Without the half characters that JSON can name and no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
