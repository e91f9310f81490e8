from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.reconcile.compared import Comparison, candidates, files_of
from lookalike.reconcile.metadata import metadata_hashes
from lookalike.reconcile.standing import standing
from lookalike.records import SourceFile
from lookalike.sources import listing as listings
from lookalike.sources.listing import Listing, listing_schema
from lookalike.store import exchange, ledger, partitions
from lookalike.store.ledger import LedgerRow, metadata_hash
from lookalike.store.objects import open_store
from tests.scanning import compare, read_files

METADATA = pa.schema([("label", pa.string()), ("n", pa.int64())])
KINDS = ("carried", "candidates", "gone")
SCANNED = 1_700_000_000_000_000_000
FAST = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

VERSIONS = st.sampled_from(
    [
        "",
        "v1",
        "v2",
        "17",
        "0017",
        "abc+5",
        "+5",
        *(str(SCANNED + late) for late in (-2_000_000_001, -2_000_000_000, 0, 5)),
        f"{SCANNED - 10**10}+3",
        f"{SCANNED}+3",
        f"{SCANNED}-3",
        f"0{SCANNED - 10**10}",
        "9" * 25,
    ]
)
LABELS = st.sampled_from([{}, {"label": None}, {"label": "a"}, {"label": "a", "n": 1}, {"n": 0}])
URIS = st.integers(0, 30).map(lambda i: f"/é{i}.jpg")
FILES = st.lists(
    st.builds(
        SourceFile,
        uri=URIS,
        bytes=st.integers(-1, 2),
        version=VERSIONS,
        problem=st.sampled_from(["", "", "", "gone"]),
        metadata=LABELS,
    ),
    max_size=30,
)
ROWS = st.lists(
    st.builds(
        LedgerRow,
        uri=URIS,
        status=st.sampled_from(
            ["embedded", "unchanged", "duplicate", "rejected", "ignored", "removed"]
        ),
        reason=st.sampled_from(["", "unreadable", "corrupt", "empty"]),
        bytes=st.integers(-1, 2),
        version=VERSIONS,
        id=st.none() | st.integers(0, 2**40),
        content_sha256=st.none() | st.binary(min_size=32, max_size=32),
        metadata_hash=LABELS.map(metadata_hash),
    ),
    max_size=30,
    unique_by=lambda row: row.uri,
)


def write_parent(store: Path, rows: Sequence[LedgerRow], parts: int = 0) -> list[dict[str, Any]]:
    """A ledger of any order in one file, or sorted in files by partition of the name."""
    if not parts:
        ledger.write_ledger(open_store(store), "parent/all.parquet", rows)
        return [{"path": "parent/all.parquet", "rows": len(rows), "kind": "ledger"}]
    names = pa.array([row.uri for row in rows], pa.string())
    which, lines = partitions.uri_partitions(names, parts), []
    for part in sorted(set(which.tolist())):
        own = sorted(
            (row for row, i in zip(rows, which, strict=True) if i == part), key=lambda row: row.uri
        )
        path = f"parent/{part}.parquet"
        file, count = ledger.write_ledger(open_store(store), path, own)
        more = {"rows": count, "kind": "ledger", "partition": [part, parts]}
        lines.append({**file.to_json(), **more})
    return lines


def is_same(
    file: SourceFile, row: LedgerRow, scanned: int | None, retry: frozenset[str] | None
) -> bool:
    """The rule, for one file, as it is told in words."""
    if (file.bytes, file.version) != (row.bytes, row.version) or file.version == "" or file.problem:
        return False
    if metadata_hash(file.metadata) != row.metadata_hash:
        return False
    if row.status == "rejected" and (
        row.reason == "unreadable" or retry == frozenset() or (retry and row.reason in retry)
    ):
        return False
    number = file.version.partition("+")[0]
    return not (scanned is not None and number.isdecimal() and int(number) >= scanned - 2 * 10**9)


def rows_of(store: Path, folder: str) -> list[dict[str, Any]]:
    root, kind = folder.split("/")
    paths = files_of(open_store(store), root, kind)
    return [row for path in paths for row in pq.read_table(store / path).to_pylist()]


