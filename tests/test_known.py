from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.reconcile import comparing, known
from lookalike.reconcile.comparing import candidates, common_sizes, compare
from lookalike.reconcile.known import read_known, write_known
from lookalike.records import SourceFile
from lookalike.sources import listing as listings
from lookalike.sources import units
from lookalike.sources.units import cut_units, listing_schema, read_files
from lookalike.store import partitions
from lookalike.store.ledger import LedgerRow, write_ledger
from lookalike.store.objects import open_store

METADATA = pa.schema([])
FAST = settings(max_examples=60, deadline=None, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
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


def night(
    store: Path, before: list[LedgerRow], files: list[SourceFile], pile: dict[str, bytes], rows: int
) -> list[str]:
    """Compare, cut, and look for what is known; the unit files."""
    write_ledger(open_store(store), "ledger.parquet", before)
    lines: list[dict[str, Any]] = [{"path": "ledger.parquet", "rows": len(before)}]
    listing = listings.write_listing(open_store(store), "listing", files, listing_schema(METADATA))
    compare(open_store(store), listing, lines, "compared", scanned_ns=None, metadata=METADATA)
    cut = [
        name
        for name, _ in cut_units(
            open_store(store),
            candidates(open_store(store), "compared"),
            "units",
            rows,
            pile.__getitem__,
            common_sizes(open_store(store), "compared"),
        )
    ]
    write_known(open_store(store), lines, cut)
    assert not (store / "units" / "known").exists()
    return cut


@pytest.fixture(params=["at once", "in parts"])
def division(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(comparing, "COMMON_ROWS", 4)
    if request.param == "in parts":
        monkeypatch.setattr(known, "_KEYS", 3)
        monkeypatch.setattr(known, "_UNITS", 2)
        monkeypatch.setattr(known, "_BATCH", 5)
        monkeypatch.setattr(known, "_SIEVE_BITS", 4)
        monkeypatch.setattr(partitions, "PARTITION_ROWS", 10)
        monkeypatch.setattr(partitions, "_BUFFER_BYTES", 300)
        monkeypatch.setattr(units, "_PARTITION_ROWS", 20)
    return str(request.param)


@pytest.mark.usefixtures("division")
@FAST
@given(old=PILES, new=PILES, touched=st.sets(st.integers(0, 60)), lost=st.sets(st.integers(0, 60)),
       tar=st.sets(st.integers(0, 60)), rows=st.integers(1, 12))  # fmt: skip
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
        SourceFile(uri, len(data), "2" if uri in again else "1", "", {},
                   *(("/a.tar", number, number // 4) if uri in inside else ()))
        for number, (uri, data) in enumerate(new.items())
    ]  # fmt: skip
    cut = night(store, before, files, new, rows)

    sizes = [len(data) for data in {row.content_sha256: old[row.uri] for row in before
                                    if row.id is not None}.values()]  # fmt: skip
    common = {size for size in sizes if sizes.count(size) > 4}
    previous = {row.uri: row for row in before}
    for name in cut:
        found = read_known(open_store(store), name)
        assert found.items() <= vectors.items()
        unit = list(read_files(store / name))
        for file in unit:
            was = previous.get(file.uri)
            if was is not None and was.id is not None:
                assert was.content_sha256 in found
            content = sha256(new[file.uri])
            if content in vectors and (not file.container or file.bytes not in common):
                assert content in found  # will not be embedded again
        # nothing that could be left out: of the size, unless that is common, or of before
        had = {previous[file.uri].content_sha256 for file in unit if file.uri in previous}
        own = {sha256(new[file.uri]) for file in unit}
        lengths = {file.bytes for file in unit} - common
        small = {sha256(data) for data in old.values() if len(data) in lengths}
        assert found.keys() <= had | own | small


def test_a_common_size_is_looked_up_by_content(tmp_path: Path) -> None:
    contents = [sha256(b"%d" % i) for i in range(5000)]
    before = [
        LedgerRow(f"/{i:04d}.bmp", "unchanged", "", "", 32, "1", content, i)
        for i, content in enumerate(contents)
    ]
    pile = {"/x.bmp": contents[7], "/y.bmp": b"n" * 32, "/z.bmp": contents[9]}
    hashed = [
        LedgerRow(row.uri, "unchanged", "", "", 32, "1", sha256(content), row.id)
        for row, content in zip(before, contents, strict=True)
    ]
    [unit] = night(tmp_path, hashed, [SourceFile(uri, 32, "1") for uri in pile], pile, 100)
    assert read_known(open_store(tmp_path), unit) == {
        sha256(contents[7]): 7,
        sha256(contents[9]): 9,
    }


def test_a_common_size_in_a_container_is_left_for_later(tmp_path: Path) -> None:
    before = [
        LedgerRow(f"/{i:04d}.bmp", "unchanged", "", "", 32, "1", sha256(b"%d" % i), i)
        for i in range(5000)
    ]
    members = [SourceFile(f"/a.tar#{i}", 32, "1", "", {}, "/a.tar", i, 0) for i in range(3)]
    [unit] = night(tmp_path, before, members, {}, 100)
    assert read_known(open_store(tmp_path), unit) == {}
    assert pq.read_table(tmp_path / unit)["_key"].null_count == 3


def test_a_first_run_knows_nothing(tmp_path: Path) -> None:
    write_known(open_store(tmp_path), [], ["units/0.parquet"])
    assert read_known(open_store(tmp_path), "units/0.parquet") == {}
    write_known(open_store(tmp_path), [{"path": "l.parquet"}], [])


def test_a_content_is_known_in_every_unit_that_may_have_it(tmp_path: Path) -> None:
    before = [
        LedgerRow(f"/{i}", "unchanged", "", "", 32, "1", sha256(b"%d" % i), i) for i in range(3)
    ]
    members = [SourceFile(f"/{c}.tar#0", 32, "1", "", {}, f"/{c}.tar", 0, 0) for c in "abc"]
    cut = night(tmp_path, before, members, {}, 100)
    assert len(cut) == 3
    for unit in cut:
        assert read_known(open_store(tmp_path), unit) == {
            row.content_sha256: row.id for row in before
        }
