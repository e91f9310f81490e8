"""Cutting a listing into work units, in bounded memory and so that duplicates meet.

Two files with the same bytes have the same size. Units are therefore cut along the *hash of the
size*: all files of one size land in one unit, where the first of equal content is embedded and the
others become its duplicates, with no shuffle of contents and no file read twice. Hashing also mixes
folders, so that no unit holds all the large pictures. Only a size shared by very many files (say
bitmaps of one shape) would make too large a unit: those are read beforehand and cut along their
content's hash instead, which keeps the property.

    listing stream -> parts (<= 100,000 rows) -> partitions by hash -> sorted -> units

What lies in containers (tar shards, tables of images) is cut along the containers instead, in their
order, so that a worker reads them from front to back; equal files do not always meet there, which
is made good when all units are done.

Each row bears its key in the column `_key`, by which the contents of earlier runs that it may equal
are found (see `reconcile.known`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.sources.listing import (
    Listing,
    listing_schema,
    read_files,
    write_listing,
    write_table,
)
from lookalike.store.files import remove_tree
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill

__all__ = [
    "Listing", "cut_units", "listing_schema", "mix", "read_files", "unit_rows_for", "write_listing",
]  # fmt: skip

SIZE_BUCKETS = 1 << 22
"""Sizes are counted by their hash, in so many buckets: see `size_buckets`."""
MOST_UNITS = 1 << 16
"""Units of one run, about: a manifest names a file for each, and whoever opens a store reads it."""
_PARTITION_ROWS = 500_000
_PARTITION_BYTES = 1 << 30  # as the listing estimates them
_HEAVY = 4  # a size class of more than this many units' rows is cut by content

Keys = npt.NDArray[np.uint64]
Buckets = npt.NDArray[np.int64]
Read = Callable[[str], bytes]

_NONE: Buckets = np.zeros(0, dtype=np.int64)


def cut_units(
    store: Store,
    listing: Listing,
    folder: str,
    unit_rows: int,
    read: Read,
    common: Buckets = _NONE,
) -> Iterator[tuple[str, int]]:
    """Write the unit files of a listing; yields (path relative to the store, rows).

    The units depend on the set of files only, not on their order in the listing.

    Args:
        store: The store's root.
        listing: Files to be read, each listed once; further columns are kept.
        folder: Of the unit files, relative to the store.
        unit_rows: Rows per unit, roughly.
        read: Reads a file, where its size tells too little of it.
        common: Buckets of sizes that very many files of earlier runs have (see `size_buckets`).
    """
    number = 0
    for table in _partitions(store, listing, folder):
        for unit in _cut(table, unit_rows, read, common):
            name = f"{folder}/{number:06d}.parquet"
            write_table(store, name, unit)
            yield name, unit.num_rows
            number += 1


def unit_rows_for(listed: int, workers: int) -> int:
    """Rows per unit: several units per worker, between 32 and 1,024 rows.

    Of very many rows units are larger, since each leaves a file that every manifest lists.
    """
    return max(32, min(1024, -(-listed // (workers * 8))), -(-listed // MOST_UNITS))


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


def content_keys(contents: pa.Array | pa.ChunkedArray) -> Keys:
    """The key of each content's sha256: (n,) binary(32) without nulls -> (n,) uint64."""
    flat = contents.combine_chunks() if isinstance(contents, pa.ChunkedArray) else contents
    data = np.frombuffer(flat.buffers()[1] or b"", dtype="<u8").reshape(-1, 4)
    return data[flat.offset : flat.offset + len(flat), 0].astype(np.uint64)


