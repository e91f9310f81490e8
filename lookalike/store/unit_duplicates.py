"""Equal files of different units become one vector, after all units of a run are embedded.

Equal files of their own meet in one unit, since units are cut by size (see `units`); what lies in
containers is cut along the containers, so equal bytes may have been embedded in several units. The
row with the smallest id stays. The others are taken out of their shards, which shifts the ids of
the rows after them, and their files become duplicates of the one that stays.

What is to be done is written down first, and then done unit by unit from the last to the first, so
that the rows which stay are looked up in units that are still as they were embedded. A run that is
killed at any instant finds out how far it came, and ends with the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.records import Unit
from lookalike.store import shards
from lookalike.store.ledger import Counts, LedgerRow, read_ledger, write_ledger
from lookalike.store.shards import Ids, make_id
from lookalike.store.storage import file_record, read_json, sha256_file, write_file, write_json

_ROWS = 4_000_000  # compared at once, of about 100 bytes each
_PLAN = pa.schema([("dropped", pa.int64()), ("kept", pa.int64())])


@dataclass(frozen=True)
class _Plan:
    """Rows to take out (ids, ascending), and for each the id of the row that stays.

    All ids are those from before.
    """

    dropped: Ids
    kept: Ids

    def of(self, unit: Unit) -> _Plan:
        """The part that takes rows out of one unit."""
        ends = [make_id(unit.file_no, 0), make_id(unit.file_no + 1, 0)]
        low, high = np.searchsorted(self.dropped, ends)
        return _Plan(self.dropped[low:high], self.kept[low:high])

    def shifted(self, ids: Ids) -> Ids:
        """The ids of rows that stay, once the others are gone."""
        first_of_file = ids >> 32 << 32
        before = np.searchsorted(self.dropped, ids) - np.searchsorted(self.dropped, first_of_file)
        return ids - before


def have_containers(store: Path, units: Sequence[Unit]) -> bool:
    """Whether any unit holds what lies in containers; without, there is nothing to merge."""
    for unit in units:
        column = pq.read_table(store / unit.source, columns=["_container"])["_container"]
        if pc.any(pc.not_equal(column, "")).as_py():
            return True
    return False


def merge_duplicates(store: Path, units: Sequence[Unit], folder: str) -> int:
    """Make one vector of equal files of several units; returns how many rows are taken out.

    Args:
        store: The store's root.
        units: All units of the run, embedded, in order.
        folder: Of the run's scratch, relative to the store, for what this step must remember.
    """
    finished = store / folder / "merged.json"
    if finished.exists():
        return int(read_json(finished)["rows"])
    path = store / folder / "plan.parquet"
    if not path.exists():
        _write_plan(store, f"{folder}/plan.parquet", _find(store, units))
    table = pq.read_table(path)
    plan = _Plan(table["dropped"].to_numpy(), table["kept"].to_numpy())
    names = _Names(store, units)
    for unit in reversed(units):
        part = plan.of(unit)
        if len(part.dropped):
            _rewrite(store, unit, part, plan, names)
    write_json(store, f"{folder}/merged.json", {"rows": len(plan.dropped)})
    return len(plan.dropped)


# --- what is to be done -----------------------------------------------------------------------


def _find(store: Path, units: Sequence[Unit]) -> _Plan:
    """Compare the contents of all rows, by parts of the range of their hashes."""
    embedded = sum(read_json(store / unit.done)["counts"]["embedded"] for unit in units)
    parts = max(1, -(-embedded // _ROWS))
    found = [_equal(*_hashes(store, units, part, parts)) for part in range(parts)]
    dropped = np.concatenate([one.dropped for one in found])
    kept = np.concatenate([one.kept for one in found])
    order = np.argsort(dropped)
    return _Plan(dropped[order], kept[order])


def _hashes(
    store: Path, units: Sequence[Unit], part: int, parts: int
) -> tuple[npt.NDArray[np.uint64], Ids]:
    """Hashes (n, 4) uint64 and ids (n,) of the embedded rows of one part of the hashes' range."""
    hashes = [np.empty((0, 4), dtype=np.uint64)]
    ids = [np.empty(0, dtype=np.int64)]
    for unit in units:
        table = pq.read_table(store / unit.ledger, columns=["status", "content_sha256", "id"])
        table = table.filter(pc.equal(table["status"], "embedded"))
        joined = b"".join(table["content_sha256"].to_pylist())
        block = np.frombuffer(joined, dtype=">u8").astype(np.uint64).reshape(-1, 4)
        which = (block[:, 0] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
        hashes.append(block[which == part])
        ids.append(table["id"].to_numpy()[which == part])
    return np.concatenate(hashes), np.concatenate(ids)


def _equal(hashes: npt.NDArray[np.uint64], ids: Ids) -> _Plan:
    """Of each run of equal hashes the smallest id stays."""
    order = np.lexsort((ids, *hashes.T))
    hashes, ids = hashes[order], ids[order]
    repeats = np.zeros(len(ids), dtype=bool)
    repeats[1:] = (hashes[1:] == hashes[:-1]).all(axis=1)
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(ids))))
    return _Plan(ids[repeats], ids[first[repeats]])