@pytest.fixture(params=["one partition", "many partitions"])
def division(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "many partitions":
        monkeypatch.setattr(partitions, "PARTITION_ROWS", 6)
        monkeypatch.setattr(exchange, "_BUFFER_BYTES", 500)
        monkeypatch.setattr(listings, "_PART_ROWS", 7)
    return str(request.param)


@pytest.mark.usefixtures("division")
@FAST
@given(
    files=FILES,
    rows=ROWS,
    parts=st.sampled_from([0, 1, 2, 8, 16, 64]),
    scanned=st.sampled_from([None, SCANNED]),
    rehash=st.sampled_from([False] * 5 + [True]),
    retry=st.sampled_from([None, frozenset(), frozenset({"corrupt"})]),
)
def test_it_agrees_with_the_rule_for_one_file(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[SourceFile],
    rows: list[LedgerRow],
    parts: int,
    scanned: int | None,
    rehash: bool,
    retry: frozenset[str] | None,
) -> None:
    store = tmp_path_factory.mktemp("store")
    listing = listings.write_listing(open_store(store), "listing", files, listing_schema(METADATA))
    parent = write_parent(store, rows, parts)
    found = compare(
        open_store(store),
        listing,
        parent,
        "compared",
        scanned_ns=scanned,
        rehash=rehash,
        retry=retry,
        metadata=METADATA,
    )

    listed: dict[str, SourceFile] = {}
    for file in files:
        listed.setdefault(
            file.uri, replace(file, metadata={"label": None, "n": None, **file.metadata})
        )
    before = {row.uri: row for row in rows if row.status != "removed"}
    same = {
        uri
        for uri in listed.keys() & before
        if not rehash and is_same(listed[uri], before[uri], scanned, retry)
    }

    carried = [
        LedgerRow(**row)
        for number in range(found.parts)
        for group in standing(open_store(store), "compared", number)
        for row in group.read().to_pylist()
    ]
    assert {row.uri: row for row in carried} == {
        uri: replace(
            before[uri],
            status={"embedded": "unchanged"}.get(before[uri].status, before[uri].status),
        )
        for uri in same
    }
    assert len(carried) == len(same)

    read = candidates(open_store(store), "compared")
    paths = [store / part for part in read.parts]
    assert {file.uri: file for path in paths for file in read_files(path)} == {
        uri: file for uri, file in listed.items() if uri not in same
    }
    assert read.rows == len(listed) - len(same)
    assert {
        row["uri"]: (row["_was_sha256"], row["_was_id"], row["_was_metadata_hash"], row["_was"])
        for row in rows_of(store, "compared/candidates")
    } == {
        uri: (before[uri].content_sha256, before[uri].id, before[uri].metadata_hash, True)
        if uri in before
        else (None,) * 4
        for uri in listed.keys() - same
    }

    gone = rows_of(store, "compared/gone")
    assert {(row.pop("left_out"), row.pop("was_unknown")) for row in gone} <= {("", None)}
    is_listed = {row["uri"]: row.pop("listed") for row in gone}
    assert {row["uri"]: LedgerRow(**row) for row in gone} == {
        uri: row for uri, row in before.items() if uri not in same
    }
    assert is_listed == {uri: uri in listed for uri in before.keys() - same}

    assert found.previous == len(before) == found.same + found.touched + found.gone
    assert found.listed == len(listed) == found.same + found.touched + found.new
    assert (found.same, found.gone) == (len(same), len(before.keys() - listed.keys()))
    for kind in KINDS:
        for number in range(found.parts):
            for path in files_of(open_store(store), "compared", kind, number):
                names = pq.read_table(store / path)["uri"]
                assert len(names) > 0
                assert set(partitions.uri_partitions(names, found.parts)) == {number}
                assert kind == "candidates" or names.to_pylist() == sorted(names.to_pylist())
    named = {path for kind in KINDS for path in files_of(open_store(store), "compared", kind)}
    there = set(open_store(store).files("compared"))
    assert {path for path in there if path.endswith(".parquet")} == named
    assert {path.split("/")[1] for path in there - named} <= {"compared.json", "parts"}


# --- what else --------------------------------------------------------------------------------


def small(store: Path, folder: str = "compared", **given: Any) -> Comparison:
    files = [SourceFile(f"/{i}", 5, "1") for i in range(3)]
    listing = listings.write_listing(open_store(store), "listing", files, listing_schema(METADATA))
    rows = [LedgerRow("/1", "embedded", "", "", 5, "1", b"c" * 32, 7, metadata_hash=9)]
    options: dict[str, Any] = {"scanned_ns": None, "metadata": METADATA, **given}
    return compare(open_store(store), listing, write_parent(store, rows), folder, **options)


def test_metadata_that_are_not_listed_are_not_compared(tmp_path: Path) -> None:
    assert small(tmp_path, "one").same == 0
    assert small(tmp_path, "other", metadata=None).same == 1


def test_nothing_is_done_again_once_it_is_done(tmp_path: Path) -> None:
    found = small(tmp_path)
    assert found == Comparison(**asdict(found))
    (tmp_path / "parent/all.parquet").unlink()
    listing = Listing(("listing/absent.parquet",), 3, 100)
    lines = [{"path": "parent/all.parquet", "rows": 1}]
    assert (
        compare(open_store(tmp_path), listing, lines, "compared", scanned_ns=None, metadata=None)
        == found
    )


def test_what_no_record_names_is_not_read(tmp_path: Path) -> None:
    for kind in KINDS:
        (tmp_path / "compared" / kind).mkdir(parents=True)
        (tmp_path / "compared" / kind / "00000-0123456789abcdef.parquet").write_bytes(b"half")
    small(tmp_path)
    named = {kind: files_of(open_store(tmp_path), "compared", kind) for kind in KINDS}
    assert [len(named[kind]) for kind in KINDS] == [0, 1, 1]
    for kind in ("candidates", "gone"):
        assert len(rows_of(tmp_path, f"compared/{kind}")) == {"candidates": 3, "gone": 1}[kind]


def test_a_first_run_compares_with_nothing(tmp_path: Path) -> None:
    files = [SourceFile(f"/{i}", 5, "1", "", {"label": "a"}) for i in range(3)]
    listing = listings.write_listing(
        open_store(tmp_path), "listing", files, listing_schema(METADATA)
    )
    found = compare(
        open_store(tmp_path), listing, [], "compared", scanned_ns=None, metadata=METADATA
    )
    assert (found.previous, found.listed, found.new) == (0, 3, 3)
    assert candidates(open_store(tmp_path), "compared").rows == 3
    assert candidates(open_store(tmp_path), "compared").bytes > 0
    assert files_of(open_store(tmp_path), "compared", "gone") == []


def test_nothing_listed_is_all_gone(tmp_path: Path) -> None:
    rows = [LedgerRow("/1", "embedded", "", "", 5, "1", b"c" * 32, 7)]
    parent = write_parent(tmp_path, rows)
    found = compare(
        open_store(tmp_path),
        Listing((), 0, 0),
        parent,
        "compared",
        scanned_ns=None,
        metadata=METADATA,
    )
    assert (found.previous, found.gone, found.listed) == (1, 1, 0)
    assert candidates(open_store(tmp_path), "compared") == Listing((), 0, 0)


def test_partitions_stay_while_they_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "PARTITION_ROWS", 10)
    rows = [LedgerRow(f"/{i}", "ignored", "", "", 5, "1") for i in range(70)]

    def parts(had: int, count: int) -> int:
        store = tmp_path / f"{had}-{count}"
        return compare(
            open_store(store),
            Listing((), 0, 0),
            write_parent(store, rows[:count], had),
            "c",
            scanned_ns=None,
            metadata=METADATA,
        ).parts

    assert [parts(8, count) for count in (1, 11, 70)] == [1, 8, 8]
    assert [parts(4, count) for count in (11, 40, 70)] == [4, 4, 8]
    assert [parts(0, count) for count in (10, 70)] == [1, 8]


