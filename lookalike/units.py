"""Cutting a listing into work units, in bounded memory and so that duplicates meet.

Two files with the same bytes have the same size. Units are therefore cut along the *hash of the
size*: all files of one size land in one unit, where the first of equal content is embedded and the
others become its duplicates, with no shuffle of contents and no file read twice. Hashing also mixes
folders, so that no unit holds all the large pictures. Only a size shared by very many files (say
bitmaps of one shape) would make too large a unit: those are read beforehand and cut along their
content's hash instead, which keeps the property.

    listing stream -> parts (<= 100,000 rows) -> partitions by hash -> sorted -> units
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.records import SourceFile
from lookalike.storage import write_file

_PART_ROWS = 100_000
_PARTITION_ROWS = 500_000
_HEAVY = 4  # a size class of more than this many units' rows is cut by content
_BASE = ("uri", "bytes", "version", "problem")

Keys = npt.NDArray[np.uint64]
Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Listing:
    """A finished listing: its part files, in order, and the number of rows."""

    parts: tuple[str, ...]
    rows: int


def listing_schema(metadata: pa.Schema) -> pa.Schema:
    """Columns of listing and unit files."""
    base: list[pa.Field] = [
        pa.field("uri", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("problem", pa.string()),
    ]
    return pa.schema([*base, *metadata])


def write_listing(
    store: Path, folder: str, files: Iterable[SourceFile], schema: pa.Schema
) -> Listing:
    """Write the stream of files to part files under `store/folder`."""
    stream, rows = iter(files), 0
    parts: list[str] = []
    while chunk := list(islice(stream, _PART_ROWS)):
        name = f"{folder}/{len(parts):05d}.parquet"
        _write_table(store, name, _to_table(chunk, schema))
        parts.append(name)
        rows += len(chunk)
    return Listing(tuple(parts), rows)


def read_files(path: Path) -> Iterator[SourceFile]:
    """Rows of a listing or unit file."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                base = {name: row.pop(name) for name in _BASE}
                yield SourceFile(**base, metadata=row)


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
            _write_table(store, name, unit)
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
    count = -(-listing.rows // _PARTITION_ROWS)
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
    """Hash of the size; of the name where there is no content to be equal."""
    sizes = table["bytes"].to_numpy()
    keys = mix(sizes.astype(np.uint64))
    for row in np.flatnonzero(sizes <= 0):
        digest = hashlib.sha256(table["uri"][int(row)].as_py().encode()).digest()
        keys[row] = int.from_bytes(digest[:8], "little")
    return keys


def _cut(table: pa.Table, unit_rows: int, read: Read) -> Iterator[pa.Table]:
    table = _without_repeats(table)
    keys = _split_heavy(table, _keys(table), unit_rows * _HEAVY, read)
    order = pa.table({"key": keys, "uri": table["uri"]}).sort_by(
        [("key", "ascending"), ("uri", "ascending")]
    )["uri"]
    position = {uri: row for row, uri in enumerate(table["uri"].to_pylist())}
    rows = np.array([position[uri] for uri in order.to_pylist()], dtype=np.int64)
    keys, start = keys[rows], 0
    # a unit ends at the first change of key once it is full
    for end in [*np.flatnonzero(np.diff(keys)) + 1, len(keys)]:
        if end - start >= unit_rows or end == len(keys):
            yield table.take(pa.array(rows[start:end]))
            start = end


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
            return int.from_bytes(hashlib.sha256(read(uri)).digest()[:8], "little")
        except OSError:  # reported when its unit is embedded; any unit will do
            return int.from_bytes(hashlib.sha256(uri.encode()).digest()[:8], "little")

    keys, uris = keys.copy(), table["uri"].take(pa.array(heavy)).to_pylist()
    with ThreadPoolExecutor(16) as pool:
        keys[heavy] = np.fromiter(pool.map(content_key, uris), dtype=np.uint64, count=len(heavy))
    return keys


def _to_table(files: list[SourceFile], schema: pa.Schema) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for file in files:
        for name in _BASE:
            columns[name].append(getattr(file, name))
        for column in schema:
            if column.name not in _BASE:
                columns[column.name].append(_fit(file.metadata.get(column.name), column.type))
    return pa.table(columns, schema=schema)


def _fit(value: object, kind: pa.DataType) -> object:
    """Sources may disagree on a column's type (see sources.metadata_schema)."""
    if pa.types.is_floating(kind) and isinstance(value, int):
        return float(value)
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    return str(value)


def _write_table(store: Path, relative: str, table: pa.Table) -> None:
    with write_file(store, relative) as pending:
        pq.write_table(table, pending.file, compression="zstd")
