"""Two attempts of each task of a scan's exchanges, in every order of what they write."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lookalike.reconcile.compared import candidates
from lookalike.reconcile.comparing import Comparing
from lookalike.reconcile.known import Knowing, sieve_bits
from lookalike.reconcile.same import Rule
from lookalike.records import SourceFile
from lookalike.sources.listing import listing_schema, write_listing
from lookalike.sources.units import Cutting
from lookalike.store.attempts import named_files
from lookalike.store.exchange import Reference, references
from lookalike.store.ledger import LedgerRow, write_ledger
from lookalike.store.objects import Store, open_store
from tests.exchanged import replay
from tests.interleaving import Attempt, every_order, hidden

LEDGER = "ledger.parquet"
LINES = [{"path": LEDGER, "rows": 30}]


@dataclass
class Step:
    """A task that is about to be done.

    Attributes:
        work: Does it, in the store or a copy of it.
        reads: A file that it reads, or "".
    """

    work: Callable[[Store], Any]
    reads: str


def gathered(store: Store, plan: Any, tasks: int) -> list[Reference]:
    """What tasks dealt out to partition 0."""
    pieces: dict[int, list[Reference]] = defaultdict(list)
    for task in range(tasks):
        for partition, piece in references(plan.deal(task, store), task):
            pieces[partition].append(piece)
    return pieces[0]


def step(store: Store, kind: str) -> Step:
    """A night of thirty files, up to one of the steps of its scan."""
    rows = [
        LedgerRow(f"/{i}", "embedded", "", "", i % 5 + 1, "1", bytes([i]) * 32, i)
        for i in range(30)
    ]
    write_ledger(store, "ledger.parquet", rows)
    files = [SourceFile(f"/{i}", i % 5 + 1, "1" if i % 2 else "2") for i in range(5, 35)]
    listing = write_listing(store, "listing", files, listing_schema(pa.schema([])))
    compare = Comparing.of(listing, LINES, "compared", Rule(None, False, None, pa.schema([])))
    if kind == "compare: deal":
        return Step(lambda place: compare.deal(1, place), LEDGER)  # task 0 deals nothing out
    if kind == "compare":
        pieces = gathered(store, compare, len(compare.tasks))
        return Step(lambda place: compare.take(0, pieces, place), pieces[0].path)
    compare.finish(store, replay(store, range(len(compare.tasks)), compare.deal, compare.take))
    to_see = candidates(store, "compared")
    cut = Cutting.of(store, to_see, "units", 7, sieve_bits(to_see.rows))
    if kind == "cut: deal":
        return Step(lambda place: cut.deal(0, place), to_see.parts[0])
    if kind == "cut":
        pieces = gathered(store, cut, len(cut.tasks))
        return Step(lambda place: cut.take(0, pieces, place), pieces[0].path)
    records = replay(store, range(len(cut.tasks)), cut.deal, cut.take)
    known = Knowing.of(store, cut.finish(records), records, LINES)
    if kind == "known: ask":
        return Step(lambda place: known.deal(0, place), records[0]["dealt"]["path"])
    if kind == "known: look through":
        return Step(lambda place: known.deal(1, place), "ledger.parquet")
    pieces = gathered(store, known, known.tasks)
    return Step(lambda place: known.take(0, pieces, place), pieces[0].path)


@pytest.mark.parametrize(
    "kind",
    [
        "compare: deal",
        pytest.param("compare", marks=pytest.mark.slow),  # writes the most files
        "cut: deal",
        "cut",
        "known: ask",
        "known: look through",
        "known",
    ],
)
def test_the_first_record_counts_and_names_whole_files(kind: str, tmp_path: Path) -> None:
    todo = step(open_store(tmp_path / "before"), kind)
    places: list[Path] = []

    def make() -> list[Attempt]:
        places.append(tmp_path / str(len(places)))
        shutil.copytree(tmp_path / "before", places[-1])
        lost = places[-1] / todo.reads
        work = partial(todo.work, open_store(places[-1]))
        return [Attempt(work), Attempt(work, lambda: hidden(lost), retried=True)]

    def check(runners: list[Any]) -> None:
        store = open_store(places[-1])
        assert [runner.error for runner in runners] == [None, None]
        results = [json.loads(json.dumps(runner.result)) for runner in runners]
        assert results[0] == results[1]
        named = set(named_files(results[0]))
        assert named
        for path in named:
            assert path.rpartition("-")[2].startswith(store.record(path).sha256[:16])

    assert every_order(make, check) > 1