ROW_VALUES = st.fixed_dictionaries(
    {
        "f": st.none() | st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf")]),
        "s": st.none() | st.sampled_from(["", "a", "b"]),
        "i": st.none() | st.integers(-1, 1),
        "b": st.none() | st.booleans(),
        "l": st.none() | st.lists(st.integers(0, 1), max_size=2),
    }
)


@FAST
@given(rows=st.lists(ROW_VALUES, max_size=20), names=st.sets(st.sampled_from("fsibl"), min_size=1))
def test_metadata_hashes_are_those_of_each_row(
    rows: list[dict[str, object]], names: set[str]
) -> None:
    kinds = {
        "f": pa.float64(),
        "s": pa.string(),
        "i": pa.int64(),
        "b": pa.bool_(),
        "l": pa.list_(pa.int64()),
    }
    schema = pa.schema([(name, kinds[name]) for name in sorted(names)])
    table = pa.Table.from_pylist(rows, schema)
    expected = [metadata_hash({name: row[name] for name in names}) for row in rows]
    assert metadata_hashes(table).tolist() == expected


OLD = str(SCANNED - 10**10)


@pytest.mark.parametrize(
    ("file", "row", "options", "same"),
    [
        ({}, {}, {}, True),
        ({"version": "v"}, {"version": "v"}, {}, True),
        ({"version": ""}, {"version": ""}, {}, False),
        ({"problem": "gone"}, {}, {}, False),
        ({"bytes": 6}, {}, {}, False),
        ({"bytes": -1}, {"bytes": -1}, {}, True),
        ({"version": "2"}, {}, {}, False),
        ({"metadata": {"label": "a"}}, {}, {}, False),
        ({}, {"metadata_hash": metadata_hash({"label": "a"})}, {}, False),
        ({"metadata": {"n": 1}}, {"metadata_hash": metadata_hash({"n": 1})}, {}, True),
        ({}, {}, {"rehash": True}, False),
        ({}, {"status": "removed"}, {}, False),
        ({}, {"status": "ignored"}, {"retry": frozenset()}, True),
        ({}, {"status": "rejected", "reason": "corrupt"}, {}, True),
        ({}, {"status": "rejected", "reason": "unreadable"}, {}, False),
        ({}, {"status": "rejected", "reason": "corrupt"}, {"retry": frozenset()}, False),
        ({}, {"status": "rejected", "reason": "corrupt"}, {"retry": frozenset({"corrupt"})}, False),
        ({}, {"status": "rejected", "reason": "corrupt"}, {"retry": frozenset({"empty"})}, True),
        *(
            ({"version": version}, {"version": version}, {"scanned_ns": SCANNED}, same)
            for version, same in [
                (str(SCANNED - 2 * 10**9 - 1), True),
                (str(SCANNED - 2 * 10**9), False),
                (str(SCANNED + 5), False),
                (f"{OLD}+{SCANNED}", True),
                (f"{SCANNED}+1", False),
                (f"0{OLD}", True),
                (f"00{SCANNED}", False),
                ("9" * 25, False),
                ("0", True),
                ("17", True),
                (f"{SCANNED}-1", True),
                (f"v{SCANNED}", True),
                (f"+{SCANNED}", True),
            ]
        ),
    ],
)
def test_one_file(
    tmp_path: Path,
    file: dict[str, Any],
    row: dict[str, Any],
    options: dict[str, Any],
    same: bool,
) -> None:
    source = SourceFile(**{"uri": "/a", "bytes": 5, "version": "1", **file})
    before = LedgerRow(**{"uri": "/a", "status": "embedded", "bytes": 5, "version": "1", **row})
    listing = listings.write_listing(
        open_store(tmp_path), "listing", [source], listing_schema(METADATA)
    )
    given = {"scanned_ns": None, "metadata": METADATA, **options}
    found = compare(
        open_store(tmp_path), listing, write_parent(tmp_path, [before]), "compared", **given
    )
    assert (found.same, found.new + found.touched) == ((1, 0) if same else (0, 1))


