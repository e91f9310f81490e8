"""Rows dealt out by tasks and taken by partitions, alone and through Beam."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.pipelines.runner import RunnerSpec
from lookalike.store import exchange
from lookalike.store.exchange import Dealing, Reference, references, taken
from lookalike.store.files import HashedName
from lookalike.store.objects import open_store
from tests.exchanged import SCHEMA, deal_number, joined, rows

NAME = HashedName("runs/a/b/dealt/000000", ".arrow")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    tasks=st.lists(st.lists(st.lists(st.integers(0, 9), max_size=20), max_size=4), max_size=4),
    count=st.integers(10, 12),
    buffer=st.sampled_from([1, 300, 10**6]),
    shuffled=st.randoms(use_true_random=False),
)
def test_rows_come_out_where_they_were_sent_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    tasks: list[list[list[int]]],
    count: int,
    buffer: int,
    shuffled: Any,
) -> None:
    store = open_store(tmp_path_factory.mktemp("store"))
    sent: dict[tuple[str, int], list[dict[str, Any]]] = {}
    pieces: list[tuple[int, Reference]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "_BUFFER_BYTES", buffer)
        for task, blocks in enumerate(tasks):
            with Dealing(store, HashedName(f"dealt/{task}", ".arrow"), count) as dealing:
                for number, block in enumerate(blocks):
                    side = ("", "other")[number % 2]
                    dealing.write(rows(block), np.array(block, dtype=np.int64), side)
                    for row in rows(block).to_pylist():
                        sent.setdefault((side, row["n"]), []).append(row)
            record = json.loads(json.dumps(dealing.record()))
            pieces += references(record, task)
    shuffled.shuffle(pieces)
    for partition in range(count):
        of_it = [piece for number, piece in pieces if number == partition]
        again = of_it[:1]  # an engine that retries may bring a reference twice
        for side in ("", "other"):
            got = taken(store, [*of_it, *again], SCHEMA, side)
            assert got.schema == SCHEMA
            assert got.to_pylist() == sent.get((side, partition), [])
    assert sum(piece.rows for _, piece in pieces) == sum(map(len, sent.values()))


def test_rows_that_are_shared_are_written_once_and_taken_by_all(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with Dealing(store, NAME, 3) as dealing:
        dealing.write(rows([1]), np.array([1]))
        dealing.share(rows([7, 8]), "all")
        dealing.share(rows([]), "none")
    found = list(references(dealing.record(), 0))
    assert len({piece.offset for _, piece in found if piece.side == "all"}) == 1
    for partition in range(3):
        of_it = [piece for number, piece in found if number == partition]
        assert taken(store, of_it, SCHEMA, "all")["n"].to_pylist() == [7, 8]
        assert taken(store, of_it, SCHEMA)["n"].to_pylist() == [1] * (partition == 1)


def test_some_bytes_are_held_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_BUFFER_BYTES", 1 << 20)
    store, numbers = open_store(tmp_path), np.arange(10_000)
    table = pa.table({"n": numbers})
    with Dealing(store, NAME, 1000) as dealing:
        for _ in range(100):
            dealing.write(table, numbers % 1000)
            held = sum(one.nbytes for tables in dealing._tables.values() for one in tables)
            assert held < (1 << 20) + table.nbytes
    pieces = [0] * 1000
    for partition, piece in references(dealing.record(), 0):
        pieces[partition] += piece.rows
    assert pieces == [1000] * 1000


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ([0, 3], "numbered from 0 to 2, got numbers from 0 to 3"),
        ([-1, 0], "got numbers from -1 to 0"),
        ([0], "2 rows, 1 numbers"),
    ],
)
def test_what_leads_nowhere_is_refused_and_no_file_is_left(
    tmp_path: Path, which: list[int], said: str
) -> None:
    store = open_store(tmp_path)
    with pytest.raises(ValueError, match=said), Dealing(store, NAME, 3) as dealing:
        dealing.write(rows([1, 2]), np.array(which))
    assert store.files("") == []


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    records = []
    for _ in range(2):
        with Dealing(store, NAME, 4) as dealing:
            dealing.write(rows([3, 1, 1]), np.array([3, 1, 1]))
        records.append(dealing.record())
    assert records[0] == records[1]
    assert len(store.files("")) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_through_beam_each_partition_takes_its_rows_of_all_tasks(
    tmp_path: Path, workers: int
) -> None:
    records = joined(open_store(tmp_path), RunnerSpec(workers=workers))
    assert sorted(records) == [0, 1, 2]
    for partition, found in records.items():  # of the fourth there is no row
        wanted = [n for task in range(3) for n in range(100) if n % 3 == task == partition]
        assert found["n"] == wanted
        assert found["rows"] == len(wanted)


def test_partitions_without_rows_are_taken_where_all_are_wanted(tmp_path: Path) -> None:
    records = joined(open_store(tmp_path), RunnerSpec(workers=1), every=5)
    assert [len(records[number]["n"]) for number in range(5)] == [34, 33, 33, 0, 0]


def test_rows_of_other_sides_stay_where_they_are(tmp_path: Path) -> None:
    assert joined(open_store(tmp_path), RunnerSpec(workers=1), sides=("other",)) == {}
    assert sorted(joined(open_store(tmp_path), RunnerSpec(workers=1), sides=("", "other"))) == [
        0,
        1,
        2,
    ]


def test_without_rows_there_is_no_file(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with Dealing(store, NAME, 3) as dealing:
        dealing.write(rows([]), np.array([], dtype=np.int64))
    assert dealing.record() == {"dealt": None, "rows": 0, "pieces": []}
    assert store.files("") == []


def test_references_are_small_and_travel(tmp_path: Path) -> None:
    found: Iterator[tuple[int, Reference]] = references(deal_number(1, open_store(tmp_path)), 1)
    sent = pickle.dumps(list(found))
    assert len(sent) < 1000
    assert [partition for partition, _ in pickle.loads(sent)] == [1]


def test_rows_that_are_lost_on_their_way_are_noticed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    records = joined(store, RunnerSpec(workers=1))
    lost = {**records[1], "rows": records[1]["rows"] - 1}  # as of an engine that drops elements
    store.write_json("taken/000001.json", lost)
    with pytest.raises(RuntimeError, match=r"join: 100 rows were dealt out .* but 99 were taken"):
        joined(store, RunnerSpec(workers=1))
