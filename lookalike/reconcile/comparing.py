r"""What of a listing is as the parent's ledger has it, and what is to be looked at again.

Both sides are dealt out by the hash of the name and compared a partition at a time, so memory does
not grow with them. Nothing is read of the files themselves.

    listing        -> partitions of names \
                                           -> carried (as before), candidates (to be read), gone
    parent ledger  -> partitions of names /

What could not be listed, or looked at, is neither: it is carried, as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.reconcile.hidden import Hidden
from lookalike.reconcile.one_partition import GONE, WAS, Comparing, Comparison, LeftOut
from lookalike.reconcile.same import Rule
from lookalike.sources.listing import Listing, listing_schema
from lookalike.sources.units import SIZE_BUCKETS, size_buckets
from lookalike.store import ledger
from lookalike.store.files import remove_tree
from lookalike.store.objects import Store
from lookalike.store.partitions import Spill, partition_count, uri_partitions

__all__ = ["COMMON_ROWS", "GONE", "WAS", "Comparison", "candidates", "common_sizes", "compare"]

COMMON_ROWS = 1024  # contents of one size; reading one of the size is then cheaper than naming them

Line = Mapping[str, Any]


def compare(
    store: Store,
    listing: Listing,
    parent: Sequence[Line],
    folder: str,
    *,
    scanned_ns: int | None,
    rehash: bool = False,
    retry: frozenset[str] | None = None,
    metadata: pa.Schema | None,
    left_out: LeftOut = lambda uri: "",
) -> Comparison:
    """Compare a listing with the parent's ledger, into files below `folder`.

    Each kind has at most one Parquet file per partition of names, `NNNNN.parquet`, none where it
    would be empty: `carried/` ledger rows that stand (those once embedded are unchanged now, and
    those of which nobody can tell unknown), `candidates/` rows of the listing with the columns of
    `WAS`, `gone/` ledger rows that do not stand (`GONE`). `compared.json` is written last; where it
    is there already, nothing is done again.

    A file is the same if it has a version, and bytes, version and metadata are those of the ledger.
    One that changed less than two seconds before the parent's scan began, or after, may have been
    read before it changed, and is looked at again.

    Args:
        store: The store's root.
        listing: What the sources hold; of a name listed more than once the first row counts.
        parent: The manifest's lines for the parent's ledger; none for a first run.
        folder: Of the run's scratch, relative to the store.
        scanned_ns: When the parent's scan began, in ns since 1970; None to trust every version.
        rehash: Look at every file again.
        retry: Reasons of rejects to look at again, empty for all of them, None for none. Those that
            could not be read always are.
        metadata: The listing's metadata columns; None if the listing does not hold the metadata, so
            that they cannot be compared.
        left_out: By which rule of the config a name is not to be listed, "" where by none.
    """
    done = f"{folder}/compared.json"
    if store.has(done):
        return Comparison.from_json(store.read_json(done))
    for name in ("carried", "candidates", "gone"):
        store.delete_below(f"{folder}/{name}")
    rule = Rule(scanned_ns, rehash, retry, metadata)
    previous = sum(line["rows"] for line in parent)
    count = _partitions(listing, previous, parent)
    schema = listing_schema(metadata or pa.schema([]))
    listed = _listed(store, listing, schema, store.scratch(f"{folder}/spilled-listing"), count)
    before = _before(store, parent, store.scratch(f"{folder}/spilled-ledger"), count)
    totals, sizes = Comparison(0, 0, 0, 0, 0, 0, count), np.zeros(SIZE_BUCKETS, dtype=np.int64)
    comparing = Comparing(store, folder, rule, Hidden.of(store, listing), left_out)
    for number, (rows, old) in enumerate(zip(listed, before, strict=True)):
        _count_sizes(old, sizes)
        part = comparing.compare(f"{number:05d}.parquet", rows, old)
        totals += part
    totals += comparing.finish()
    _write_common(store, folder, sizes)
    for name in ("spilled-listing", "spilled-ledger"):
        remove_tree(store.scratch(f"{folder}/{name}"))
    store.write_json(done, totals.to_json())
    return totals


def candidates(store: Store, folder: str) -> Listing:
    """The candidates that `compare` found, for `cut_units`."""
    found = Comparison.from_json(store.read_json(f"{folder}/compared.json"))
    parts = tuple(store.files(f"{folder}/candidates", ".parquet"))
    return Listing(parts, found.new + found.touched, found.bytes)


def common_sizes(store: Store, folder: str) -> npt.NDArray[np.int64]:
    """Buckets of sizes that very many files of the parent have, for `cut_units`; ascending."""
    buckets: npt.NDArray[np.int64] = np.load(store.local(f"{folder}/common.npy"))
    return buckets


# --- dealing out ------------------------------------------------------------------------------


def _partitions(listing: Listing, previous: int, parent: Sequence[Line]) -> int:
    """As few as memory allows; the parent's number while it serves, as its files do then."""
    least = partition_count(max(listing.rows, previous), listing.bytes)
    had = _divided(parent)
    return had if had is not None and least <= had <= 4 * least else least


def _divided(parent: Sequence[Line]) -> int | None:
    """The number of partitions of a ledger whose files are partitions; None for any other."""
    counts = {line["partition"][1] if "partition" in line else None for line in parent}
    return counts.pop() if len(counts) == 1 else None


def _listed(
    store: Store, listing: Listing, schema: pa.Schema, folder: Path, count: int
) -> Iterator[pa.Table]:
    """The listing's rows, a partition at a time, in the order in which they were listed."""
    with Spill(folder, count, schema) as spill:
        for part in listing.parts:
            with pq.ParquetFile(store.local(part)) as file:
                for batch in file.iter_batches():
                    table = pa.Table.from_batches([batch])
                    spill.write(table, uri_partitions(table["uri"], count))
    for number in range(count):
        yield spill.read(number)


def _before(store: Store, parent: Sequence[Line], folder: Path, count: int) -> Iterator[pa.Table]:
    """The parent's ledger rows, a partition at a time, but for those that were removed."""
    divided = _divided(parent)
    if divided is not None and divided >= count:  # whole files make up each partition
        paths: dict[int, list[str]] = {}
        for line in parent:
            number = line["partition"][0] * count // divided
            paths.setdefault(number, []).append(line["path"])
        for number in range(count):
            tables = (
                table for path in paths.get(number, ()) for table in _living(store.local(path))
            )
            yield pa.concat_tables([ledger.SCHEMA.empty_table(), *tables])
        return
    with Spill(folder, count, ledger.SCHEMA) as spill:
        for line in parent:
            for table in _living(store.local(line["path"])):
                spill.write(table, uri_partitions(table["uri"], count))
    for number in range(count):
        yield spill.read(number)


def _living(path: Path) -> Iterator[pa.Table]:
    for table in ledger.ledger_tables(path):
        yield table.filter(pc.not_equal(table["status"], "removed"))


# --- sizes that many files have ---------------------------------------------------------------


def _count_sizes(old: pa.Table, counts: npt.NDArray[np.int64]) -> None:
    """Add to each bucket the contents with a vector whose size falls to it."""
    contents = pc.and_(pc.is_valid(old["id"]), pc.not_equal(old["status"], "duplicate"))
    sizes = old["bytes"].filter(contents).to_numpy()
    buckets, rows = np.unique(size_buckets(sizes[sizes > 0]), return_counts=True)
    counts[buckets] += rows


def _write_common(store: Store, folder: str, counts: npt.NDArray[np.int64]) -> None:
    with store.write(f"{folder}/common.npy") as pending:
        np.save(pending.file, np.flatnonzero(counts > COMMON_ROWS))
