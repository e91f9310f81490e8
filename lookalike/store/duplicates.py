"""Other names of stored files, by id: one Parquet file per snapshot, ascending by id.

`DuplicateSpill` takes names as they come, and writes them by id in bounded memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.metrics import Ids
from lookalike.store.files import FileRecord, remove_tree
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill
from lookalike.store.recent import Recent

SCHEMA = pa.schema([("id", pa.int64()), ("uris", pa.list_(pa.string()))])
PAIRS = pa.schema([("id", pa.int64()), ("uri", pa.string())])

_ANY_ID = (-(2**63), 2**63 - 1)
_GROUP_ROWS = 1024  # read together by whoever asks for one of them
_KEPT_BYTES = 32 << 20  # of decoded row groups
_PART_ROWS = 1 << 19  # names sorted at once, about


def write_duplicates(
    store: Store, relative: str, blocks: Iterable[Mapping[int, Sequence[str]]]
) -> tuple[FileRecord, int]:
    """Write uris by id; returns the file's record and the number of rows.

    Args:
        store: The store's root.
        relative: Path of the file below it.
        blocks: The ids of each are above those of the one before; each becomes a row group.
    """
    pairs = ([(i, uri) for i, uris in block.items() for uri in uris] for block in blocks)
    columns = (zip(*block, strict=True) for block in pairs if block)
    return _write(store, relative, (pa.table([ids, uris], schema=PAIRS) for ids, uris in columns))


class DuplicateSpill:
    """Names by id on their way to a snapshot's file, however many there are, in any order."""

    def __init__(self, folder: Path) -> None:
        """`folder` is for files in between: dropped and made anew, and gone in the end."""
        self._folder = folder
        self._files: Counter[int] = Counter()  # names by the file number of their ids
        self._spill = Spill(folder / "all", 1, PAIRS)

    def __enter__(self) -> DuplicateSpill:
        """Ready to `add`."""
        self._spill.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._spill.__exit__(kind, error, trace)

    def add(self, table: pa.Table) -> None:
        """Add names: columns id (of the row that holds the vector) and uri."""
        numbers, counts = np.unique(table["id"].to_numpy() >> 32, return_counts=True)
        self._files.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        self._spill.write(table, np.zeros(table.num_rows, dtype=np.int64))

    def write(self, store: Store, relative: str) -> tuple[FileRecord, int]:
        """Write all; returns the file's record and the number of rows, one for each id."""
        numbers = np.array(sorted(self._files), dtype=np.int64)
        ends = np.cumsum([self._files[number] for number in numbers.tolist()], dtype=np.int64)
        parts = ends // _PART_ROWS  # so a part has that many names and those of one more file
        count = int(parts.max(initial=0)) + 1
        with Spill(self._folder / "parts", count, PAIRS) as spill:
            for table in self._spill.tables(0):
                place = np.searchsorted(numbers, table["id"].to_numpy() >> 32)
                spill.write(table, parts[place])
        written = _write(store, relative, (spill.read(number) for number in range(count)))
        remove_tree(self._folder)
        return written


def _write(store: Store, relative: str, parts: Iterable[pa.Table]) -> tuple[FileRecord, int]:
    """Write names by id (`PAIRS`); the ids of each part are above those of the one before."""
    rows = 0
    with (
        store.write(relative) as pending,
        pq.ParquetWriter(pending.file, SCHEMA, compression="zstd") as writer,
    ):
        for part in parts:
            table = _grouped(part)
            if table.num_rows:
                writer.write_table(table, row_group_size=_GROUP_ROWS)
                rows += table.num_rows
    return pending.finished, rows


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
    ranges = [(s.min, s.max) if s and s.has_min_max else _ANY_ID
              for s in (group.statistics for group in groups)]  # fmt: skip
    low, high = np.array(ranges, dtype=np.int64).reshape(-1, 2).T
    return _File(path, footer, low, high)
