"""Members of a tar with the metadata that lie beside them, as WebDataset lays them out.

A sample is a run of members whose names are equal up to the first dot of the last part: its key. A
name that comes again begins another sample. Members without a key (no dot, or one at the beginning,
as of what macOS adds) may lie between.

A sidecar (`.json`, `.txt`, `.cls`) belongs to those members of its sample whose names go on with a
dot where its own has its suffix: `000.json` to `000.jpg` and `000.seg.png`, `track 2.0.json` to
`track 2.0.jpg` and not to `track 2.1.jpg`. Of several of one kind the longest name counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from lookalike.errors import one_line
from lookalike.sources.tar_members import (
    BrokenTarError,
    Member,
    Places,
    leads_nowhere,
    name_hash,
    walk,
)
from lookalike.sources.tar_streams import TarStream
from lookalike.store.columns import carried, type_of

_SIDECARS = ("json", "txt", "cls")  # in this order: what a later one gives counts
_MAX_SIDECAR = 1 << 20  # bytes
_MAX_HELD = 1000  # members, which wait for sidecars after them
_MAX_HELD_BYTES = 32 << 20  # of sidecars
_PASSES = 40  # over links to links
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

Metadata = dict[str, object]
Described = tuple[Member, Metadata]
Note = Callable[[Member, str], None]
"""Told of a sidecar that gave no metadata, and why; it is a member like others then."""


def describe(
    stream: TarStream, note: Note = lambda member, why: None
) -> Generator[Described, None, str]:
    """Members with their metadata, roughly in order; sidecars that gave them are left out.

    Links are given as the files that they stand for, or with the problem that they do for none;
    those to a member further on come last.

    Returns:
        What is wrong with the tar where it ends, "" if nothing is.
    """
    sample, places, problem = _Sample(None, note), Places(), ""
    links: list[Described] = []
    try:
        for member in walk(stream):
            is_link = bool(member.link)
            if is_link:
                member = places.resolve(member) or member
            if not member.link:
                places.add(member)
            key, _ = split(member.name)
            if key is not None and (key != sample.key or sample.has_had(member.name)):
                yield from _without_links(sample.given(), links)
                sample = _Sample(key, note)
            elif sample.is_full():
                yield from _without_links(sample.given(half=True), links)
            sample.add(member, _sidecar(stream, member, is_link, note))
    except BrokenTarError as error:
        problem = one_line(error, limit=1000)
    except OSError as error:
        problem = error.strerror or one_line(error)
    yield from _without_links(sample.given(), links)
    yield from _resolved(links, places)
    return problem


def split(name: bytes) -> tuple[bytes | None, str]:
    """Key and extension, as WebDataset splits names at the first dot of the last part.

    Where that part has no dot, or begins with it, there is no key.
    """
    folder, slash, last = name.rpartition(b"/")
    stem, dot, extension = last.partition(b".")
    if not (stem and dot):
        return None, ""
    return folder + slash + stem, extension.decode("utf-8", "replace").lower()


def name_text(name: bytes) -> str:
    """As `storage.uri_from_path`: UTF-8 as it is, other names percent-encoded."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return quote(name, safe="/ !$&'()*+,;=:@~")


# --- links --------------------------------------------------------------------------------------


def _without_links(rows: Iterable[Described], links: list[Described]) -> Iterator[Described]:
    """The rows but for links that were not resolved yet, which are put aside."""
    for row in rows:
        if row[0].link:
            links.append(row)
        else:
            yield row


def _resolved(links: list[Described], places: Places) -> Iterator[Described]:
    """Links to members after them, now that all are known, and those that lead nowhere."""
    for _ in range(_PASSES):
        left = []
        for link, metadata in links:
            if found := places.resolve(link):
                places.add(found)
                yield found, metadata
            else:
                left.append((link, metadata))
        if len(left) == len(links):
            break
        links = left[::-1]  # a chain that runs the other way is resolved at once
    yield from ((leads_nowhere(link), metadata) for link, metadata in links)


# --- samples ------------------------------------------------------------------------------------


@dataclass
class _Sidecar:
    """What a sidecar says of the members whose names begin with its own up to the suffix."""

    stem: bytes
    kind: str
    columns: Metadata
    bytes: int
    taken: bool = False
    stayed: bool = False


