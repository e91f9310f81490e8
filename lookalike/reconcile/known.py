r"""Which contents of earlier runs the files of each unit may have, so that none is embedded again.

A file whose content is known has the size of that content, so the parent's ledger is looked through
for the sizes of the units' rows; whether a file has one of the contents shows when it is read. Of a
size that very many contents share none is looked up: equal ones are found when all units are done.

    sizes of units  -> by range of the key (a hash of the size) \
                                                                 -> contents, pieces by unit
    parent's ledger -> by range of the key                      /

Of the ledger only rows take part whose keys pass a sieve, which the units' sizes make.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.sources.units import Keys, Units, key_ranges, size_keys
from lookalike.store.attempts import Part, Record, recorded
from lookalike.store.exchange import Dealing, Reference, in_tasks, pieces_of, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import Store

COMMON_ROWS = 1024
"""Contents of one size; with more it is common, and embedding a file cheaper than naming them."""
_CONTENT = pa.schema([("content_sha256", pa.binary(32)), ("id", pa.int64())])
_ASKED = pa.schema([("key", pa.uint64()), ("unit", pa.int64())])
_HELD = pa.schema([("key", pa.uint64()), *_CONTENT])
_SIDES = ("asked", "held")
_PART_ROWS = 4_000_000  # of either side at once, at the most; of the ledger far fewer, as a rule
_BATCH = 65_536
_SIEVE_BITS = 25
_SIEVE_ROWS = 1 << (_SIEVE_BITS - 1)  # more sizes leave too few holes

Line = Mapping[str, Any]
Bits = npt.NDArray[np.bool_]


def sieve_bits(rows: int) -> int:
    """How many leading bits of keys the sieve for so many rows looks at; 0 for no sieve."""
    return min(_SIEVE_BITS, rows.bit_length() + 5) if rows <= _SIEVE_ROWS else 0


@dataclass(frozen=True)
class Knowing:
    """How contents are found that the files of units may have.

    Attributes:
        units: Those that were cut.
        ledger: Files of the parent's ledger, by the tasks that look through them.
        parts: Ranges of keys, each small enough for memory.
        bits: Leading bits of keys that the sieve tells of.
    """

    units: Units
    ledger: tuple[tuple[str, ...], ...]
    parts: int
    bits: int

    @classmethod
    def of(
        cls, store: Store, units: Units, cut: Mapping[int, Record], parent: Sequence[Line]
    ) -> Knowing:
        """Plan it, and write the sieve.

        Args:
            store: The store's root.
            units: See the attributes.
            cut: Records of the partitions of the units, cut with `sieve_bits` of all rows.
            parent: The manifest's lines for the parent's ledger.
        """
        previous = sum(line["rows"] for line in parent)
        rows = sum(record["rows"] for record in cut.values())
        ledger = in_tasks([line["path"] for line in parent], previous)
        bits = sieve_bits(rows)
        found = cls(units, tuple(ledger), max(1, -(-max(rows, previous) // _PART_ROWS)), bits)
        if bits:
            sieve = np.zeros(1 << bits, dtype=np.bool_)
            for record in cut.values():
                sieve[np.load(store.once(record["bits"]["path"]))] = True
            with store.write(found._sieve) as pending:
                np.save(pending.file, np.packbits(sieve))
        store.write_json(_plan(units), {"parts": found.parts})
        return found

    @property
    def folder(self) -> str:
        """Of what these steps leave."""
        return f"{self.units.folder}/known"

    @property
    def _sieve(self) -> str:
        return f"{self.folder}/sieve.npy"

    @property
    def tasks(self) -> int:
        """Partitions of units, which ask, and then files of the ledger."""
        return self.units.parts + len(self.ledger)

    def deal(self, number: int, store: Store) -> Record:
        """Deal out the keys of a partition of units, or what files of the ledger hold."""
        part = Part(f"{self.folder}/dealt", number)
        if number < self.units.parts:
            return _ask(part, store, self)
        return _look_through(part, store, self, self.ledger[number - self.units.parts])

    def take(self, number: int, pieces: Sequence[Reference], store: Store) -> Record:
        """Join both sides, and keep what is found by unit."""
        return _join(_part(self.units, number), store, self, pieces)

    def passed(self, store: Store, keys: Keys) -> Bits:
        """Which keys (n,) units may have asked for: (n,) bool."""
        if not self.bits:
            return np.ones(len(keys), dtype=np.bool_)
        sieve = np.unpackbits(np.load(store.local(self._sieve))).view(np.bool_)
        found: Bits = sieve[keys >> np.uint64(64 - self.bits)]
        return found


def read_known(store: Store, units: Units, number: int, rows: pa.Table) -> dict[bytes, int]:
    """Contents with a vector that the files of a unit may have: ids by sha256.

    Those are the contents of the parent's ledger with the size of one of its files, and what its
    files were before.
    """
    tables = []
    if {"_was_sha256", "_was_id"} <= set(rows.column_names):
        was = rows.select(["_was_sha256", "_was_id"]).rename_columns(_CONTENT.names)
        tables.append(was.filter(_has_vector(was)))
    if parts := _parts(store, _plan(units)):
        for part in np.unique(key_ranges(_keys(rows), parts)).tolist():
            pieces = pieces_of(store, _part(units, part).done)
            tables.append(taken(store, pieces.get(number, ()), _CONTENT))
    known: dict[bytes, int] = {}
    for table in tables:
        contents, ids = table["content_sha256"].to_pylist(), table["id"].to_pylist()
        for content, row_id in zip(contents, ids, strict=True):
            known[content] = min(row_id, known.get(content, row_id))
    return known


def _plan(units: Units) -> str:
    return f"{units.folder}/known/known.json"


def _part(units: Units, number: int) -> Part:
    return Part(f"{units.folder}/known/parts", number)


@lru_cache(maxsize=1)
def _parts(store: Store, plan: str) -> int:
    """Ranges of keys; 0 where nothing was looked up."""
    found = store.read(plan)
    return int(json.loads(found.data)["parts"]) if found else 0


def _keys(rows: pa.Table) -> Keys:
    """Keys of the rows whose size is known, each once, ascending."""
    sizes = rows["bytes"].to_numpy()
    return np.unique(size_keys(sizes[sizes > 0]))


@recorded
def _ask(part: Part, store: Store, plan: Knowing) -> Record:
    with Dealing(
        store, HashedName(f"{plan.folder}/dealt/{part.number:06d}", ".arrow"), plan.parts
    ) as dealing:
        for number in plan.units.of(part.number):
            keys = _keys(plan.units.table(store, number))
            table = pa.table([keys, np.full(len(keys), number)], schema=_ASKED)
            dealing.write(table, key_ranges(keys, plan.parts), "asked")
    return dealing.record()


@recorded
def _look_through(part: Part, store: Store, plan: Knowing, paths: Sequence[str]) -> Record:
    with Dealing(
        store, HashedName(f"{plan.folder}/dealt/{part.number:06d}", ".arrow"), plan.parts
    ) as dealing:
        for path in paths:
            rows = pq.read_table(store.parquet(path), columns=["bytes", *_CONTENT.names])
            rows = rows.filter(pc.and_(_has_vector(rows), pc.greater(rows["bytes"], 0)))
            keys = size_keys(rows["bytes"].to_numpy())
            passed = np.flatnonzero(plan.passed(store, keys))
            held = rows.select(_CONTENT.names).take(pa.array(passed))
            held = _least(held.add_column(0, "key", pa.array(keys[passed])).cast(_HELD))
            dealing.write(held, key_ranges(held["key"].to_numpy(), plan.parts), "held")
    return dealing.record()


def _has_vector(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.is_valid(table["id"]), pc.is_valid(table["content_sha256"]))


def _least(held: pa.Table) -> pa.Table:
    """Each content once, with its smallest id; of a key no more than show that it is common."""
    held = held.sort_by([(name, "ascending") for name in _HELD.names])
    keys, contents = held["key"].to_numpy(), held["content_sha256"].combine_chunks()
    first = np.ones(len(keys), dtype=np.bool_)
    first[1:] = pc.not_equal(contents[1:], contents[:-1]).to_numpy(zero_copy_only=False)
    first[1:] |= keys[1:] != keys[:-1]
    held, keys = held.filter(pa.array(first)), keys[first]
    rank = np.arange(len(keys)) - np.searchsorted(keys, keys)
    return held.filter(pa.array(rank <= COMMON_ROWS))


@recorded
def _join(part: Part, store: Store, plan: Knowing, pieces: Sequence[Reference]) -> Record:
    asked, held = (
        taken(store, pieces, schema, side)
        for side, schema in zip(_SIDES, (_ASKED, _HELD), strict=True)
    )
    rows = asked.num_rows + held.num_rows
    held = _least(held)
    keys = held["key"].to_numpy()
    counts = np.searchsorted(keys, keys, "right") - np.searchsorted(keys, keys)
    held = held.filter(pa.array(counts <= COMMON_ROWS))
    asked = asked.sort_by([("key", "ascending"), ("unit", "ascending")])
    with Dealing(
        store, HashedName(f"{part.folder}/{part.number:06d}", ".arrow"), len(plan.units)
    ) as dealing:
        for start in range(0, held.num_rows, _BATCH):
            dealing.write(*_pairs(asked, held.slice(start, _BATCH)))
    return {**dealing.record(), "rows": rows}


def _pairs(asked: pa.Table, held: pa.Table) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Contents, and the units that asked for their keys."""
    keys, units, own = (asked["key"].to_numpy(), asked["unit"].to_numpy(), held["key"].to_numpy())
    start, end = (np.searchsorted(keys, own, side) for side in ("left", "right"))
    counts = end - start
    rows = np.repeat(np.arange(len(own)), counts)
    # position of each pair among the units of its key
    among = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return held.select(_CONTENT.names).take(pa.array(rows)), units[start[rows] + among]
