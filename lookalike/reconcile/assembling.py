"""The ledger of a snapshot: what stands from the last one, with what a run resolved in its place.

    carried rows, resolved rows -> a partition of names, sorted -> ledger file
                                                                -> duplicates, by id -> their files

A file of the ledger is one partition of names (see `partitions`), so memory holds one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lookalike.distances import Ids
from lookalike.reconcile.concluding import RESOLVED
from lookalike.reconcile.resolving import read_renames
from lookalike.reconcile.sampled import SAMPLES, Sampled
from lookalike.reconcile.settling import Resolved, ledger_rows, read_rows
from lookalike.reconcile.standing import file_that_stands, standing
from lookalike.store import duplicates
from lookalike.store.attempts import Record, finished, once
from lookalike.store.exchange import Dealing, Reference, taken
from lookalike.store.files import HashedName
from lookalike.store.ledger import SCHEMA, Counts, as_known, with_column, write_ledger_tables
from lookalike.store.manifest import FileJson, FileLine
from lookalike.store.meeting import Meet, Meeting
from lookalike.store.moving import Moving
from lookalike.store.objects import Store

_SLICE_ROWS = 1 << 16  # of a row group
_WRITTEN = 8  # rows are written in the time in which one meets others
_AT_ONCE = 64  # records that are held

Move = Callable[[Ids], Ids]
Keep = Callable[[pa.Table], npt.NDArray[np.bool_]]
Samples = dict[str, list[dict[str, Any]]]


def nothing_stands(number: int, store: Store) -> FileLine | None:
    """The file of a partition whose rows are there already: there is none."""
    return None


@dataclass(frozen=True)
class Ledger:
    """Writes the ledger's files of a snapshot, and the names of its duplicates.

    Attributes:
        folder: Of the snapshot, as `snapshots/<name>`.
        records: Folder for the records of partitions, of scratch; another one where anything that
            decides the files differs.
        rows: Gives the rows of a partition, by name: with a column `change` where it is known.
        divided: Which of how many partitions of names each is (see `partitions`); None: not known.
        cuts: At which file numbers duplicates are cut into files, ascending.
        moved: Loads what gives new ids (n,) of ids (n,), where rows were moved; None else.
        renamed: The names that some names had before.
        stands: Gives the manifest's line of the file that has the rows of a partition already,
            which then is not written again.
    """

    folder: str
    records: str
    rows: Callable[[int, Store], Iterator[pa.Table]]
    divided: tuple[Sequence[int] | None, ...]
    cuts: tuple[int, ...]
    moved: Callable[[Store], Move] | None
    renamed: Mapping[str, str]
    stands: Callable[[int, Store], FileLine | None] = nothing_stands

    def record(self, number: int) -> str:
        """Path of the record of a partition of names."""
        return f"{self.records}/ledger/{number:06d}.json"

    def deal(self, number: int, store: Store) -> Record:
        """Write one file of the ledger, and deal out its duplicates.

        The record has the file and its rows (`file`, None where there are none), their `counts`,
        and some of each kind of change (`samples`).
        """
        return once(store, self.record(number), lambda: self._write(number, store))

    def _write(self, number: int, store: Store) -> Record:
        counts, some = Counts(), Sampled(SAMPLES)
        moved = None if self.moved is None else self.moved(store)
        dealing = Dealing(
            store, HashedName(f"{self.records}/ledger/{number:06d}", ".arrow"), len(self.cuts) + 1
        )

        def tables() -> Iterator[pa.Table]:
            for table in self.rows(number, store):
                table = _with_ids(table, moved)
                some.offer(table, self.renamed)
                table = table.select(SCHEMA.names).cast(SCHEMA)
                counts.add_rows(table)
                status = as_known(table)["status"]
                again = pc.and_(pc.equal(status, "duplicate"), table["id"].is_valid())
                names = table.filter(again).select(duplicates.PAIRS.names)
                files = names["id"].to_numpy() >> 32
                dealing.write(names, np.searchsorted(self.cuts, files, side="right"))
                for start in range(0, table.num_rows, _SLICE_ROWS):
                    yield table.slice(start, _SLICE_ROWS)

        line: FileLine | None = None
        stands = self.stands(number, store)
        with dealing:
            if stands is None:
                name = HashedName(f"{self.folder}/ledger/{number:05d}", ".parquet")
                file, rows = write_ledger_tables(store, name, tables())
                if rows:
                    line = {
                        "path": file.path, "bytes": file.bytes, "sha256": file.sha256, "rows": rows
                    }  # fmt: skip
            else:
                rows = sum(table.num_rows for table in tables())
                line = {
                    "path": stands["path"], "bytes": stands["bytes"],
                    "sha256": stands["sha256"], "rows": stands["rows"],
                }  # fmt: skip
                if rows != line["rows"]:
                    raise RuntimeError(
                        f"{store.shown(line['path'])}: {line['rows']:,} rows, of which {rows:,} "
                        "were found to stand; nothing was published"
                    )
        return {
            **dealing.record(), "file": line,
            "counts": counts.to_json(), "samples": some.to_json(),
        }  # fmt: skip

    def take(self, number: int, pieces: list[Reference], store: Store) -> Mapping[str, Any]:
        """Write one file of duplicates; the record has it, and its rows (`ids`)."""

        def work() -> Mapping[str, Any]:
            name = HashedName(f"{self.folder}/duplicates/{number:05d}", ".parquet")
            pairs = taken(store, pieces, duplicates.PAIRS)
            file, ids = duplicates.write_duplicates(store, name, pairs)
            return {"rows": pairs.num_rows, "file": file.to_json(), "ids": ids}

        return once(store, f"{self.records}/duplicates/{number:06d}.json", work)


@dataclass(frozen=True)
class Merged:
    """The rows of partitions as a run leaves them; both folders as `resolve` has them."""

    compared: str
    resolved: str
    parts: int

    def __call__(self, number: int, store: Store) -> Iterator[pa.Table]:
        """The rows of one partition, by name: the resolved ones, and the carried ones beside."""
        new = read_rows(store, self._new(number, store), RESOLVED)
        tables = []
        for group in standing(store, self.compared, number):
            old = group.read()
            if new.num_rows:
                old = old.filter(pc.invert(pc.is_in(old["uri"], value_set=new["uri"])))
            old = old.append_column("change", pa.repeat("", old.num_rows))
            tables.append(old.cast(RESOLVED))
        merged = pa.concat_tables([*tables, new])
        if merged.num_rows:
            yield merged.sort_by("uri")

    def stands(self, number: int, store: Store) -> FileLine | None:
        """The parent's file that has the rows of one partition already, if there is one."""
        if self._new(number, store):
            return None
        return file_that_stands(store, self.compared, number, self.parts)

    def _new(self, number: int, store: Store) -> FileJson | None:
        """The file of the resolved rows of one partition."""
        record = store.read_json(f"{self.resolved}/dealt/names/{number:06d}.json")
        file: FileJson | None = record["file"]
        return file


