from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.records import SourceFile
from lookalike.sources import listing, units
from lookalike.store import exchange
from lookalike.store.objects import open_store
from lookalike.store.partitions import uri_partitions
from tests import scanning

SCHEMA = listing.listing_schema(pa.schema([("label", pa.string())]))
# (number of the name, content): few sizes and contents, so that classes are large
LISTED = st.lists(
    st.tuples(st.integers(0, 400), st.binary(max_size=3).map(lambda data: data[:1] * len(data))),
    max_size=150,
    unique_by=lambda file: file[0],
)


def pile_of(contents: dict[str, bytes | None]) -> list[SourceFile]:
    """Files of these contents; those of None are gone."""
    return [
        SourceFile(uri, -1, "", "gone", {"label": uri})
        if data is None
        else SourceFile(uri, len(data), "1", "", {"label": uri})
        for uri, data in contents.items()
    ]


def cut(root: Path, files: list[SourceFile], unit_rows: int) -> list[list[SourceFile]]:
    """The units of a listing, whose parts are partitions of names, as the candidates' are."""
    store = open_store(root)
    names = pa.array([file.uri for file in files], pa.string())
    which = uri_partitions(names, 1 << (len(files) // listing._PART_ROWS).bit_length())
    parts: list[str] = []
    rows = size = 0
    for number in sorted(set(which.tolist())):
        own = [file for file, i in zip(files, which, strict=True) if i == number]
        written = listing.write_listing(store, f"listing/{number}", own, SCHEMA)
        parts, rows = [*parts, *written.parts], rows + written.rows
        size += written.bytes
    assert rows == len(files)
    found = scanning.cut(store, listing.Listing(tuple(parts), rows, size), "units", unit_rows)
    tables = [found.table(store, number) for number in range(len(found))]
    assert all(table.num_rows for table in tables)
    return [list(listing.as_files(table)) for table in tables]


@pytest.fixture(params=["one partition", "many partitions"])
def partitions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "many partitions":
        monkeypatch.setattr(listing, "_PART_ROWS", 7)
        monkeypatch.setattr(units, "_PARTITION_ROWS", 20)
        monkeypatch.setattr(exchange, "_TASK_ROWS", 7)
    return str(request.param)


@pytest.mark.usefixtures("partitions")
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(listed=LISTED, lost=st.sets(st.integers(0, 400), max_size=5), unit_rows=st.integers(1, 20))
def test_units_are_a_partition_in_which_equal_files_meet(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[tuple[int, bytes]],
    lost: set[int],
    unit_rows: int,
) -> None:
    pile = {f"/{i}.jpg": None if i in lost else data for i, data in listed}
    files = pile_of(pile)
    found = cut(tmp_path_factory.mktemp("store"), files, unit_rows)

    # every file is in one unit, once, with all that was listed of it
    assert sorted((file for unit in found for file in unit), key=str) == sorted(files, key=str)

    # equal sizes, and so equal bytes, meet in one unit, unless there are very many
    sizes = defaultdict(set)
    count: dict[int, int] = defaultdict(int)
    for number, unit in enumerate(found):
        for file in unit:
            if file.bytes > 0:
                sizes[file.bytes].add(number)
                count[file.bytes] += 1
    heavy = {size for size in count if count[size] > 4 * unit_rows}
    assert all(len(sizes[size]) == 1 for size in set(sizes) - heavy)

    # no unit is larger than it must be
    assert all(len(unit) < 5 * unit_rows for unit in found)


@pytest.mark.usefixtures("partitions")
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(listed=LISTED, unit_rows=st.integers(1, 20), seed=st.integers(0, 9))
def test_units_do_not_depend_on_the_order_of_the_listing(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[tuple[int, bytes]],
    unit_rows: int,
    seed: int,
) -> None:
    files = pile_of({f"/{i}.jpg": data for i, data in listed})
    one = cut(tmp_path_factory.mktemp("one"), files, unit_rows)
    random.Random(seed).shuffle(files)
    assert cut(tmp_path_factory.mktemp("other"), files, unit_rows) == one


def test_many_units_are_made_and_filled(tmp_path: Path) -> None:
    files = [SourceFile(f"/{i}", 1 + i, "") for i in range(5000)]
    found = cut(tmp_path, files, 64)
    assert len(found) == -(-5000 // 64)
    assert {len(unit) for unit in found[:-1]} == {64}
    # folders and sizes are mixed: no unit holds all the large ones
    means = [np.mean([file.bytes for file in unit]) for unit in found[:-1]]
    assert 1500 < min(means) < max(means) < 3500


@pytest.mark.parametrize("limit", [units._COMMON_ROWS, 50])
def test_one_common_size_is_cut_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """In its partition; or, where a task has very many, in all, so that none grows too large."""
    monkeypatch.setattr(units, "_COMMON_ROWS", limit)
    monkeypatch.setattr(units, "_PARTITION_ROWS", 250)
    files = [
        *pile_of({f"/{i}.bmp": b"%04d" % (i // 2) for i in range(1000)}),
        *pile_of({f"/{i}.png": b"x" * (10 + i // 2) for i in range(60)}),
    ]
    found = cut(tmp_path, files, 32)
    assert len(found) > 20
    assert max(map(len, found)) <= 33
    assert sorted(file.uri for unit in found for file in unit) == sorted(file.uri for file in files)
    sizes = [{file.bytes for file in unit} for unit in found]
    for size in {file.bytes for file in files} - {4}:
        assert sum(size in some for some in sizes) == 1
    counts = [
        store_record["rows"]
        for path in sorted((tmp_path / "units/parts").glob("*.json"))
        for store_record in [json.loads(path.read_text())]
    ]
    assert (max(counts) > 900) == (limit > 1000)


def test_empty_and_unreachable_files_do_not_gather_in_one_unit(tmp_path: Path) -> None:
    files = [
        SourceFile(f"/{i}", i % 2 - 1, "", "problem" if i % 2 == 0 else "") for i in range(999)
    ]
    found = cut(tmp_path, files, 32)
    assert max(map(len, found)) == 32


def test_nothing_listed_makes_no_unit(tmp_path: Path) -> None:
    assert cut(tmp_path, [], 32) == []


def test_metadata_that_a_source_lacks_is_null(tmp_path: Path) -> None:
    [[file]] = cut(tmp_path, [SourceFile("/a", 1, "v")], 32)
    assert file == SourceFile("/a", 1, "v", "", {"label": None})


def test_a_store_below_a_name_with_an_equals_sign(tmp_path: Path) -> None:
    [[file]] = cut(tmp_path / "run=5", [SourceFile("/a", 1, "v")], 32)
    assert set(file.metadata) == {"label"}


@pytest.mark.parametrize(
    ("listed", "rows"),
    [(0, 128), (100, 128), (30_000, 128), (100_000, 391), (1_000_000, 1024), (10**9, 15_259)],
)
def test_unit_rows(listed: int, rows: int) -> None:
    assert units.unit_rows_for(listed) == rows


def test_mix_is_splitmix64() -> None:
    # the first outputs of Vigna's splitmix64.c for the state 1234567
    gamma, state = 0x9E3779B97F4A7C15, 1234567
    states = np.array([(state + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    assert units.mix(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


# --- what lies in containers ------------------------------------------------------------------


def contained(sizes: list[list[int]]) -> list[SourceFile]:
    """Members of containers: `sizes` has the members per group of each."""
    return [
        SourceFile(f"/{c}.tar#{g}-{i}", 100, "v", "", {"label": "x"}, f"/{c}.tar", g * 1000 + i, g)
        for c, groups in enumerate(sizes)
        for g, count in enumerate(groups)
        for i in range(count)
    ]


@pytest.mark.usefixtures("partitions")
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    sizes=st.lists(st.lists(st.integers(0, 12), max_size=4), max_size=6),
    plain=LISTED,
    unit_rows=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_containers_are_cut_into_whole_pieces_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[list[int]],
    plain: list[tuple[int, bytes]],
    unit_rows: int,
    seed: int,
) -> None:
    files = [*pile_of({f"/{i}.jpg": data for i, data in plain}), *contained(sizes)]
    found = cut(tmp_path_factory.mktemp("one"), files, unit_rows)
    assert sorted((file for unit in found for file in unit), key=str) == sorted(files, key=str)
    where: dict[tuple[str, int], set[int]] = defaultdict(set)
    for number, unit in enumerate(found):
        assert len({bool(file.container) for file in unit}) == 1  # never mixed
        pieces = [(file.container, file.group) for file in unit if file.container]
        for piece in pieces:
            where[piece].add(number)
        assert [(f.container, f.group, f.offset) for f in unit if f.container] == sorted(
            (f.container, f.group, f.offset) for f in unit if f.container
        )
        if pieces:  # full, but for one piece that is larger
            assert len(unit) <= unit_rows or len(set(pieces)) == 1
    assert all(len(numbers) == 1 for numbers in where.values())

    random.Random(seed).shuffle(files)
    assert cut(tmp_path_factory.mktemp("other"), files, unit_rows) == found


def test_each_container_is_a_unit(tmp_path: Path) -> None:
    found = cut(tmp_path, contained([[10]] * 20), 32)
    assert [len(unit) for unit in found] == [10] * 20


def test_members_of_one_size_stay_together(tmp_path: Path) -> None:
    found = cut(tmp_path, contained([[500]]), 8)
    assert [len(unit) for unit in found] == [500]


def test_much_metadata_makes_more_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PART_BYTES", 10_000)
    monkeypatch.setattr(units, "_PARTITION_BYTES", 50_000)
    files = [SourceFile(f"/{i}", 1 + i, "", "", {"label": "x" * 1000}) for i in range(200)]
    written = listing.write_listing(open_store(tmp_path), "listing", files, SCHEMA, pytest.fail)
    assert 20 <= len(written.parts) <= 30
    assert 200_000 < written.bytes < 250_000
    found = scanning.cut(open_store(tmp_path), written, "units", 1000)
    assert sum(found.table(open_store(tmp_path), i).num_rows for i in range(len(found))) == 200
    assert len(found) > 1


def test_metadata_without_a_fitting_column_are_told_once(tmp_path: Path) -> None:
    schema = listing.listing_schema(pa.schema([("n", pa.int64()), ("s", pa.string())]))
    values: list[dict[str, object]] = [
        {"n": 1, "s": "a"},
        {"n": "x", "s": 2.5},
        {"n": True, "new": 1},
        {"n": 2**70, "new": 2},
    ]
    files = [SourceFile(f"/{i}", 1, "", "", value) for i, value in enumerate(values)]
    notices: list[str] = []
    [part] = listing.write_listing(
        open_store(tmp_path), "listing", files, schema, notices.append
    ).parts
    assert [dict(file.metadata) for file in scanning.read_files(tmp_path / part)] == [
        {"n": 1, "s": "a"},
        {"n": None, "s": "2.5"},
        {"n": None, "s": None},
        {"n": None, "s": None},
    ]
    assert notices == [
        "metadata left out: 'n' of /1, and others like it: 'x' is no int64",
        "metadata left out: 'new' of /2 and files after it; it was not seen where the columns were "
        "told from, or there are too many",
    ]