def size_buckets(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which of `SIZE_BUCKETS` buckets each size falls to: (n,) int64 -> (n,) int64."""
    return (size_keys(sizes) >> np.uint64(64 - SIZE_BUCKETS.bit_length() + 1)).astype(np.int64)


def _partitions(store: Store, listing: Listing, folder: str) -> Iterator[pa.Table]:
    """The listing's rows by ranges of their key, each small enough for memory."""
    count = max(-(-listing.rows // _PARTITION_ROWS), -(-listing.bytes // _PARTITION_BYTES))
    if count <= 1:
        if listing.parts:
            yield pa.concat_tables([pq.read_table(store.local(part)) for part in listing.parts])
        return
    schema = pq.read_schema(store.local(listing.parts[0])).remove_metadata()
    with Spill(store.scratch(f"{folder}/partitions"), count, schema) as spill:
        for part in listing.parts:
            table = pq.read_table(store.local(part))
            spill.write(table, (_keys(table) >> np.uint64(32)) * np.uint64(count) >> np.uint64(32))
    for number in range(count):
        table = spill.read(number)
        if table.num_rows:
            yield table
    remove_tree(spill.folder)


def _keys(table: pa.Table) -> Keys:
    """Hash of the size; of the name where there is no content to be equal; of the container."""
    sizes = table["bytes"].to_numpy()
    keys = size_keys(sizes)
    contained = _contained(table)
    for row in np.flatnonzero((sizes <= 0) & ~contained):
        keys[row] = _hash(table["uri"][int(row)].as_py().encode())
    rows = np.flatnonzero(contained)
    if len(rows):
        groups = _pieces(table.take(pa.array(rows)))
        hashes: dict[tuple[str, int], int] = {}
        for row, group in zip(rows, groups, strict=True):
            if group not in hashes:
                hashes[group] = _hash(f"{group[0]}\0{group[1]}".encode())
            keys[row] = hashes[group]
    return keys


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")


def _contained(table: pa.Table) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.not_equal(table["_container"], "").to_numpy()
    return found


def _pieces(table: pa.Table) -> list[tuple[str, int]]:
    """Container and group of each row: what is read as one piece."""
    return list(zip(table["_container"].to_pylist(), table["_group"].to_pylist(), strict=True))


def _cut(table: pa.Table, unit_rows: int, read: Read, common: Buckets) -> Iterator[pa.Table]:
    """The units of one partition: of the files of their own, then of what lies in containers."""
    contained = _contained(table)
    yield from _cut_files(table.filter(pa.array(~contained)), unit_rows, read, common)
    yield from _cut_containers(table.filter(pa.array(contained)), common)


def _cut_files(table: pa.Table, unit_rows: int, read: Read, common: Buckets) -> Iterator[pa.Table]:
    keys = _split_heavy(table, _keys(table), unit_rows * _HEAVY, read, common)
    table = table.append_column("_key", pa.array(keys))
    table = table.sort_by([("_key", "ascending"), ("uri", "ascending")])
    keys, start = table["_key"].to_numpy(), 0
    # a unit ends at the first change of key once it is full
    for end in [*np.flatnonzero(np.diff(keys)) + 1, len(keys)]:
        if end > start and (end - start >= unit_rows or end == len(keys)):
            yield table.slice(start, end - start)
            start = end


def _cut_containers(table: pa.Table, common: Buckets) -> Iterator[pa.Table]:
    """A unit for each piece of a container, its rows in the order in which they lie there.

    Nothing is read of it. A size that is common, or not known, has no key: contents that it shares
    with earlier runs are found when all units are done.
    """
    sizes = table["bytes"].to_numpy()
    telling = (sizes > 0) & ~np.isin(size_buckets(sizes), common)
    table = table.append_column("_key", pa.array(size_keys(sizes), mask=~telling))
    order = [("_container", "ascending"), ("_group", "ascending"), ("_offset", "ascending")]
    table = table.sort_by([*order, ("uri", "ascending")])
    start = 0
    for _, piece in groupby(_pieces(table)):
        rows = len(list(piece))
        yield table.slice(start, rows)
        start += rows


def _split_heavy(table: pa.Table, keys: Keys, limit: int, read: Read, common: Buckets) -> Keys:
    """Replace the key of very common sizes, here or before, by the hash of each file's content."""
    values, counts = np.unique(keys, return_counts=True)
    sizes = table["bytes"].to_numpy()
    is_heavy = np.isin(keys, values[counts > limit])
    is_heavy |= (sizes > 0) & np.isin(size_buckets(sizes), common)
    heavy = np.flatnonzero(is_heavy)
    if not len(heavy):
        return keys

    def content_key(uri: str) -> int:
        try:
            return _hash(read(uri))
        except OSError:  # reported when its unit is embedded; any unit will do
            return _hash(uri.encode())

    keys, uris = keys.copy(), table["uri"].take(pa.array(heavy)).to_pylist()
    with ThreadPoolExecutor(16) as pool:
        keys[heavy] = np.fromiter(pool.map(content_key, uris), dtype=np.uint64, count=len(heavy))
    return keys
