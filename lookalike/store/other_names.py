"""Other names of stored files, by id, out of the ledger parts of a run.

Most duplicates lie in the unit of the file that they repeat. Those of other units (see
`unit_duplicates`) are first dealt out to files by the unit they point to, so that memory holds the
names of a few units at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.records import Unit
from lookalike.store.ledger import read_ledger
from lookalike.store.storage import remove_tree

_SCHEMA = pa.schema([("id", pa.int64()), ("uri", pa.string())])
_FILES = 64
_BATCH = 4096


def other_names(
    store: Path, units: Sequence[Unit], folder: str, *, crossing: bool
) -> Iterator[dict[int, list[str]]]:
    """Names by id, a unit at a time; the ids of each are above those of the one before.

    Args:
        store: The store's root.
        units: All units of the run, in order.
        folder: For intermediate files, relative to the store; it is removed at the end.
        crossing: Whether duplicates may point to other units.
    """
    scratch = store / folder
    remove_tree(scratch)
    if crossing:
        _deal_out(store, units, scratch)
    dealt: dict[int, list[tuple[int, str]]] = {}
    for number, unit in enumerate(units):
        if crossing and number == _first_unit(_file(number, units), units):
            dealt = _read(scratch / f"{_file(number, units)}.parquet")
        found: dict[int, list[str]] = defaultdict(list)
        for row_id, uri in dealt.get(unit.file_no, ()):
            found[row_id].append(uri)
        for row_id, uri in _duplicates(store, unit):
            if row_id >> 32 == unit.file_no:
                found[row_id].append(uri)
        yield dict(found)
    remove_tree(scratch)


def _duplicates(store: Path, unit: Unit) -> Iterator[tuple[int, str]]:
    for row in read_ledger(store / unit.ledger, "duplicate"):
        if row.id is not None:
            yield row.id, row.uri


def _file(number: int, units: Sequence[Unit]) -> int:
    """Which file has the names that point to the unit of that number."""
    return number * min(_FILES, len(units)) // len(units)


def _first_unit(file: int, units: Sequence[Unit]) -> int:
    return -(-file * len(units) // min(_FILES, len(units)))


def _deal_out(store: Path, units: Sequence[Unit], scratch: Path) -> None:
    scratch.mkdir(parents=True)
    waiting: dict[int, list[dict[str, object]]] = defaultdict(list)
    writers: dict[int, pq.ParquetWriter] = {}
    first = units[0].file_no

    def flush(file: int) -> None:
        if file not in writers:
            writers[file] = pq.ParquetWriter(scratch / f"{file}.parquet", _SCHEMA)
        writers[file].write_table(pa.Table.from_pylist(waiting.pop(file), _SCHEMA))

    try:
        for unit in units:
            for row_id, uri in _duplicates(store, unit):
                if row_id >> 32 != unit.file_no:
                    file = _file((row_id >> 32) - first, units)
                    waiting[file].append({"id": row_id, "uri": uri})
                    if len(waiting[file]) == _BATCH:
                        flush(file)
        for file in list(waiting):
            flush(file)
    finally:
        for writer in writers.values():
            writer.close()


def _read(path: Path) -> dict[int, list[tuple[int, str]]]:
    """Names by file number."""
    found: dict[int, list[tuple[int, str]]] = defaultdict(list)
    if path.exists():
        for row in pq.read_table(path).to_pylist():
            found[row["id"] >> 32].append((row["id"], row["uri"]))
    return found
