"""Cutting candidates into work units, in bounded memory and so that duplicates meet.

Two files with the same bytes have the same size. Units are therefore cut along the *hash of the
size*: all files of one size land in one unit, where the first of equal content is embedded and the
others become its duplicates, with no file read twice. Hashing also mixes folders, so that no unit
holds all the large pictures. Only a size shared by very many files (say bitmaps of one shape) would
make too large a unit: those are cut along the hash of their names, and equal ones that do not meet
are brought together when all units are done.

    candidates -> partitions by hash -> sorted -> units: pieces of one file for each partition

What lies in containers (tar shards, tables of images) is cut along the containers instead, in their
order, so that a worker reads them from front to back; equal files do not always meet there either.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.sources.listing import Listing
from lookalike.store.attempts import Part, Record, recorded
from lookalike.store.exchange import Dealing, Reference, in_tasks, pieces_of, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

MOST_UNITS = 1 << 16
"""Units of one run, about: a manifest names a file for each, and whoever opens a store reads it."""
_USUAL_UNITS = 256  # enough that many workers end at about the same time
_LEAST_ROWS = 128  # smaller ones cost a tenth of the time in ending: shard, ledger, record
_PARTITION_ROWS = 500_000
_PARTITION_BYTES = 1 << 30  # as the listing estimates them
_HEAVY = 4  # a size class of more than this many units' rows is cut by name
_COMMON_ROWS = 4096  # files of one size among those of a task, which then are dealt out by name

Keys = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Units:
    """Where the rows of units lie; they are numbered through, partition by partition.

    Attributes:
        folder: Where they were cut, relative to the store.
        firsts: Number of the first unit of each partition, and last how many there are in all.
    """

    folder: str
    firsts: tuple[int, ...]

    def __len__(self) -> int:
        """How many there are."""
        return self.firsts[-1]

    @property
    def parts(self) -> int:
        """How many partitions there are."""
        return len(self.firsts) - 1

    def of(self, partition: int) -> range:
        """The numbers of a partition's units."""
        return range(self.firsts[partition], self.firsts[partition + 1])

    def table(self, store: Store, number: int) -> pa.Table:
        """The rows of one unit, in order: a part of a file is read."""
        part, within = self.place(number)
        return taken(store, pieces_of(store, part.done)[within])

    def place(self, number: int) -> tuple[Part, int]:
        """The partition of a unit, whose record tells of it, and the unit's number there."""
        partition = bisect_right(self.firsts, number) - 1
        return _part(self.folder, partition), number - self.firsts[partition]


def _part(folder: str, number: int) -> Part:
    return Part(f"{folder}/parts", number)


