"""Resolving a run: what its units found, put together with what stands from the last ledger.

    units' rows, gone rows, carried rows of their contents
        -> by content: main names, rows kept, rows to copy, dead ids
        -> by name, with the rows that have no content: ledger rows, what changed

Rows are dealt out to files by their content, then by their name, so memory holds some hundred
thousand at a time. Of the carried rows only those that share a content with a touched one take
part; the others are read once, as they stream by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.compared import Comparison, files_of
from lookalike.reconcile.comparing import GONE as GONE_ROWS
from lookalike.reconcile.concluding import as_removed, conclude
from lookalike.reconcile.contents import CARRIED, GONE, ROWS, UNIT, settle
from lookalike.reconcile.copying import CopyPlan
from lookalike.reconcile.hashed import HashFilter, content_hashes, content_partitions
from lookalike.reconcile.renames import MOVED, RENAMES, pair_renames
from lookalike.reconcile.resolved import Resolved
from lookalike.reconcile.unread import Unread
from lookalike.store.files import remove_tree
from lookalike.store.ledger import (
    SCHEMA,
    UNKNOWN,
    Counts,
    as_written_now,
    check_balance,
    is_unknown,
)
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill, uri_partitions
from lookalike.store.shard_format import Ids, file_numbers, make_id

__all__ = ["Resolved", "resolve"]

_SETTLED = pa.schema([*SCHEMA, ("was", pa.string())])  # see `contents.Settled`
_PART_ROWS = 1 << 17  # dealt out to one file, about
_BATCH = 1 << 16


def resolve(
    store: Store,
    ledgers: Mapping[int, str],
    compared: str,
    folder: str,
    *,
    by_content: bool,
    first_file_no: int,
    metadata: pa.Schema,
    listing: Sequence[str],
    shards: Mapping[int, str],
) -> Resolved:
    """Settle names, ids and ledger rows of everything that this run touched.

    Writes below `folder`: `dead.npy` (ids that are tombstones from now on, int64, ascending),
    `copies/NNNNN.parquet` (rows to be written as shard `first_file_no` + N, see `CopyPlan`),
    `rows/NNNNN.parquet` by partition of names (`concluding.RESOLVED`), `renames.parquet`
    (`RENAMES`), and last `resolved.json`; where that is there already, nothing is done again.

    Args:
        store: The store's root; all other paths are relative to it.
        ledgers: Ledgers of the run's units, all done, by the file number of each.
        compared: Where `compare` wrote.
        folder: Of the run's scratch.
        by_content: Names of equal content share a vector; else every name stands alone.
        first_file_no: Of the first shard of copies; above those of the units.
        metadata: The metadata columns.
        listing: Files of the whole listing, in order; of a name listed twice the first row counts.
        shards: Embedding shards by file number; those of the units need not be among them.

    Raises:
        RuntimeError: The sums do not balance, or an id leads nowhere: the run must not publish.
    """
    done = f"{folder}/resolved.json"
    if store.has(done):
        return Resolved.from_json(store.read_json(done))
    store.delete_below(folder)
    run = _Resolving(store, ledgers, compared, folder, by_content)
    run.find_unread()
    plan = CopyPlan(store, f"{folder}/copies", first_file_no)
    files = {*shards, *ledgers}
    run.settle(plan, files)
    plan.finish(metadata, listing)
    run.conclude({*files, *plan.file_numbers})
    renamed = run.pair()
    dead = run.dead()
    with store.write(f"{folder}/dead.npy") as pending:
        np.lib.format.write_array(pending.file, dead, version=(1, 0), allow_pickle=False)
    resolved = Resolved(
        run.balanced().to_json(), run.changes(renamed), plan.rows, len(dead), run.altered,
        run.parts, run.unread.rows,
    )  # fmt: skip
    for name in ("contents", "settled", "moved", "copies-metadata"):
        remove_tree(store.scratch(f"{folder}/{name}"))
    store.delete_below(f"{folder}/unread")
    store.write_json(done, resolved.to_json())
    return resolved


class _Resolving:
    """The steps of `resolve`, and what they count."""

    def __init__(
        self,
        store: Store,
        ledgers: Mapping[int, str],
        compared: str,
        folder: str,
        by_content: bool,
    ) -> None:
        self._store, self._folder, self._by_content = store, folder, by_content
        self._compared = compared
        self._found = Comparison.from_json(store.read_json(f"{compared}/compared.json"))
        self.parts = self._found.parts
        self._ledgers = list(ledgers.values())
        self._gone = {
            number: files_of(store, compared, "gone", number) for number in range(self.parts)
        }
        self._first_new = make_id(min(ledgers), 0) if ledgers else 2**63 - 1
        touched = sum(_rows(store, path) for path in [*self._ledgers, *chain(*self._gone.values())])
        self._content_parts = max(1, -(-touched // _PART_ROWS))
        scratch = store.scratch(folder)
        self._settled = Spill(scratch / "settled", self.parts, _SETTLED)
        self._contents = Spill(scratch / "contents", self._content_parts, ROWS)
        self._moved = Spill(scratch / "moved", self._content_parts, MOVED)
        self._counts = Counts()
        self._carried = self._rehashed = 0
        self.altered = self._found.shifted
        self.unread = Unread(store, compared, f"{folder}/unread", self.parts)
        self._changed: Counter[str] = Counter()
        self._dead: list[Ids] = [np.empty(0, dtype=np.int64)]

    def find_unread(self) -> None:
        """Take back the rows of files that were known and could not be read."""
        self.unread.find(self._ledgers)
        self.altered += self.unread.altered

    # --- by content -----------------------------------------------------------------------------

    def settle(self, plan: CopyPlan, files: set[int]) -> None:
        """Bring names of equal content together, a part of the contents at a time."""
        with self._settled:
            with self._contents:
                self._deal_out()
            for number in range(self._content_parts):
                table = self._contents.read(number)
                if not table.num_rows:
                    continue
                found = settle(table, self._first_new, plan.ids)
                _check_ids(found.copies["source"], files)
                plan.add(found.copies)
                self._dead.append(found.dead)
                self._settled.write(found.rows, uri_partitions(found.rows["uri"], self.parts))

    def _deal_out(self) -> None:
        """The units' rows; and gone and carried ones, as far as contents bring them together."""
        touched = HashFilter()
        for path in self._ledgers:
            for table in _tables(self._store.local(path)):
                shares = table["id"].is_valid() if self._by_content else _none(table)
                self._deal(table.filter(shares), UNIT, touched)
                alone = table.filter(pc.invert(shares))
                alone = alone.append_column("was", pa.repeat("", alone.num_rows))
                self._settled.write(alone, uri_partitions(alone["uri"], self.parts))
        if self._by_content:
            for number, paths in self._gone.items():
                kept = self.unread.kept(f"{number:05d}.parquet")["uri"]
                for table in chain.from_iterable(_tables(self._store.local(one)) for one in paths):
                    goes = pc.invert(pc.is_in(table["uri"], value_set=kept))
                    self._deal(table.filter(pc.and_(table["id"].is_valid(), goes)), GONE, touched)
        carried = files_of(self._store, self._compared, "carried")
        for stands in [*carried, *self.unread.paths]:
            for table in _tables(self._store.local(stands)):
                _count(self._counts, table)
                self._carried += table.num_rows - pc.sum(is_unknown(table)).as_py()
                if self._by_content:
                    stored = table.filter(table["id"].is_valid())
                    shares = touched.among(content_hashes(stored["content_sha256"])[1])
                    self._deal(stored.filter(pa.array(shares)), CARRIED, None)

    def _deal(self, table: pa.Table, origin: int, touched: HashFilter | None) -> None:
        if not table.num_rows:
            return
        first, second = content_hashes(table["content_sha256"])
        if touched is not None:
            touched.add(second)
        which = first.astype(np.int64) * self._content_parts >> 32
        origins = pa.repeat(pa.scalar(origin, pa.int8()), table.num_rows)
        self._contents.write(table.append_column("origin", origins), which)

    # --- by name --------------------------------------------------------------------------------

    def conclude(self, files: set[int]) -> None:
        """Compare the rows settled with those that they take the place of, and write them."""
        with self._moved:
            for number in range(self.parts):
                name = f"{number:05d}.parquet"
                rows = self._settled.read(number)
                gone = self._gone_from(number)
                if rows.num_rows or gone.num_rows:
                    _check_ids(rows["id"], files)
                    table = self._resolved(rows, gone, self.unread.kept(name))
                    with self._store.write(f"{self._folder}/rows/{name}") as pending:
                        pq.write_table(table, pending.file, compression="zstd")

    def _gone_from(self, number: int) -> pa.Table:
        tables = (pq.read_table(self._store.local(path)) for path in self._gone[number])
        return pa.concat_tables([GONE_ROWS.empty_table(), *tables])

    def _resolved(self, rows: pa.Table, gone: pa.Table, kept: pa.Table) -> pa.Table:
        """Rows of one partition as they will be, with those removed; and their sums.

        `kept` are those that gave way and stand all the same, as their files could not be read.
        """
        back = kept["uri"]
        carried = pc.not_equal(rows["was"], "")
        rows = rows.filter(pc.or_(carried, pc.invert(pc.is_in(rows["uri"], value_set=back))))
        gone = gone.filter(pc.invert(pc.is_in(gone["uri"], value_set=back)))
        self.altered += gone["was_unknown"].drop_null().length()
        kept = kept.filter(pc.invert(pc.is_in(back, value_set=rows["uri"])))  # as they were
        found = conclude(rows, gone)
        self._rehashed += found.rehashed
        self.altered += found.altered
        if self._by_content:
            self._move(found.rows.filter(pc.equal(found.rows["change"], "added")), went=False)
            self._move(found.removed, went=True)
        else:
            old = gone["id"].drop_null().to_numpy()
            self._dead.append(old[~np.isin(old, rows["id"].drop_null().to_numpy())])
        stand = kept.append_column("change", pa.repeat("", kept.num_rows))
        table = pa.concat_tables([found.rows, as_removed(found.removed)])
        _count(self._counts, table)
        # those carried on were counted with the others that are, as what they were
        before = _tally(rows["was"].filter(pc.not_equal(rows["was"], "")))
        self._counts.by_status.subtract(before)
        self._changed.update(_tally(table["change"]))
        return pa.concat_tables([table, stand.cast(table.schema)])

    def _move(self, table: pa.Table, went: bool) -> None:
        """Keep names that came or went, to be paired."""
        table = table.filter(table["id"].is_valid())
        if table.num_rows:
            table = table.append_column("went", pa.repeat(went, table.num_rows))
            which = content_partitions(table["content_sha256"], self._moved.count)
            self._moved.write(table, which)

    def pair(self) -> int:
        """Write the renames; returns how many."""
        renamed = 0
        with (
            self._store.write(f"{self._folder}/renames.parquet") as pending,
            pq.ParquetWriter(pending.file, RENAMES, compression="zstd") as writer,
        ):
            for number in range(self._moved.count):
                pairs = pair_renames(self._moved.read(number))
                writer.write_table(pairs)
                renamed += pairs.num_rows
        return renamed

    # --- what it comes to -----------------------------------------------------------------------

    def dead(self) -> Ids:
        """All ids that are dead from now on, ascending."""
        return np.unique(np.concatenate(self._dead))

    def changes(self, renamed: int) -> dict[str, int]:
        """Files by what became of them."""
        return {
            "previous": self._found.previous,
            "unchanged": self._carried + self._rehashed,
            **{name: self._changed[name] for name in ("changed", "removed", "added")},
            "unknown": self._counts.by_status[UNKNOWN],
            "renamed": renamed,
            "rehashed": self._rehashed,
        }

    def balanced(self) -> Counts:
        """The counts.

        Raises:
            RuntimeError: A file is missing, or there is one too many.
        """
        check_balance(self._found.listed - self.unread.rows, self._counts)
        changes = self.changes(0)
        parts = {name: changes[name] for name in ("unchanged", "changed", "removed", "unknown")}
        if changes["previous"] != sum(parts.values()):
            text = ", ".join(f"{name} {count}" for name, count in parts.items())
            raise RuntimeError(
                f"the changes do not balance: {changes['previous']} files before, {text}; nothing "
                "was published"
            )
        return self._counts


# --- tables of ledger rows ----------------------------------------------------------------------


def _rows(store: Store, path: str) -> int:
    return int(pq.read_metadata(store.parquet(path)).num_rows)


def _tables(path: Path) -> Iterator[pa.Table]:
    """Ledger rows of a file, some ten thousand at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH):
            yield as_written_now(pa.Table.from_batches([batch]))


def _none(table: pa.Table) -> pa.Array:
    return pa.repeat(False, table.num_rows)


def _check_ids(ids: pa.ChunkedArray, files: set[int]) -> None:
    missing = set(np.unique(file_numbers(ids.drop_null().to_numpy())).tolist()) - files
    if missing:
        raise RuntimeError(
            f"ids lead to embedding shard {min(missing)}, which is not there; nothing was published"
        )


def _tally(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs."""
    found = pc.value_counts(column)
    return dict(zip(found.field(0).to_pylist(), found.field(1).to_pylist(), strict=True))


def _count(counts: Counts, table: pa.Table) -> None:
    counts.by_status.update(_tally(table["status"]))
    rejected = table.filter(pc.equal(table["status"], "rejected"))
    counts.by_reason.update(_tally(rejected["reason"]))
