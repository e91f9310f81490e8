"""The scratch of an unfinished run: what was planned, and which units are done.

A run is found again by what was asked for (sources, config, models, parent snapshot), so the same
command continues it. Its scan is kept: the run finishes the files it listed, and what changed since
is the next run's work.

    runs/<name>/plan.json        what its scan fixed; says in which folder it began
    runs/<name>/<begun>/         everything else, another folder each time that it starts anew

If a run is begun anew, an attempt that still goes on from the earlier start writes into the earlier
folder, which nobody reads any more.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from lookalike.records import Unit
from lookalike.store.attempts import Record, named_files
from lookalike.store.objects import Store
from lookalike.store.sweeping import PLAN, notes_of, sweep_run


@dataclass(frozen=True)
class Plan:
    """What a finished scan fixed, for the run and all that resume it.

    Attributes:
        snapshot: Name of the snapshot it will publish.
        started: When the scan began (UTC, ISO 8601).
        listed: Files listed.
        candidates: Those that are new, or must be looked at again.
        gone: Files of the parent's ledger that are not listed any more.
        listing_digest: sha256 over the names, sizes and versions of all files listed.
        listing: The files of the listing.
        cut: Numbers of the first work units of each partition that was cut, and last how many there
            are in all.
        first_file_no: File number of unit 0; unit i has first_file_no + i.
        unknown: Files of the parent's ledger of which nobody can tell.
        shifted: Rows that stand, of which that changed (see `one_partition.Comparison`).
    """

    snapshot: str
    started: str
    listed: int
    candidates: int
    gone: int
    listing_digest: str
    listing: tuple[str, ...]
    cut: tuple[int, ...]
    first_file_no: int
    metadata: pa.Schema
    unknown: int = 0
    shifted: int = 0

    @property
    def units(self) -> int:
        """Number of work units."""
        return self.cut[-1]

    def to_json(self) -> Record:
        """As plan.json holds it."""
        schema = base64.b64encode(self.metadata.serialize().to_pybytes()).decode()
        return {**self.__dict__, "metadata": schema}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Undo `to_json`."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(data["metadata"])))
        lists = {name: tuple(data[name]) for name in ("listing", "cut")}
        return cls(**{**data, **lists, "metadata": schema})


@dataclass(frozen=True)
class UnitNames:
    """Where everything of a run's units lies, by their numbers: all that workers need."""

    folder: str
    run: str
    first_file_no: int
    cut: tuple[int, ...]

    @property
    def cut_in(self) -> str:
        """Where units were cut."""
        return f"{self.folder}/units"

    def unit(self, number: int) -> Unit:
        """One unit."""
        file_no = self.first_file_no + number
        return Unit(
            number,
            file_no,
            shard=f"embeddings/{file_no:08d}-{self.run}",
            ledger=f"{self.folder}/ledger/{number:06d}",
            done=f"{self.folder}/embedded/{number:06d}.json",
        )


@dataclass
class Run:
    """One run's scratch, below STORE/runs/<name>; every path it gives is relative to the store.

    Attributes:
        name: By what was asked for.
        begun: Which of its starts this is; "" before `plan` has found one, or `start` made one.
    """

    store: Store
    name: str
    begun: str = ""
    _done: dict[int, Record] = field(default_factory=dict)

    @classmethod
    def for_request(cls, store: Store, request: Mapping[str, Any]) -> Run:
        """The run that a request starts or continues."""
        text = json.dumps(request, sort_keys=True, default=str)
        return cls(store, hashlib.sha256(text.encode()).hexdigest()[:16])

    @property
    def folder(self) -> str:
        """Of everything that this start makes, and that is gone after publication.

        Raises:
            RuntimeError: There is no start yet.
        """
        if not self.begun:
            raise RuntimeError(f"run {self.name} was neither started nor found")
        return f"runs/{self.name}/{self.begun}"

    def noted(self, name: str = PLAN) -> Record | None:
        """What the note says that makes this run one to be continued; None where there is none."""
        found = self.store.read(f"runs/{self.name}/{name}")
        if found is None:
            return None
        data: dict[str, Any] = json.loads(found.data)
        self.begun = data.pop("begun", "")
        return data if self.begun else None  # else it is of an earlier version: its files differ

    def note(self, data: Mapping[str, Any], name: str = PLAN) -> None:
        """Write the note, when all that it tells of is there."""
        self.store.write_json(f"runs/{self.name}/{name}", {**data, "begun": self.begun})

    def plan(self) -> Plan | None:
        """The plan, once the scan has finished."""
        data = self.noted()
        return Plan.from_json(data) if data else None

    def start(self) -> None:
        """Begin anew, in another folder; what an earlier start left goes.

        Its files that no snapshot lists go at the end: to look for them is to list the store.
        """
        self._remove_scratch()
        self.begun = uuid.uuid4().hex[:12]

    def commit_plan(self, plan: Plan) -> None:
        """Write the plan, last of the scan."""
        self.note(plan.to_json())

    def refuse(self) -> None:
        """Note that the run came to its end and was not published."""
        self.store.write_json(f"{self.folder}/refused.json", {})

    @property
    def refused(self) -> bool:
        """Whether it came to its end before, and was not published."""
        return self.store.has(f"{self.folder}/refused.json")

    def names(self, plan: Plan) -> UnitNames:
        """Where everything of the units lies."""
        return UnitNames(self.folder, self.name, plan.first_file_no, plan.cut)

    def units(self, plan: Plan) -> Iterator[Unit]:
        """All units, in order."""
        return map(self.names(plan).unit, range(plan.units))

    def done(self, stage: str) -> dict[int, Record]:
        """Records of a stage ("embedded", "encoded") by number."""
        return self._read(self.store.files(f"{self.folder}/{stage}", ".json"))

    def files_done(self) -> int:
        """Files of the units embedded so far; cheap enough to ask often."""
        there = self.store.files(f"{self.folder}/embedded", ".json")
        new = self._read([path for path in there if number_of(path) not in self._done])
        self._done.update({number: record["counts"] for number, record in new.items()})
        return sum(counts["listed"] for counts in self._done.values())

    def _read(self, paths: Sequence[str]) -> dict[int, Record]:
        found = zip(paths, self.store.read_all(paths), strict=True)
        return {number_of(path): json.loads(one.data) for path, one in found if one is not None}

    def sweep(self) -> None:
        """Remove this run's files that no record names, once all of a stage have theirs.

        They are of attempts whose record was not the first. One that still goes on may leave
        others, which go when the next stage is done, or with the scratch, or by `gc`.
        """
        records = self.store.read_all(self.store.files(self.folder, ".json"))
        named = (named_files(json.loads(one.data)) for one in records if one is not None)
        sweep_run(self.store, self.name, {path for one in named for path in one})

    def finish(self) -> None:
        """Remove the scratch, of all starts, and the run's files that no snapshot lists."""
        self._remove_scratch()
        sweep_run(self.store, self.name, ())

    def _remove_scratch(self) -> None:
        # first of all, and for good: what is removed in part must not be continued
        self.store.delete(notes_of(self.store, self.name))
        self.store.delete_below(f"runs/{self.name}")


def number_of(path: str) -> int:
    """Of a record, by its name."""
    return int(PurePosixPath(path).stem)
