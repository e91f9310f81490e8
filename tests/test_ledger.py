from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.store import ledger
from lookalike.store.ledger import Counts, LedgerRow
from lookalike.store.objects import open_store
from tests.file_records import file_record

GOLDEN = Path(__file__).parent / "golden" / "ledger_v1.parquet"
# One row of each status. `ledger_v1.parquet` holds them as the first release wrote them.
ROWS = [
    LedgerRow("/a.jpg", "embedded", "", "", 5, "1", b"a" * 32, 7 << 32 | 1),
    LedgerRow("/b.jpg", "unchanged", "", "", 5, "1", b"b" * 32, 2),
    LedgerRow("/c é.jpg", "duplicate", "", "/a.jpg", 5, "2", b"a" * 32, 7 << 32 | 1),
    LedgerRow(
        "file:///d%FF.jpg", "rejected", "truncated", "12 of 30 rows", 1 << 40, "3", b"d" * 32
    ),
    LedgerRow("/e.json", "ignored", "", "", 2, "4", b"e" * 32),
    LedgerRow("/f.jpg", "removed"),
]
# The same with metadata, which came with version 2.
WITH_METADATA = [replace(row, metadata_hash=7 * n - 9) for n, row in enumerate(ROWS)]
# And with a file that could not be reached, which came with version 3.
WITH_UNKNOWN = [
    *WITH_METADATA,
    LedgerRow(
        "/g/h.jpg",
        "unknown",
        "unlisted",
        "/g: Permission denied",
        5,
        "6",
        b"h" * 32,
        9,
        4,
        "duplicate",
        "",
        "/a.jpg",
    ),
]
ROW = st.builds(
    LedgerRow,
    uri=st.text(st.characters(exclude_categories=["Cs"])),
    status=st.sampled_from(ledger.STATUSES),
    reason=st.sampled_from(["", "corrupt", "truncated"]),
    detail=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    bytes=st.integers(-1, 2**62),
    version=st.text("0123456789", max_size=20),
    content_sha256=st.none() | st.binary(min_size=32, max_size=32),
    id=st.none() | st.integers(0, 2**63 - 1),
    metadata_hash=st.integers(-(2**63), 2**63 - 1),
)


def counted(rows: list[LedgerRow]) -> Counts:
    counts = Counts()
    for row in rows:
        counts.add(row)
    return counts


@given(st.lists(ROW, max_size=30))
def test_rows_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[LedgerRow]
) -> None:
    store = tmp_path_factory.mktemp("store")
    record, written = ledger.write_ledger(open_store(store), "l.parquet", iter(rows))
    assert written == len(rows)
    assert record == file_record(store, "l.parquet")
    assert list(ledger.read_ledger(store / "l.parquet")) == rows


def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    rows = [LedgerRow(f"/{i}", "embedded", id=i) for i in range(ledger._BATCH + 1)]
    assert ledger.write_ledger(open_store(tmp_path), "l.parquet", rows)[1] == len(rows)
    assert list(ledger.read_ledger(tmp_path / "l.parquet")) == rows


def test_a_stream_that_fails_leaves_no_ledger(tmp_path: Path) -> None:
    def rows():  # type: ignore[no-untyped-def]
        yield ROWS[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        ledger.write_ledger(open_store(tmp_path), "l.parquet", rows())
    assert list(tmp_path.iterdir()) == []


# --- sums -------------------------------------------------------------------------------------


@given(st.lists(ROW, max_size=40), st.lists(st.integers(0, 40), max_size=4))
def test_counts_of_parts_add_up_to_the_counts_of_all(
    rows: list[LedgerRow], cuts: list[int]
) -> None:
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    merged = Counts()
    for start, end in pairwise(bounds):
        merged.merge(counted(rows[start:end]).to_json())
    assert merged.to_json() == counted(rows).to_json()


@given(st.lists(ROW, max_size=40))
def test_counts_say_what_is_in_the_ledger(rows: list[LedgerRow]) -> None:
    counts, statuses = counted(rows), Counter(row.status for row in rows)
    found = counts.to_json()
    assert {name: found[name] for name in ledger.STATUSES} == {
        name: statuses[name] for name in ledger.STATUSES
    }
    assert found["listed"] == len(rows) - statuses["removed"] - statuses["unknown"]
    assert sum(found["rejected_by_reason"].values()) == statuses["rejected"]
    assert 0 <= counts.rejected_share <= 1
    assert counts.living == len(rows) - statuses["removed"]
    ledger.check_balance(counts.listed, counts)


def test_ignored_and_removed_files_count_in_no_reject_share() -> None:
    counts = counted(ROWS)
    assert counts.listed == 5
    assert counts.rejected_share == 1 / 4
    assert Counts().rejected_share == 0
    assert counted([ROWS[4]]).rejected_share == 0


@pytest.mark.parametrize("listed", [4, 6])
def test_a_ledger_that_does_not_balance_stops_the_run(listed: int) -> None:
    message = (
        rf"does not balance: {listed} files listed, 5 in the ledger \(embedded 1, unchanged 1, "
        r"duplicate 1, rejected 1, ignored 1\); nothing was published"
    )
    with pytest.raises(RuntimeError, match=message):
        ledger.check_balance(listed, counted(ROWS))


# --- the format does not change ---------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3])
def test_ledgers_of_every_version_are_readable(version: int) -> None:
    rows = list(ledger.read_ledger(GOLDEN.with_name(f"ledger_v{version}.parquet")))
    assert rows == {1: ROWS, 2: WITH_METADATA, 3: WITH_UNKNOWN}[version]


def test_ledgers_are_still_written_as_version_3(tmp_path: Path) -> None:
    ledger.write_ledger(open_store(tmp_path), "l.parquet", WITH_UNKNOWN)
    written, golden = tmp_path / "l.parquet", GOLDEN.with_name("ledger_v3.parquet")
    assert pq.read_schema(written).equals(pq.read_schema(golden), check_metadata=True)
    assert pq.read_table(written).equals(pq.read_table(golden))


def test_the_hash_of_metadata_depends_on_what_is_given_only() -> None:
    of = ledger.metadata_hash
    assert of({}) == of({"label": None}) == 0
    assert of({"a": 1, "b": "x"}) == of({"b": "x", "a": 1, "c": None}) != 0
    assert len({of({"a": 1}), of({"a": "1"}), of({"b": 1}), of({"a": 1.5}), 0}) == 5