def ledger_of_run(
    store: Store,
    folder: str,
    compared: str,
    resolved: str,
    shards: Iterable[int],
    moving: Moving | None,
) -> Ledger:
    """What a run writes, with a row for each partition of names."""
    found = Resolved(**store.read_json(f"{resolved}/resolved.json"))
    merged = Merged(compared, resolved, found.parts)
    decided = hashlib.sha256(repr(moving).encode()).hexdigest()[:12]
    return Ledger(
        folder,
        records=f"{resolved}/assembled-{decided}",
        rows=merged,
        divided=tuple((number, found.parts) for number in range(found.parts)),
        cuts=duplicates.cuts(sorted(shards), found.counts["duplicate"]),
        moved=moving,
        renamed=read_renames(store, resolved),
        stands=merged.stands if moving is None else nothing_stands,
    )


@dataclass(frozen=True)
class Remaining:
    """The rows of a snapshot's ledger that stay, file by file."""

    paths: tuple[str, ...]
    keep: Keep | None

    def __call__(self, number: int, store: Store) -> Iterator[pa.Table]:
        """The rows of one file."""
        for table in ledger_rows(store, self.paths[number]):
            kept = table if self.keep is None else table.filter(pa.array(self.keep(table)))
            if kept.num_rows:
                yield kept


def write_ledger_files(store: Store, ledger: Ledger, meet: Meet, rows: int) -> list[FileLine]:
    """Write a snapshot's ledger, and its duplicates; returns the manifest's lines."""
    found = meet(
        Meeting(
            stage="ledger", tasks=len(ledger.divided), deal=ledger.deal, take=ledger.take,
            dealt=f"{ledger.records}/ledger", taken=f"{ledger.records}/duplicates",
            every=len(ledger.cuts) + 1, rows=rows // _WRITTEN,
        )
    )  # fmt: skip
    lines: list[FileLine] = []
    for number, record in enumerate(_records(store, ledger)):
        if record["file"]:
            line: FileLine = record["file"] | {"kind": "ledger"}
            if (part := ledger.divided[number]) is not None:
                line["partition"] = [*part]
            lines.append(line)
    for number in sorted(found):
        line = found[number]["file"] | {"kind": "duplicates", "rows": found[number]["ids"]}
        lines.append(line)
    named = {line["path"] for line in lines}
    for name in ("ledger", "duplicates"):  # attempts that were not first may have left others
        store.delete(set(store.files(f"{ledger.folder}/{name}")) - named)
    return lines


def _records(store: Store, ledger: Ledger) -> Iterator[Record]:
    """The records of all partitions, in order."""
    paths = [ledger.record(number) for number in range(len(ledger.divided))]
    for start in range(0, len(paths), _AT_ONCE):
        yield from finished(store, paths[start : start + _AT_ONCE])


def counts_of(store: Store, ledger: Ledger) -> Counts:
    """What the rows of a ledger that was written are."""
    counts = Counts()
    for record in _records(store, ledger):
        counts.merge(record["counts"])
    return counts


def samples_of(store: Store, ledger: Ledger) -> Samples:
    """Up to `SAMPLES` rows of each kind of change, chosen by a hash of their names.

    Returns:
        Rows, as dictionaries, under "added", "changed", "removed", "renamed" (with the name that
        went, `previous`) and, of all that are rejected, "rejected:<reason>". What there is none of
        is not there.
    """
    some = Sampled(SAMPLES)
    for record in _records(store, ledger):
        some.merge(record["samples"])
    return {kind: [row for _, _, row in rows] for kind, rows in sorted(some.found.items())}


def _with_ids(table: pa.Table, moved: Move | None) -> pa.Table:
    """The table with its ids as they are after moving."""
    if moved is None:
        return table
    ids = table["id"].combine_chunks()
    there = ids.is_valid().to_numpy(zero_copy_only=False)
    values = ids.fill_null(0).to_numpy().copy()
    values[there] = moved(values[there])
    return with_column(table, "id", pa.array(values, mask=~there))
