"""Other names of stored files, by id: Parquet files of a snapshot, each ascending by id.

A file has the names of the rows of some embedding shards, so that their number is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.distances import Ids
from lookalike.store.files import FileRecord, Name
from lookalike.store.objects import Store
from lookalike.store.recent import Recent

SCHEMA = pa.schema([("id", pa.int64()), ("uris", pa.list_(pa.string()))])
PAIRS = pa.schema([("id", pa.int64()), ("uri", pa.string())])

_ANY_ID = (-(2**63), 2**63 - 1)
_GROUP_ROWS = 1024  # read together by whoever asks for one of them
_KEPT_BYTES = 32 << 20  # of decoded row groups
_PART_ROWS = 1 << 18  # names of one file, about: shards have more or less of them


def cuts(files: Sequence[int], names: int) -> tuple[int, ...]:
    """At which file numbers so many names are cut into files by ids; () where one will do."""
    count = min(len(files), max(1, -(-names // _PART_ROWS)))
    return tuple(files[number * len(files) // count] for number in range(1, count))


def write_duplicates(store: Store, name: Name, pairs: pa.Table) -> tuple[FileRecord, int]:
    """Write names by id (`PAIRS`, in any order): the file's record, and rows, one for each id."""
    table = _grouped(pairs)
    with (
        store.write(name) as pending,
        pq.ParquetWriter(pending.file, SCHEMA, compression="zstd") as writer,
    ):
        if table.num_rows:
            writer.write_table(table, row_group_size=_GROUP_ROWS)
    return pending.finished, table.num_rows


def _grouped(pairs: pa.Table) -> pa.Table:
    """One row for each id, with its names sorted."""
    pairs = pairs.sort_by([("id", "ascending"), ("uri", "ascending")]).combine_chunks()
    ids = pairs["id"].to_numpy()
    starts = np.flatnonzero(np.diff(ids, prepend=-1))
    offsets = pa.array(np.append(starts, len(ids)), pa.int32())
    values = pa.concat_arrays(pairs["uri"].chunks) if len(ids) else pa.array([], pa.string())
    uris = pa.ListArray.from_arrays(offsets, values)
    return pa.table([ids[starts], uris], schema=SCHEMA)


@dataclass(frozen=True)
class _File:
    """A file's footer, and the least and the greatest id of each row group, (groups,) int64."""

    path: str
    footer: pq.FileMetaData
    low: Ids
    high: Ids


class DuplicateReader:
    """Duplicates by id; only row groups that may hold them are read. Threads may share one."""

    def __init__(self, store: Store, paths: Sequence[str]) -> None:
        """Read the footers of those files."""
        self._store, self._files = store, [_file(store, path) for path in paths]
        self._lock = Lock()  # of what follows
        self._groups: Recent[tuple[str, int], pa.Table]
        self._groups = Recent(_KEPT_BYTES, lambda table: int(table.nbytes))

    def of(self, ids: Ids) -> dict[int, tuple[str, ...]]:
        """The duplicates of those ids (ascending) that have any, sorted."""
        found: dict[int, tuple[str, ...]] = {}
        for file in self._files:
            starts = np.searchsorted(ids, file.low)
            ends = np.searchsorted(ids, file.high, side="right")
            for group in np.flatnonzero(starts < ends).tolist():
                table = self._group(file, group)
                own = ids[starts[group] : ends[group]]
                keys = table["id"].to_numpy()
                places = np.minimum(np.searchsorted(keys, own), len(keys) - 1)
                there = keys[places] == own
                for i, place in zip(own[there].tolist(), places[there].tolist(), strict=True):
                    found[i] = tuple(sorted(table["uris"][place].as_py()))
        return found

    def ids(self) -> Iterator[Ids]:
        """Those of all rows that have duplicates, some at a time."""
        for file in self._files:
            with pq.ParquetFile(self._store.parquet(file.path), metadata=file.footer) as opened:
                for batch in opened.iter_batches(columns=["id"], use_threads=False):
                    yield batch["id"].to_numpy()

    def rows_of(self, uris: pa.Array) -> Iterator[tuple[str, int]]:
        """Those of the uris that are duplicates, with the id of the row; reads all there are."""
        for file in self._files:
            with pq.ParquetFile(self._store.parquet(file.path), metadata=file.footer) as opened:
                for batch in opened.iter_batches(columns=["id", "uris"], use_threads=False):
                    names = pc.list_flatten(batch["uris"])
                    rows = batch["id"].take(pc.list_parent_indices(batch["uris"]))
                    mine = pc.is_in(names, uris)
                    yield from zip(
                        names.filter(mine).to_pylist(), rows.filter(mine).to_pylist(), strict=True
                    )

    def _group(self, file: _File, group: int) -> pa.Table:
        """One row group, which is kept: another query for the same names finds it decoded."""
        with self._lock:
            table = self._groups.get((file.path, group))
        if table is None:
            with pq.ParquetFile(self._store.parquet(file.path), metadata=file.footer) as opened:
                table = opened.read_row_group(group, columns=["id", "uris"], use_threads=False)
            with self._lock:
                self._groups.put((file.path, group), table)
        return table


def _file(store: Store, path: str) -> _File:
    footer = pq.read_metadata(store.parquet(path))
    column = footer.schema.names.index("id")
    groups = [footer.row_group(i).column(column) for i in range(footer.num_row_groups)]
    # A group without statistics may hold anything, so it is read for every id.
    ranges = [
        (s.min, s.max) if s and s.has_min_max else _ANY_ID
        for s in (group.statistics for group in groups)
    ]
    low, high = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    return _File(path, footer, low, high)
