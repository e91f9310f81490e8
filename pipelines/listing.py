"""Listing the sources of a run: the beginning of it here, and what is left by tasks, in rounds.

A small source is listed in this process. Of a large one this finds the places, and each task lists
its own, as far as its limits reach, and leaves what is below for the next round. What is held here
are the names of parts and places; their order is that of the sources, and of the names in them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import pyarrow as pa

from lookalike.errors import RequestError
from lookalike.pipelines.tasks import TaskRunner
from lookalike.sources.listing import Listing, ListPart, ListTask, list_places, listing_of
from lookalike.sources.places import Notes, Place
from lookalike.sources.source import Source
from lookalike.store.attempts import Record
from lookalike.store.columns import merge_columns
from lookalike.work import Counts, TaskWork

_HERE_ROWS, _HERE_BYTES = 1_000_000, 64 << 20  # listed in this process; the latter of tars
_TASK_ROWS = 10_000_000
_TASK_BYTES = 256 << 20  # of tars and the like that are listed together
_TOGETHER = 256  # tars and the like of one task

Piece = ListPart | Place
_NO_COLUMNS = pa.schema([])


@dataclass
class SourceListing:
    """Lists sources into the scratch of a run.

    Attributes:
        task_runner: Has tasks of the run done, and tells what was left out.
        folder: Of the listing, relative to the store.
        sources: In order.
    """

    task_runner: TaskRunner
    folder: str
    sources: Sequence[Source]
    _rounds: int = field(default=0)

    def run(self) -> tuple[Listing, pa.Schema]:
        """The listing, and the metadata columns.

        Raises:
            RequestError: A source changed while it was read.
            UnreachableError, EngineError: One cannot be listed.
        """
        self._notes = Notes(self.task_runner.progress.say)
        sources = list(self.sources)
        pieces: list[Piece] = [Place(number) for number in range(len(sources))]
        # Which columns there are, the containers tell that a glob holds: it is walked before.
        unsure = {
            number
            for number, source in enumerate(sources)
            if source.kind == "glob" and source.may_hold_containers()
        }
        for number in unsure:
            sources[number] = sources[number].holding([])
        pieces = self._listed(pieces, sources, _NO_COLUMNS, unsure)
        for number in unsure:
            places = (one for one in pieces if isinstance(one, Place) and one.source == number)
            sources[number] = sources[number].holding([(one.file, one.kind) for one in places])
        metadata = merge_columns(source.metadata for source in sources)
        if metadata.names:
            pieces = [_bare(one) if isinstance(one, ListPart) else one for one in pieces]
        pieces = self._listed(pieces, sources, metadata, None)
        self._notes.finish()
        return listing_of([one for one in pieces if isinstance(one, ListPart)]), metadata

    def _listed(
        self,
        pieces: list[Piece],
        sources: Sequence[Source],
        metadata: pa.Schema,
        walked: Collection[int] | None,
    ) -> list[Piece]:
        """The parts in place of the places; of sources to be `walked`, containers stay places."""

        def wanted(piece: Piece) -> bool:
            if not isinstance(piece, Place):
                return False
            return walked is None or (piece.source in walked and not piece.is_container)

        tars = -1 if walked is not None else _HERE_BYTES
        rows: float = _HERE_ROWS
        here = True
        while any(map(wanted, pieces)):
            groups = [(is_wanted, list(run)) for is_wanted, run in groupby(pieces, wanted)]
            cut = [
                (is_wanted, some)
                for is_wanted, run in groups
                for some in (_together(run) if is_wanted and not here else [run])
            ]
            tasks = [
                self._task(number, some, rows, tars)
                for number, some in enumerate(some for is_wanted, some in cut if is_wanted)
            ]
            if here:
                records = [
                    list_places(task, self.task_runner.store, sources, metadata) for task in tasks
                ]
            else:
                work = partial(list_places, sources=sources, metadata=metadata)
                listing = TaskWork("list", self.task_runner.store, work, counts=_counts)
                records = self.task_runner.run(("list", "places"), tasks, listing)
            found = iter(records)
            pieces = [
                piece
                for is_wanted, some in cut
                for piece in (self._found(next(found)) if is_wanted else some)
            ]
            self._rounds += 1
            here, rows = False, _TASK_ROWS
            tars = tars if walked is not None else _TASK_BYTES
        return pieces

    def _task(self, number: int, places: Iterable[Piece], rows: float, tars: float) -> ListTask:
        name = f"{self._rounds:02d}-{number:06d}"
        return ListTask(
            number,
            tuple(one for one in places if isinstance(one, Place)),
            output=f"{self.folder}/{name}",
            done=f"{self.folder}/listed/{name}.json",
            rows=rows,
            bytes=tars,
        )

    def _found(self, record: Record) -> Iterator[Piece]:
        if why := record.get("refused"):
            raise RequestError(why)
        self._notes.merge(record["notes"])
        for one in record["pieces"]:
            yield ListPart(**one["part"]) if "part" in one else Place.from_json(one["place"])


def _together(places: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Places in tasks: small containers, and parts, some at a time."""
    some: list[Piece] = []
    size = 0
    for place in places:
        assert isinstance(place, Place)
        small = place.kind in ("tar", "table", "part") and place.end < 0
        if some and (not small or size + place.bytes > _TASK_BYTES or len(some) == _TOGETHER):
            yield some
            some, size = [], 0
        some.append(place)
        size += max(0, place.bytes) if small else _TASK_BYTES
    if some:
        yield some


def _bare(part: ListPart) -> Place:
    """A part without metadata columns, to be written anew."""
    return Place(0, "part", block={"path": part.path, "sha256": part.sha256})


def _counts(record: Record) -> Counts:
    """What a task has listed."""
    pieces = record.get("pieces", ())
    return {
        "files": sum(one["part"]["rows"] for one in pieces if "part" in one),
        "places": sum("place" in one for one in pieces),
    }
