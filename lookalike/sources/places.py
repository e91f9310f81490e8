"""How a listing is shared out: what a task has not listed itself, it leaves as places for others.

A place is a folder, a range of its names, a range of keys, a container, some of its rows. Taken in
order, the rows that were listed and those of the places between them are the source's, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from lookalike.errors import one_line
from lookalike.records import SourceFile

Notice = Callable[[str], None]

FEW = 1000
"""Files that are worth a place: fewer are listed where they are found."""
_RANGES = 64  # places that what is left of one folder makes, at most
_NOTICES = 20


@dataclass(frozen=True)
class Spot:
    """A folder, or a range of what lies in it, where a walk goes on.

    Attributes:
        path: Of the folder: a local path as `os.fsdecode` gives it, or a URI; "" on S3.
        after: Names up to this one are done, "" for none; on S3 whole keys.
        until: The last name of the range; "" where it has no end.
        globs: Parts of the source's pattern that names in the folder are held against.
        match: The folder above that the pattern matched, None where none has yet.
    """

    path: str
    after: str = ""
    until: str = ""
    globs: tuple[str, ...] = ()
    match: str | None = None

    def to_json(self) -> list[str]:
        """As records hold it, percent-encoded: names need be no Unicode, and JSON must."""
        match = [] if self.match is None else [self.match]
        texts = [self.path, self.after, self.until, str(len(match)), *match, *self.globs]
        return [quote(text.encode("utf-8", "surrogateescape"), safe="/") for text in texts]

    @classmethod
    def from_json(cls, data: Sequence[str]) -> Spot:
        """Undo `to_json`."""
        texts = (unquote_to_bytes(text).decode("utf-8", "surrogateescape") for text in data)
        path, after, until, matched, *rest = texts
        count = int(matched)
        return cls(path, after, until, tuple(rest[count:]), rest[0] if count else None)


@dataclass(frozen=True)
class Place:
    """Something of a source that can be listed by itself.

    Attributes:
        source: Number of the source.
        kind: "source" for all of it; "walk" for a spot; "tar", "table" or "manifest" for a
            container; "rows" for some of a manifest's, "part" for rows that lack the metadata
            columns.
        spot: Where a walk goes on.
        bytes: Its size.
        first: The first row group of a table to list; of a manifest, the first row's number.
        end: The row group after the last one; -1 for all.
        block: The record of the file that holds the rows.
    """

    source: int
    kind: str = "source"
    spot: Spot | None = None
    uri: str = ""
    bytes: int = -1
    version: str = ""
    first: int = 0
    end: int = -1
    block: Mapping[str, Any] | None = None

    @property
    def file(self) -> SourceFile:
        """The container."""
        return SourceFile(self.uri, self.bytes, self.version)

    @property
    def is_container(self) -> bool:
        """Whether it is one, or some of its rows."""
        return self.kind in ("tar", "table", "manifest", "rows")

    def to_json(self) -> dict[str, Any]:
        """As records hold it."""
        spot = None if self.spot is None else self.spot.to_json()
        return {**asdict(self), "spot": spot}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Place:
        """Undo `to_json`."""
        spot = None if data["spot"] is None else Spot.from_json(data["spot"])
        return cls(**{**data, "spot": spot})


@dataclass
class Budget:
    """How much a task lists itself; the rest it leaves. Without limits, it lists all.

    Attributes:
        rows: That may still be listed, as many of a local folder.
        bytes: Of tars that may still be opened.
    """

    rows: float = float("inf")
    bytes: float = float("inf")

    def take(self, rows: float = 1) -> None:
        """Some are listed."""
        self.rows -= rows

    @property
    def spent(self) -> bool:
        """Whether the rest is for others."""
        return self.rows <= 0

    def admits(self, size: int) -> bool:
        """Whether a container of that size is opened here."""
        if self.spent or size > self.bytes:
            return False
        self.bytes -= max(0, size)
        return True


def ranges(
    names: Sequence[str], after: str, until: str, folders: int | None = None
) -> Iterator[tuple[str, str]]:
    """What is left of a folder as ranges of names, about equally many: (after, until).

    Args:
        names: Those left, ascending.
        after: The one before them, "" if there is none.
        until: The end of the range that they are of.
        folders: How many of them are folders; None for all. A thousand files count as one.
    """
    worth = len(names) if folders is None else folders + -(-(len(names) - folders) // FEW)
    count = max(1, min(_RANGES, worth))
    ends = [names[len(names) * number // count - 1] for number in range(1, count)]
    yield from zip([after, *ends], [*ends, until], strict=True)


def spread(first: int, end: int) -> Iterator[tuple[int, int]]:
    """Numbers `first` up to `end` as a few ranges: (first, end)."""
    count = max(1, min(_RANGES, end - first))
    bounds = [first + (end - first) * number // count for number in range(count + 1)]
    yield from pairwise(bounds)


@dataclass
class Notes:
    """What a listing has to say: told at once, or by the records of tasks."""

    notice: Notice = field(default=lambda line: None)
    told: list[list[str]] = field(default_factory=list)
    untaken: dict[str, tuple[int, str]] = field(default_factory=dict)
    _about: set[str] = field(default_factory=set)
    _lost: int = 0

    def tell(self, line: str, about: str = "") -> None:
        """Say a line; of what it is about, only the first one."""
        if about in self._about:
            return
        self._about.update([about] if about else [])
        self.told.append(["said", about, line])
        self.notice(line)

    def lost(self, name: str, line: str) -> None:
        """Say once of a metadata column what is left out, and of some columns at most."""
        about = f"lost:{name}"
        if about in self._about or self._lost > _NOTICES:
            return
        self._about.add(about)
        self._lost += 1
        self.told.append(["lost", name, line])
        self.notice(
            one_line(ValueError(line))
            if self._lost <= _NOTICES
            else "metadata left out: further columns"
        )

    def take(self, source: int | str, count: int, first: str) -> None:
        """Count sidecars of a source's tars that gave nobody metadata; `first` says of one why."""
        had, known = self.untaken.get(str(source), (0, ""))
        self.untaken[str(source)] = had + count, known or first

    def finish(self) -> None:
        """Say what was counted."""
        for count, first in self.untaken.values():
            what = f"{count:,} .json, .txt or .cls members of tars are no metadata"
            self.notice(one_line(ValueError(f"{what}, the first is {first}"), limit=1000))
        self.untaken.clear()

    def to_json(self) -> dict[str, Any]:
        """As records hold it."""
        return {"told": self.told, "untaken": self.untaken}

    def merge(self, data: Mapping[str, Any]) -> None:
        """Say what a record holds."""
        for kind, about, line in data["told"]:
            if kind == "lost":
                self.lost(about, line)
            else:
                self.tell(line, about)
        for source, (count, first) in data["untaken"].items():
            self.take(source, count, first)