def _write_plan(store: Path, relative: str, plan: _Plan) -> None:
    with write_file(store, relative) as pending:
        table = pa.table([plan.dropped, plan.kept], schema=_PLAN)
        pq.write_table(table, pending.file, compression="zstd")


# --- doing it ---------------------------------------------------------------------------------


class _Names:
    """Names of rows that stay, out of shards that are as they were embedded."""

    def __init__(self, store: Path, units: Sequence[Unit]) -> None:
        paths = {unit.file_no: store / unit.shard for unit in units}

        @lru_cache(maxsize=64)
        def names(file_no: int) -> pa.ChunkedArray:
            return pq.read_table(paths[file_no], columns=["uri"])["uri"]

        self._names = names

    def of(self, row_id: int) -> str:
        name: str = self._names(row_id >> 32)[row_id & 0xFFFFFFFF].as_py()
        return name


def _rewrite(store: Path, unit: Unit, part: _Plan, plan: _Plan, names: _Names) -> None:
    """Change a unit's ledger, take the rows out of its shard, and last write its done file.

    The old done file says what the other two were before, so each is seen to be old or new.
    """
    done = read_json(store / unit.done)
    if done.get("merged"):
        return
    if sha256_file(store / unit.ledger)[0] == done["ledger"]["sha256"]:
        write_ledger(store, unit.ledger, _new_rows(store, unit, part, plan, names))
    counts = Counts()
    for row in read_ledger(store / unit.ledger):
        counts.add(row)
    rows = done["shard"]["rows"]
    left = rows - len(part.dropped)
    if not left:
        (store / unit.shard).unlink(missing_ok=True)
    elif shards.count_rows(store / unit.shard) == rows:
        _take_out(store, unit, part.dropped)
    shard = file_record(store, unit.shard) if left else None
    done = {
        "counts": counts.to_json(),
        "ledger": file_record(store, unit.ledger).to_json(),
        "shard": shards.shard_record(shard, unit.file_no, left) if shard else None,
        "merged": True,
    }
    write_json(store, unit.done, done)


def _take_out(store: Path, unit: Unit, dropped: Ids) -> None:
    path = store / unit.shard
    schema = pq.read_schema(path)
    others = [name for name in schema.names if name not in ("id", "embedding")]
    rows = shards.iter_rows(path, others)
    with shards.open_shard(store, unit.shard, schema, unit.file_no) as (writer, _):
        for ids, vectors in shards.iter_blocks(path):
            for stays, vector in zip(~np.isin(ids, dropped), vectors, strict=True):
                row = next(rows)
                if stays:
                    writer.append(row, vector)


def _new_rows(
    store: Path, unit: Unit, part: _Plan, plan: _Plan, names: _Names
) -> Iterator[LedgerRow]:
    kept: Mapping[int, int] = dict(zip(part.dropped.tolist(), part.kept.tolist(), strict=True))
    for row in read_ledger(store / unit.ledger):
        if row.id is None:
            yield row
        elif row.id in kept:
            stays = kept[row.id]
            yield replace(row, status="duplicate", detail=names.of(stays), id=_new(plan, stays))
        else:
            yield replace(row, id=_new(plan, row.id))


def _new(plan: _Plan, row_id: int) -> int:
    return int(plan.shifted(np.array([row_id]))[0])
