r"""Which contents of earlier runs the files of each unit may have, so that none is embedded again.

A file whose content is known has the size of that content, so the parent's ledger is looked through
for the keys of the units' rows (see `sources.units`). What is found lies beside each unit as
`NNNNNN.known.parquet`; whether a file has one of the contents shows when it is read.

    keys of units   -> by range of the key \
                                             -> (unit, content) -> by range of units -> files
    parent's ledger -> by range of the key /
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.sources.units import Keys, content_keys, size_keys
from lookalike.store.files import remove_tree
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill

SCHEMA = pa.schema([("content_sha256", pa.binary(32)), ("id", pa.int64())])
"""Of the files beside the units: distinct contents, ascending, and the rows of their vectors."""
_ASKED = pa.schema([("key", pa.uint64()), ("unit", pa.int64())])
_HELD = pa.schema([("key", pa.uint64()), *SCHEMA])
_FOUND = pa.schema([("unit", pa.int64()), *SCHEMA])
_KEYS = 2_000_000  # asked for at once, of 16 bytes each
_UNITS = 8  # whose contents are sorted at once
_BATCH = 65_536
_SIEVE_BITS = 25

Line = Mapping[str, Any]
Bits = npt.NDArray[np.bool_]


def write_known(store: Store, parent: Sequence[Line], units: Sequence[str]) -> None:
    """Write, beside each unit file, contents with a vector that its files may have.

    Those are the contents of the parent's ledger with the size of one of its files (or with its
    content, where that is the key), and what its files were before. A unit without any has no file.

    Args:
        store: The store's root.
        parent: The manifest's lines for the parent's ledger; none for a first run.
        units: Paths of the unit files, relative to the store; all in one folder.
    """
    if not parent or not units:
        return
    scratch = store.scratch(str(PurePosixPath(units[0]).with_name("known")))
    rows = sum(pq.read_metadata(store.local(unit)).num_rows for unit in units)
    parts = max(1, -(-rows // _KEYS))
    with (
        Spill(scratch / "asked", parts, _ASKED) as asked,
        Spill(scratch / "held", parts, _HELD) as held,
        Spill(scratch / "found", -(-len(units) // _UNITS), _FOUND) as found,
    ):
        sieve = _ask(store, units, asked, found)
        asked.flush()
        _look_through(store, parent, sieve, held)
        held.flush()
        for part in range(parts):
            for table in _join(asked.read(part), held.tables(part)):
                found.write(table, table["unit"].to_numpy() // _UNITS)
    for group in range(found.count):
        _write_group(store, units, found.read(group))
    remove_tree(scratch)


def read_known(store: Store, unit: str) -> dict[bytes, int]:
    """What `write_known` found for a unit: ids of rows with a vector by sha256 of the content."""
    path = _beside(unit)
    if not store.has(path):
        return {}
    table = pq.read_table(store.local(path))
    contents, ids = table["content_sha256"].to_pylist(), table["id"].to_pylist()
    return dict(zip(contents, ids, strict=True))


def _beside(unit: str) -> str:
    return unit.removesuffix(".parquet") + ".known.parquet"


def _part(keys: Keys, count: int) -> Keys:
    return (keys >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)


def _ask(store: Store, units: Sequence[str], asked: Spill, found: Spill) -> Bits:
    """Deal out the keys of the units; returns where in `_SIEVE_BITS` leading bits keys are.

    What files were before needs no search.
    """
    sieve = np.zeros(1 << _SIEVE_BITS, dtype=np.bool_)
    for number, unit in enumerate(units):
        names = pq.read_schema(store.local(unit)).names
        had = [name for name in ("_was_sha256", "_was_id") if name in names]
        table = pq.read_table(store.local(unit), columns=["_key", *had])
        keys = np.unique(table["_key"].drop_null().to_numpy())
        sieve[keys >> np.uint64(64 - _SIEVE_BITS)] = True
        asked.write(_numbered(number, len(keys), key=keys), _part(keys, asked.count))
        if had:
            was = table.select(had).rename_columns(SCHEMA.names)
            was = was.filter(_has_vector(was))
            columns = {name: was[name] for name in SCHEMA.names}
            found.write(
                _numbered(number, was.num_rows, **columns),
                np.full(was.num_rows, number // _UNITS, dtype=np.int64),
            )
    return sieve


def _numbered(unit: int, rows: int, **columns: Any) -> pa.Table:
    return pa.table({**columns, "unit": np.full(rows, unit, dtype=np.int64)})


def _has_vector(table: pa.Table) -> pa.ChunkedArray:
    return pc.and_(pc.is_valid(table["id"]), pc.is_valid(table["content_sha256"]))


def _look_through(store: Store, parent: Sequence[Line], sieve: Bits, held: Spill) -> None:
    """Deal out the parent's contents, by either key, as far as the sieve lets them through."""
    shift = np.uint64(64 - _SIEVE_BITS)
    for line in parent:
        with pq.ParquetFile(store.local(line["path"])) as file:
            columns = ["bytes", *SCHEMA.names]
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                table = pa.Table.from_batches([batch])
                table = table.filter(_has_vector(table))
                sizes = table["bytes"].to_numpy()
                by_size, by_content = size_keys(sizes), content_keys(table["content_sha256"])
                for keys, use in ((by_size, sizes > 0), (by_content, True)):
                    rows = np.flatnonzero(sieve[keys >> shift] & use)
                    some = table.select(SCHEMA.names).take(pa.array(rows))
                    some = some.add_column(0, "key", pa.array(keys[rows]))
                    held.write(some, _part(keys[rows], held.count))


def _join(asked: pa.Table, held: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Units and contents of the same key."""
    order = np.argsort(asked["key"].to_numpy(), kind="stable")
    keys, units = asked["key"].to_numpy()[order], asked["unit"].to_numpy()[order]
    for table in held:
        own = table["key"].to_numpy()
        start, end = (np.searchsorted(keys, own, side) for side in ("left", "right"))
        counts = end - start
        rows = np.repeat(np.arange(len(own)), counts)
        # position of each pair among the units of its key
        among = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        columns = table.select(SCHEMA.names).take(pa.array(rows))
        yield columns.append_column("unit", pa.array(units[start[rows] + among]))


def _write_group(store: Store, units: Sequence[str], table: pa.Table) -> None:
    """Write the files of some units, each content once (with its smallest id)."""
    table = table.sort_by([("unit", "ascending"), ("content_sha256", "ascending"),
                           ("id", "ascending")])  # fmt: skip
    numbers = table["unit"].to_numpy()
    starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    for start, end in zip(starts, [*starts, len(numbers)][1:], strict=True):
        own = table.slice(start, end - start).select(SCHEMA.names)
        contents = own["content_sha256"].combine_chunks()
        repeats = pc.equal(contents[1:], contents[:-1]).to_numpy(zero_copy_only=False)
        own = own.filter(pa.array(np.concatenate([[True], ~repeats])))
        with store.write(_beside(units[numbers[start]])) as pending:
            pq.write_table(own, pending.file, compression="none", use_dictionary=False)
