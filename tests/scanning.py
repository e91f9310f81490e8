"""The steps of a scan, each exchange replayed without an engine, for tests of what they leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.reconcile.compared import Comparison, totals_of
from lookalike.reconcile.comparing import Comparing
from lookalike.reconcile.known import Knowing, sieve_bits
from lookalike.reconcile.one_partition import LeftOut, nothing_left_out
from lookalike.reconcile.same import Rule
from lookalike.records import SourceFile
from lookalike.sources.listing import Listing, as_files
from lookalike.sources.units import Cutting, Units
from lookalike.sources.vector_listing import VectorListing
from lookalike.sources.vector_pieces import UNIT_ROWS, VectorCutting
from lookalike.sources.vector_tables import VectorTable
from lookalike.store.objects import Store
from tests.exchanged import replay


def compare(
    store: Store,
    listing: Listing,
    parent: Sequence[Mapping[str, Any]],
    folder: str,
    *,
    scanned_ns: int | None,
    rehash: bool = False,
    retry: frozenset[str] | None = None,
    metadata: pa.Schema | None,
    left_out: LeftOut = nothing_left_out,
) -> Comparison:
    """Compare a listing with a parent's ledger, unless it is done (see `pipelines.scan`)."""
    rule = Rule(scanned_ns, rehash, retry, metadata)
    plan = Comparing.of(listing, parent, folder, rule, left_out)
    done = totals_of(store, folder)
    if done is None:
        records = replay(store, range(len(plan.tasks)), plan.deal, plan.take)
        done = plan.finish(store, records)
    return done


def cut(
    store: Store,
    listing: Listing,
    folder: str,
    unit_rows: int,
    parent: Sequence[Mapping[str, Any]] = (),
) -> Units:
    """Cut a listing into units, and find what of a parent's ledger they may be."""
    bits = sieve_bits(listing.rows) if parent else 0
    plan = Cutting.of(store, listing, folder, unit_rows, bits)
    records = replay(store, range(len(plan.tasks)), plan.deal, plan.take)
    units = plan.finish(records)
    if parent and units:
        known = Knowing.of(store, units, records, parent)
        replay(store, range(known.tasks), known.deal, known.take)
    return units


def list_vectors(
    store: Store, folder: str, tables: Sequence[VectorTable], size: int
) -> tuple[Listing, int]:
    """List tables of vectors, and count the rows that repeat the uri of an earlier one."""
    plan = VectorListing.of(tables, folder, size)
    parts = replay(store, range(len(plan.tasks)), plan.deal, plan.take)
    repeats = sum(part["repeats"] for part in parts.values())
    renamed: Mapping[int, Any] = {}
    if repeats:
        renamed = replay(store, range(plan.parts), plan.deal_repeated, plan.take_repeated)
    return plan.finish(store, renamed), repeats


def cut_vectors(
    store: Store,
    candidates: Listing,
    folder: str,
    tables: Sequence[VectorTable],
    unit_rows: int = UNIT_ROWS,
) -> Units:
    """Cut rows of tables of vectors into units."""
    plan = VectorCutting.of(candidates, folder, tables, unit_rows)
    return plan.finish(replay(store, range(len(plan.tasks)), plan.deal, plan.take))


def read_files(path: Path) -> Iterator[SourceFile]:
    """The rows of a part of a listing, or of the candidates."""
    return as_files(pq.read_table(path))