class _Sample:
    """Members that wait, as a sidecar may come; a bounded number, also of a sample without end."""

    def __init__(self, key: bytes | None, note: Note) -> None:
        self.key, self._note = key, note
        self._held: list[tuple[Member, _Sidecar | None]] = []
        self._sidecars: dict[tuple[bytes, str], _Sidecar] = {}
        self._bytes = 0  # of the sidecars
        self._names: set[int] = set()

    def has_had(self, name: bytes) -> bool:
        return name_hash(name) in self._names

    def is_full(self) -> bool:
        return len(self._held) >= _MAX_HELD or self._bytes > _MAX_HELD_BYTES

    def add(self, member: Member, sidecar: _Sidecar | None) -> None:
        self._names.add(name_hash(member.name))
        if sidecar and (sidecar.stem, sidecar.kind) in self._sidecars:
            self._note(member, "another one lies beside the same members")
            sidecar = None
        if sidecar:
            self._sidecars[sidecar.stem, sidecar.kind] = sidecar
            self._bytes += sidecar.bytes
        self._held.append((member, sidecar))

    def given(self, *, half: bool = False) -> Iterator[Described]:
        """The members that wait, or half of them, which wait no more.

        Sidecars in that half stay once, as their pictures may come next.
        """
        metadata = [
            {} if sidecar else self._metadata(member.name) for member, sidecar in self._held
        ]
        count = len(self._held) // 2 if half else len(self._held)
        stay: list[tuple[Member, _Sidecar | None]] = []
        for (member, sidecar), columns in zip(self._held[:count], metadata, strict=False):
            if sidecar is None:
                yield member, columns
            elif half and not sidecar.stayed:
                sidecar.stayed = True
                stay.append((member, sidecar))
            else:
                yield from self._dropped(member, sidecar)
        self._held[:count] = stay

    def _dropped(self, member: Member, sidecar: _Sidecar) -> Iterator[Described]:
        if sidecar.stem != self.key:  # else it is for all that may come
            del self._sidecars[sidecar.stem, sidecar.kind]
        self._bytes -= sidecar.bytes
        if not sidecar.taken:
            self._note(member, "no picture of its name lies beside it")
            yield member, {}

    def _metadata(self, name: bytes) -> Metadata:
        key, _ = split(name)
        if key is None:
            return {}
        columns: Metadata = {}
        for kind in _SIDECARS:
            end = len(name)
            while (end := name.rfind(b".", len(key), end)) >= 0:
                if sidecar := self._sidecars.get((name[:end], kind)):
                    sidecar.taken = True
                    columns.update(sidecar.columns)
                    break
        return {**columns, "__key__": name_text(key)}


# --- sidecars -----------------------------------------------------------------------------------


def _sidecar(stream: TarStream, member: Member, is_link: bool, note: Note) -> _Sidecar | None:
    """A sidecar that was read; None for other members, and one that cannot be read as such."""
    key, _ = split(member.name)
    stem, _, suffix = member.name.rpartition(b".")
    kind = suffix.decode("utf-8", "replace").lower()
    if key is None or kind not in _SIDECARS:
        return None
    columns, why = None, member.problem
    if member.bytes > _MAX_SIDECAR:
        why = f"it has {member.bytes:,} bytes, the limit is {_MAX_SIDECAR:,}"
    elif member.link:
        why = "what it links to does not lie before it"
    elif is_link and not stream.seekable:
        why = "it is a link, which is not followed in a gzipped tar"
    if not why:
        data = _read(stream, member, is_link)
        columns = _columns(kind, data) if len(data) == member.bytes else None
        why = "it is no JSON object" if len(data) == member.bytes else "the tar ends within it"
    if columns is None:
        note(member, why)
        return None
    return _Sidecar(stem, kind, columns, member.bytes)


def _read(stream: TarStream, member: Member, is_link: bool) -> bytes:
    if not is_link:
        return stream.read(member.bytes)
    here = stream.position
    stream.seek(member.offset)
    data = stream.read(member.bytes)
    stream.seek(here)
    return data


def _columns(kind: str, data: bytes) -> Metadata | None:
    """What a sidecar says; None for JSON that is no object."""
    if kind == "json":
        return _json_columns(data)
    text = data.decode("utf-8-sig", "replace")
    is_number = kind == "cls" and _INTEGER.fullmatch(text.strip())
    return {kind: int(text) if is_number else text}


def _json_columns(data: bytes) -> Metadata | None:
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
