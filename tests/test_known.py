from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.reconcile import known
from lookalike.reconcile.compared import candidates
from lookalike.reconcile.known import read_known
from lookalike.records import SourceFile
from lookalike.sources import listing as listings
from lookalike.sources import units
from lookalike.sources.listing import as_files, listing_schema
from lookalike.sources.units import Units
from lookalike.store import exchange, partitions
from lookalike.store.ledger import LedgerRow, write_ledger
from lookalike.store.objects import open_store
from tests.scanning import compare, cut

METADATA = pa.schema([])
FAST = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# few sizes and contents, so that much is alike
CONTENTS = st.integers(0, 40).map(lambda i: bytes([i % 7]) * (i // 7))
PILES = st.dictionaries(st.integers(0, 60).map(lambda i: f"/{i}.jpg"), CONTENTS, max_size=60)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def night_before(pile: dict[str, bytes], lost: set[str]) -> list[LedgerRow]:
    """The ledger of a pile: the smallest name of each content has the vector."""
    names, rows = defaultdict(list), []
    for uri in sorted(pile):
        names[pile[uri]].append(uri)
    for number, (data, group) in enumerate(names.items()):
        for uri in group:
            if uri in lost or not data:
                rows.append(LedgerRow(uri, "rejected", "corrupt", "", len(data), "1", sha256(data)))
            else:
                status = "embedded" if uri == group[0] else "duplicate"
                rows.append(LedgerRow(uri, status, "", "", len(data), "1", sha256(data), number))
    return rows


def night(store: Path, before: list[LedgerRow], files: list[SourceFile], rows: int) -> Units:
    """Compare, cut, and look for what is known; the units."""
    place = open_store(store)
    write_ledger(place, "ledger.parquet", before)
    lines: list[dict[str, Any]] = [{"path": "ledger.parquet", "rows": len(before)}]
    listing = listings.write_listing(place, "listing", files, listing_schema(METADATA))
    compare(place, listing, lines, "compared", scanned_ns=None, metadata=METADATA)
    return cut(place, candidates(place, "compared"), "units", rows, lines)


def known_of(store: Path, units: Units, number: int = 0) -> dict[bytes, int]:
    place = open_store(store)
    return read_known(place, units, number, units.table(place, number))


@pytest.fixture(params=["at once", "in parts"])
def division(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(known, "COMMON_ROWS", 4)
    if request.param == "in parts":
        monkeypatch.setattr(known, "_PART_ROWS", 3)
        monkeypatch.setattr(known, "_BATCH", 5)
        monkeypatch.setattr(known, "_SIEVE_BITS", 4)
        monkeypatch.setattr(partitions, "PARTITION_ROWS", 10)
        monkeypatch.setattr(exchange, "_BUFFER_BYTES", 300)
        monkeypatch.setattr(exchange, "_TASK_ROWS", 10)
        monkeypatch.setattr(units, "_PARTITION_ROWS", 20)
    return str(request.param)


@pytest.mark.usefixtures("division")
@FAST
@given(
    old=PILES,
    new=PILES,
    touched=st.sets(st.integers(0, 60)),
    lost=st.sets(st.integers(0, 60)),
    tar=st.sets(st.integers(0, 60)),
    rows=st.integers(1, 12),
)
def test_every_content_with_a_vector_is_known_where_it_may_come(
    tmp_path_factory: pytest.TempPathFactory,
    old: dict[str, bytes],
    new: dict[str, bytes],
    touched: set[int],
    lost: set[int],
    tar: set[int],
    rows: int,
) -> None:
    store = tmp_path_factory.mktemp("store")
    before = night_before(old, {f"/{i}.jpg" for i in lost})
    vectors = {row.content_sha256: row.id for row in before if row.id is not None}
    again, inside = ({f"/{i}.jpg" for i in numbers} for numbers in (touched, tar))
    files = [
        SourceFile(
            uri,
            len(data),
            "2" if uri in again else "1",
            "",
            {},
            *(("/a.tar", number, number // 4) if uri in inside else ()),
        )
        for number, (uri, data) in enumerate(new.items())
    ]
    found_units = night(store, before, files, rows)

    sizes = [
        len(data)
        for data in {
            row.content_sha256: old[row.uri] for row in before if row.id is not None
        }.values()
    ]
    common = {size for size in sizes if sizes.count(size) > 4}
    previous = {row.uri: row for row in before}
    for number in range(len(found_units)):
        found = known_of(store, found_units, number)
        assert found.items() <= vectors.items()
        unit = list(as_files(found_units.table(open_store(store), number)))
        for file in unit:
            was = previous.get(file.uri)
            if was is not None and was.id is not None:
                assert was.content_sha256 in found
            content = sha256(new[file.uri])
            if content in vectors and file.bytes not in common:
                assert content in found  # will not be embedded again
        # nothing that could be left out: of the size, unless that is common, or of before
        had = {previous[file.uri].content_sha256 for file in unit if file.uri in previous}
        lengths = {file.bytes for file in unit} - common
        small = {sha256(data) for data in old.values() if len(data) in lengths}
        assert found.keys() <= had | small


def contents(count: int, size: int = 32, status: str = "unchanged") -> list[LedgerRow]:
    """Rows of as many contents of one size."""
    return [
        LedgerRow(
            f"/{size}-{i:04d}.bmp",
            status,
            "",
            "",
            size,
            "1",
            sha256(b"%d-%d" % (size, i)),
            None if status == "rejected" else i,
        )
        for i in range(count)
    ]


def test_sizes_of_very_many_contents_are_common(tmp_path: Path) -> None:
    """What has a common size is left for later, unless its own name had the content."""
    most = known.COMMON_ROWS
    copies = [replace(row, uri=f"{row.uri}.copy", status="duplicate") for row in contents(9, 20)]
    lost = [replace(row, uri=f"{row.uri}.lost", id=None) for row in contents(9, 20)]
    before = [*contents(most + 1, 10), *contents(most, 20), *copies, *lost, *contents(9, -1)]
    files = [
        SourceFile(f"/{name}.bmp", size, "2")
        for name, size in [("10-0007", 10), ("x", 10), ("y", 20), ("z", -1)]
    ]
    units = night(tmp_path, before, [*files, *members(10)], 1)
    found = {}
    for number in range(len(units)):
        for file in as_files(units.table(open_store(tmp_path), number)):
            found[file.uri] = known_of(tmp_path, units, number)
    assert found["/10-0007.bmp"] == found["/x.bmp"] == {sha256(b"10-7"): 7}  # in one unit
    assert found["/y.bmp"] == {row.content_sha256: row.id for row in contents(most, 20)}
    assert found["/z.bmp"] == found["/a.tar#0"] == {}


def members(size: int, container: str = "/a.tar", count: int = 1) -> list[SourceFile]:
    return [
        SourceFile(f"{container}#{i}", size, "1", "", {}, container, i, 0) for i in range(count)
    ]


def test_a_first_run_knows_nothing(tmp_path: Path) -> None:
    place = open_store(tmp_path)
    listing = listings.write_listing(
        place, "listing", [SourceFile("/a", 5, "1")], listing_schema(METADATA)
    )
    units = cut(place, listing, "units", 32)
    assert known_of(tmp_path, units) == {}
    assert not (tmp_path / "units/known").exists()


def test_a_content_is_known_in_every_unit_that_may_have_it(tmp_path: Path) -> None:
    before = contents(3)
    files = [file for name in "abc" for file in members(32, f"/{name}.tar")]
    units = night(tmp_path, before, files, 100)
    assert len(units) == 3
    for number in range(3):
        assert known_of(tmp_path, units, number) == {row.content_sha256: row.id for row in before}
