"""The ledger of a snapshot: what stands from the last one, with what a run resolved in its place.

    carried rows, resolved rows -> a partition of names, sorted -> ledger file, duplicates by id

A file of the ledger is one partition of names (see `partitions`), so memory holds one at a time.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.compared import files_of
from lookalike.reconcile.resolving import Resolved
from lookalike.store.duplicates import DuplicateSpill
from lookalike.store.ledger import SCHEMA, as_known, ledger_tables, write_ledger_tables
from lookalike.store.objects import Store
from lookalike.store.partitions import uri_hashes
from lookalike.store.shard_format import Ids

_SLICE_ROWS = 1 << 16  # of a row group

Line = dict[str, Any]
Move = Callable[[Ids], Ids]


def assemble(
    store: Store, folder: str, compared: str, resolved: str, *, moved: Move | None
) -> list[Line]:
    """Write a snapshot's ledger and the names of its duplicates; returns the manifest's lines.

    Args:
        store: The store's root; all other paths are relative to it.
        folder: Of the snapshot, as `snapshots/<name>`.
        compared: Where `compare` wrote.
        resolved: Where `resolve` wrote.
        moved: New ids (n,) of ids (n,), when rows were moved since; None when none was.
    """
    parts = Resolved.from_json(store.read_json(f"{resolved}/resolved.json")).parts
    lines: list[Line] = []
    with DuplicateSpill(store.scratch(f"{resolved}/duplicates")) as names:
        for number in range(parts):
            name = f"{number:05d}.parquet"
            carried = files_of(store, compared, "carried", number)
            rows = _merged(store, carried, f"{resolved}/rows/{name}")
            if rows.num_rows:
                line = _write(store, f"{folder}/ledger/{name}", [_with_ids(rows, moved)], names)
                lines.append({**line, "partition": [number, parts]})
    return [*lines, _duplicates(store, folder, names)]


def rewrite_ledger(
    store: Store,
    lines: Sequence[Mapping[str, Any]],
    folder: str,
    *,
    keep: Callable[[pa.Table], npt.NDArray[np.bool_]] | None,
    moved: Move | None,
) -> list[Line]:
    """The same for a ledger of which only rows are left out, or ids change.

    Args:
        store: The store's root.
        lines: The manifest's lines of the ledger.
        folder: Of the new snapshot, relative to the store.
        keep: Which rows (n,) of a table of ledger rows stay; None for all.
        moved: New ids (n,) of ids (n,); None when all stay what they are.
    """
    found: list[Line] = []
    with DuplicateSpill(store.scratch(f"runs/duplicates-{uuid.uuid4().hex}")) as names:
        for number, line in enumerate(lines):

            def rows(path: str = str(line["path"])) -> Iterator[pa.Table]:
                for table in ledger_tables(store.local(path)):
                    kept = table if keep is None else table.filter(pa.array(keep(table)))
                    yield _with_ids(kept, moved)

            written = _write(store, f"{folder}/ledger/{number:05d}.parquet", rows(), names)
            if not written["rows"]:
                store.delete([written["path"]])
                continue
            if "partition" in line:
                written["partition"] = list(line["partition"])
            found.append(written)
    return [*found, _duplicates(store, folder, names)]


def samples(store: Store, compared: str, resolved: str, k: int) -> dict[str, list[dict[str, Any]]]:
    """Up to `k` ledger rows of each kind of change, chosen by a hash of their names.

    Returns:
        Rows, as dictionaries, under "added", "changed", "removed", "renamed" (with the name that
        went, `previous`) and, of all that are rejected, "rejected:<reason>". What there is none of
        is not there.
    """
    found: dict[str, list[tuple[int, str, dict[str, Any]]]] = {}

    def offer(kind: str, table: pa.Table) -> None:
        hashes = uri_hashes(table["uri"])
        few = np.argsort(hashes, kind="stable")[:k]
        rows = table.take(pa.array(few)).to_pylist()
        new = [(int(hashes[i]), row["uri"], row) for i, row in zip(few, rows, strict=True)]
        best = heapq.nsmallest(k, [*found.get(kind, ()), *new], key=lambda one: one[:2])
        if best:
            found[kind] = best

    def offer_rejected(table: pa.Table) -> None:
        rejected = table.filter(pc.equal(table["status"], "rejected"))
        for reason in pc.unique(rejected["reason"]).to_pylist():
            offer(f"rejected:{reason}", rejected.filter(pc.equal(rejected["reason"], reason)))

    previous = pq.read_table(store.local(f"{resolved}/renames.parquet"))
    for path in map(store.local, store.files(f"{resolved}/rows", ".parquet")):
        table = pq.read_table(path)
        rows = table.select(SCHEMA.names)
        for change in ("added", "changed", "removed"):
            offer(change, rows.filter(pc.equal(table["change"], change)))
        place = pc.index_in(rows["uri"], value_set=previous["uri"])
        renamed = rows.append_column("previous", previous["previous"].take(place))
        offer("renamed", renamed.filter(place.is_valid()))
        offer_rejected(rows)
    for path in map(store.local, files_of(store, compared, "carried")):
        for table in ledger_tables(path, "rejected"):
            offer_rejected(table)
    return {kind: [row for _, _, row in rows] for kind, rows in sorted(found.items())}


# --- one file -----------------------------------------------------------------------------------


def _merged(store: Store, carried: Sequence[str], rows: str) -> pa.Table:
    """The rows of one partition, by name: the resolved ones, and the carried ones beside them."""
    new = SCHEMA.empty_table()
    if store.has(rows):
        new = pq.read_table(store.local(rows), columns=SCHEMA.names)
    for path in carried:
        old = pq.read_table(store.local(path), columns=SCHEMA.names)
        if new.num_rows:
            old = old.filter(pc.invert(pc.is_in(old["uri"], value_set=new["uri"])))
        new = pa.concat_tables([old.cast(SCHEMA), new.cast(SCHEMA)])
    return new.sort_by("uri")


def _with_ids(table: pa.Table, moved: Move | None) -> pa.Table:
    """The table with its ids as they are after moving."""
    if moved is None:
        return table
    ids = table["id"].combine_chunks()
    there = ids.is_valid().to_numpy(zero_copy_only=False)
    values = ids.fill_null(0).to_numpy().copy()
    values[there] = moved(values[there])
    column = pa.array(values, mask=~there)
    return table.set_column(table.schema.get_field_index("id"), "id", column)


def _write(store: Store, relative: str, tables: Iterable[pa.Table], names: DuplicateSpill) -> Line:
    """Write one ledger file, and collect the names of its duplicates."""

    def sliced() -> Iterator[pa.Table]:
        for table in tables:
            status = as_known(table)["status"]
            again = pc.and_(pc.equal(status, "duplicate"), table["id"].is_valid())
            names.add(table.filter(again).select(["id", "uri"]))
            for start in range(0, table.num_rows, _SLICE_ROWS):
                yield table.slice(start, _SLICE_ROWS)

    record, rows = write_ledger_tables(store, relative, sliced())
    return {**record.to_json(), "kind": "ledger", "rows": rows}


def _duplicates(store: Store, folder: str, names: DuplicateSpill) -> Line:
    record, rows = names.write(store, f"{folder}/duplicates.parquet")
    return {**record.to_json(), "kind": "duplicates", "rows": rows}
