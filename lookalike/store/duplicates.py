"""Other names of stored files, by id: one Parquet file per snapshot, ascending by id."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.metrics import Ids
from lookalike.store.storage import FileRecord, write_file

SCHEMA = pa.schema([("id", pa.int64()), ("uris", pa.list_(pa.string()))])

_ANY_ID = (-(2**63), 2**63 - 1)


def write_duplicates(
    store: Path, relative: str, blocks: Iterable[Mapping[int, Sequence[str]]]
) -> tuple[FileRecord, int]:
    """Write uris by id; returns the file's record and the number of rows.

    Args:
        store: The store's root.
        relative: Path of the file below it.
        blocks: The ids of each are above those of the one before; each becomes a row group.
    """
    rows = 0
    with (
        write_file(store, relative) as pending,
        pq.ParquetWriter(pending.file, SCHEMA, compression="zstd") as writer,
    ):
        for block in blocks:
            table = [{"id": i, "uris": sorted(block[i])} for i in sorted(block)]
            if table:
                writer.write_table(pa.Table.from_pylist(table, SCHEMA))
                rows += len(table)
    return pending.finished, rows


class DuplicateReader:
    """Duplicates by id; only row groups that may hold them are read. Threads may share one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read the footers of those files."""
        self._files: list[tuple[Path, list[tuple[int, int]]]] = []
        for path in paths:
            footer = pq.read_metadata(path)
            column = footer.schema.names.index("id")
            groups = [footer.row_group(i).column(column) for i in range(footer.num_row_groups)]
            # A group without statistics may hold anything, so it is read each time.
            ranges = [(s.min, s.max) if s and s.has_min_max else _ANY_ID
                      for s in (group.statistics for group in groups)]  # fmt: skip
            self._files.append((path, ranges))

    def of(self, ids: Ids) -> dict[int, tuple[str, ...]]:
        """The duplicates of those ids (ascending) that have any, sorted."""
        found: dict[int, tuple[str, ...]] = {}
        wanted = ids.tolist()
        for path, ranges in self._files:
            groups = [
                group
                for group, (low, high) in enumerate(ranges)
                if bisect_left(wanted, low) < bisect_left(wanted, high + 1)
            ]
            if not groups:
                continue
            with pq.ParquetFile(path) as file:
                for group in groups:
                    table = file.read_row_group(group, columns=["id", "uris"])
                    kept = np.flatnonzero(np.isin(table["id"].to_numpy(), ids))
                    for row in table.take(kept).to_pylist():
                        found[row["id"]] = tuple(sorted(row["uris"]))
        return found