@dataclass(frozen=True)
class Cutting:
    """How a listing is cut into units below `folder`.

    The units depend on the set of files only, not on their order, where those of a task (a
    partition of names, that is) do.

    Attributes:
        folder: Of the run's scratch, relative to the store.
        tasks: Files of the listing, which deal their rows out.
        parts: Ranges of keys, each small enough for memory.
        unit_rows: Rows per unit, roughly.
        schema: Of the rows: further columns are kept.
        bits: Leading bits of the hashes of sizes that are noted, for `reconcile.known`; 0 for none.
    """

    folder: str
    tasks: tuple[tuple[str, ...], ...]
    parts: int
    unit_rows: int
    schema: pa.Schema
    bits: int

    @classmethod
    def of(
        cls, store: Store, listing: Listing, folder: str, unit_rows: int, bits: int = 0
    ) -> Cutting:
        """Plan it: a listing of files to be read, each once."""
        count = max(-(-listing.rows // _PARTITION_ROWS), -(-listing.bytes // _PARTITION_BYTES), 1)
        schema = pq.read_schema(store.parquet(listing.parts[0])) if listing.parts else pa.schema([])
        tasks = tuple(in_tasks(listing.parts, listing.rows))
        return cls(folder, tasks, count, unit_rows, schema.remove_metadata(), bits)

    def deal(self, number: int, store: Store) -> Record:
        """Deal the rows of one task out to ranges of keys."""
        return _deal(Part(f"{self.folder}/dealt", number), store, self)

    def take(self, number: int, pieces: Sequence[Reference], store: Store) -> Record:
        """Cut the rows of one range."""
        return _take(_part(self.folder, number), store, self, pieces)

    def finish(self, parts: Mapping[int, Record]) -> Units:
        """Number the units of all ranges."""
        return number_units(self.folder, self.parts, parts)


def number_units(folder: str, count: int, parts: Mapping[int, Record]) -> Units:
    """Number the units of `count` partitions, of which those that have any left records."""
    counts = (parts[number]["count"] if number in parts else 0 for number in range(count))
    return Units(folder, tuple(accumulate(counts, initial=0)))


def unit_rows_for(listed: int) -> int:
    """Rows per unit: 128 to 1,024, of some hundred units; it hangs on nothing but their number.

    Units decide the rows' ids, ids the samples that are drawn, and these the index: it is to be the
    same on any number of workers. Of very many rows units are larger, since each leaves a file that
    every manifest lists.
    """
    return max(_LEAST_ROWS, min(1024, -(-listed // _USUAL_UNITS)), -(-listed // MOST_UNITS))


def mix(values: Keys) -> Keys:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014): (n,) uint64 -> (n,) uint64."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def size_keys(sizes: npt.NDArray[np.int64]) -> Keys:
    """What units are cut along: a hash of the size, (n,) int64 -> (n,) uint64."""
    return mix(sizes.astype(np.uint64))


def key_ranges(keys: Keys, count: int) -> npt.NDArray[np.int64]:
    """Which of `count` ranges of keys each falls to: (n,) uint64 -> (n,) int64."""
    found = (keys >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)
    return found.astype(np.int64)


@recorded
def _deal(part: Part, store: Store, plan: Cutting) -> Record:
    name = HashedName(f"{plan.folder}/dealt/{part.number:06d}", ".arrow")
    with Dealing(store, name, plan.parts) as dealing:
        for path in plan.tasks[part.number]:
            table = pq.read_table(store.once(path)).cast(plan.schema)
            keys = _keys(table, _COMMON_ROWS)
            dealing.write(table, key_ranges(keys, plan.parts))
    return dealing.record()


@recorded
def _take(part: Part, store: Store, plan: Cutting, pieces: Sequence[Reference]) -> Record:
    table = taken(store, pieces, plan.schema)
    units = list(_cut(table, plan.unit_rows))
    name = HashedName(f"{plan.folder}/{part.number:05d}", ".arrow")
    with Dealing(store, name, len(units)) as dealing:
        for number, unit in enumerate(units):
            dealing.write(unit, np.full(unit.num_rows, number))
    record = {**dealing.record(), "count": len(units)}
    if plan.bits:
        sizes = table["bytes"].to_numpy()
        bits = np.unique(size_keys(sizes[sizes > 0]) >> np.uint64(64 - plan.bits))
        with store.write(HashedName(f"{plan.folder}/bits/{part.number:05d}", ".npy")) as pending:
            np.save(pending.file, bits.astype(np.uint32))
        record["bits"] = pending.finished.to_json()
    return record


def _keys(table: pa.Table, limit: int) -> Keys:
    """Hash of the size; of the container; of the name where the size tells nothing.

    That is where it is not known, nothing, or of more than `limit` of the files.
    """
    keys, contained = size_keys(table["bytes"].to_numpy()), _contained(table)
    rows = np.flatnonzero(contained)
    if len(rows):
        hashes: dict[tuple[str, int], int] = {}
        for row, group in zip(rows, _pieces(table.take(pa.array(rows))), strict=True):
            if group not in hashes:
                hashes[group] = _hash(f"{group[0]}\0{group[1]}")
            keys[row] = hashes[group]
    rows = np.flatnonzero(~contained & ~_telling(table, limit))
    names = table["uri"].take(pa.array(rows)).to_pylist()
    keys[rows] = np.fromiter(map(_hash, names), dtype=np.uint64, count=len(rows))
    return keys


def _telling(table: pa.Table, limit: int) -> Mask:
    """Which files have a size that is known, and that no more than `limit` files share."""
    sizes, contained = table["bytes"].to_numpy(), _contained(table)
    _, inverse, counts = np.unique(sizes[~contained], return_inverse=True, return_counts=True)
    found: Mask = sizes > 0
    found[~contained] &= counts[inverse] <= limit
    return found


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _contained(table: pa.Table) -> Mask:
    found: Mask = pc.not_equal(table["_container"], "").to_numpy()
    return found


def _pieces(table: pa.Table) -> list[tuple[str, int]]:
    """Container and group of each row: what is read as one piece."""
    return list(zip(table["_container"].to_pylist(), table["_group"].to_pylist(), strict=True))


def _cut(table: pa.Table, unit_rows: int) -> Iterator[pa.Table]:
    """The units of one partition: of the files of their own, then of what lies in containers."""
    keys, contained = _keys(table, unit_rows * _HEAVY), _contained(table)
    order = np.flatnonzero(~contained)
    yield from _cut_files(table.take(pa.array(order)), keys[order], unit_rows)
    yield from _cut_containers(table.filter(pa.array(contained)))


def _cut_files(table: pa.Table, keys: Keys, unit_rows: int) -> Iterator[pa.Table]:
    by_name = table.append_column("_cut", pa.array(keys))
    by_name = by_name.sort_by([("_cut", "ascending"), ("uri", "ascending")])
    keys, table, start = by_name["_cut"].to_numpy(), by_name.drop_columns(["_cut"]), 0
    # a unit ends at the first change of key once it is full
    for end in [*np.flatnonzero(np.diff(keys)) + 1, len(keys)]:
        if end > start and (end - start >= unit_rows or end == len(keys)):
            yield table.slice(start, end - start)
            start = end


def _cut_containers(table: pa.Table) -> Iterator[pa.Table]:
    """A unit for each piece of a container, its rows in the order in which they lie there."""
    order = [("_container", "ascending"), ("_group", "ascending"), ("_offset", "ascending")]
    table = table.sort_by([*order, ("uri", "ascending")])
    start = 0
    for _, piece in groupby(_pieces(table)):
        rows = len(list(piece))
        yield table.slice(start, rows)
        start += rows
