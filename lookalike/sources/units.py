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
`unit_duplicates` makes good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

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

__all__ = [
    "Listing", "cut_units", "listing_schema", "mix", "read_files", "unit_rows_for", "write_listing",
]  # fmt: skip

_PARTITION_ROWS = 500_000
_PARTITION_BYTES = 1 << 30  # as the listing estimates them
_HEAVY = 4  # a size class of more than this many units' rows is cut by content

Keys = npt.NDArray[np.uint64]
Read = Callable[[str], bytes]


def cut_units(
    store: Path, listing: Listing, folder: str, unit_rows: int, read: Read
) -> Iterator[tuple[str, int]]:
    """Write the unit files of a listing; yields (path relative to the store, rows).

    The units depend on the set of files only, not on their order in the listing. A file listed by
    several sources is in one unit once, with the metadata of its first listing.
    """
    number = 0
    for table in _partitions(store, listing, folder):
        for unit in _cut(table, unit_rows, read):
            name = f"{folder}/{number:06d}.parquet"
            write_table(store, name, unit)
            yield name, unit.num_rows
            number += 1


def unit_rows_for(listed: int, workers: int) -> int:
    """Rows per unit: several units per worker, between 32 and 1,024 rows."""
    return max(32, min(1024, -(-listed // (workers * 8))))


def mix(values: Keys) -> Keys:
    """The splitmix64 finaliser (Steele, Lea, Flood 2014): (n,) uint64 -> (n,) uint64."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _partitions(store: Path, listing: Listing, folder: str) -> Iterator[pa.Table]:
    """The listing's rows by ranges of their key, each small enough for memory."""
    count = max(-(-listing.rows // _PARTITION_ROWS), -(-listing.bytes // _PARTITION_BYTES))
    if count <= 1:
        if listing.parts:
            yield pa.concat_tables([pq.read_table(store / part) for part in listing.parts])
        return
    names = [f"{folder}/partition-{i:05d}.parquet" for i in range(count)]
    writers: dict[int, pq.ParquetWriter] = {}
    (store / folder).mkdir(parents=True, exist_ok=True)
    for part in listing.parts:
        table = pq.read_table(store / part)
        which = (_keys(table) >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)
        for i in np.unique(which):
            if i not in writers:
                writers[i] = pq.ParquetWriter(store / names[i], table.schema)
            writers[i].write_table(table.filter(pa.array(which == i)))
    for writer in writers.values():
        writer.close()
    for i in sorted(writers):
        yield pq.read_table(store / names[i])
        (store / names[i]).unlink()


def _keys(table: pa.Table) -> Keys:
    """Hash of the size; of the name where there is no content to be equal; of the container."""
    sizes = table["bytes"].to_numpy()
    keys = mix(sizes.astype(np.uint64))
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


def _cut(table: pa.Table, unit_rows: int, read: Read) -> Iterator[pa.Table]:
    """The units of one partition: of the files of their own, then of what lies in containers."""
    table = _without_repeats(table)
    contained = _contained(table)
    yield from _cut_files(table.filter(pa.array(~contained)), unit_rows, read)
    yield from _cut_containers(table.filter(pa.array(contained)))


def _cut_files(table: pa.Table, unit_rows: int, read: Read) -> Iterator[pa.Table]:
    keys = _split_heavy(table, _keys(table), unit_rows * _HEAVY, read)
    order = pa.table({"key": keys, "uri": table["uri"]}).sort_by(
        [("key", "ascending"), ("uri", "ascending")]
    )["uri"]
    position = {uri: row for row, uri in enumerate(table["uri"].to_pylist())}
    rows = np.array([position[uri] for uri in order.to_pylist()], dtype=np.int64)
    keys, start = keys[rows], 0
    # a unit ends at the first change of key once it is full
    for end in [*np.flatnonzero(np.diff(keys)) + 1, len(keys)]:
        if end > start and (end - start >= unit_rows or end == len(keys)):
            yield table.take(pa.array(rows[start:end]))
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


def _without_repeats(table: pa.Table) -> pa.Table:
    first: dict[str, int] = {}
    for row, uri in enumerate(table["uri"].to_pylist()):
        first.setdefault(uri, row)
    return table if len(first) == table.num_rows else table.take(pa.array(first.values()))


def _split_heavy(table: pa.Table, keys: Keys, limit: int, read: Read) -> Keys:
    """Replace the key of very common sizes by the hash of each file's content."""
    values, counts = np.unique(keys, return_counts=True)
    heavy = np.flatnonzero(np.isin(keys, values[counts > limit]))
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