def test_ledger_rows_are_written_by_name(tmp_path: Path) -> None:
    rows = [
        LedgerRow(uri, "ignored", "", "", 5, "1") for uri in ("/b", "/x", "/a", "/y", "/é", "/c")
    ]
    files = [SourceFile(uri, 5, "1") for uri in ("/c", "/é", "/a", "/b")]
    listing = listings.write_listing(
        open_store(tmp_path), "listing", files, listing_schema(METADATA)
    )
    compare(
        open_store(tmp_path),
        listing,
        write_parent(tmp_path, rows),
        "compared",
        scanned_ns=None,
        metadata=METADATA,
    )
    names = [row["uri"] for row in rows_of(tmp_path, "compared/carried")]
    assert names == ["/a", "/b", "/c", "/é"]
    assert [row["uri"] for row in rows_of(tmp_path, "compared/gone")] == ["/x", "/y"]


def test_the_digest_of_a_listing_changes_with_names_sizes_and_versions(tmp_path: Path) -> None:
    base = {"uri": ["/a", "/b"], "bytes": [1, 2], "version": ["x", "y"], "label": ["p", "q"]}

    def digest(**change: list[Any]) -> str:
        columns = {**base, **change}
        rows = [
            SourceFile(*row[:3], metadata={"label": row[3]})
            for row in zip(*columns.values(), strict=True)
        ]
        store = open_store(tmp_path / repr(change))
        listing = listings.write_listing(store, "listing", rows, listing_schema(METADATA))
        return compare(store, listing, [], "c", scanned_ns=None, metadata=METADATA).digest

    assert digest() == digest(label=["r", "s"])
    changes = [{"uri": ["/a", "/c"]}, {"bytes": [1, 3]}, {"version": ["x", "z"]}]
    assert len({digest(), *(digest(**change) for change in changes)}) == 4
