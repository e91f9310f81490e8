from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.records import SourceFile
from lookalike.sources import listing, units
from lookalike.store.objects import open_store

SCHEMA = units.listing_schema(pa.schema([("label", pa.string())]))
# (number of the name, content): few sizes and contents, so that classes are large
LISTED = st.lists(
    st.tuples(st.integers(0, 400), st.binary(max_size=3).map(lambda data: data[:1] * len(data))),
    max_size=150,
    unique_by=lambda file: file[0],
)


class Pile:
    """Files that exist in memory; `read` is what the cutting may ask for."""

    def __init__(self, contents: dict[str, bytes | None]) -> None:
        self.contents = contents

    def files(self) -> list[SourceFile]:
        return [
            SourceFile(uri, -1, "", "gone", {"label": uri})
            if data is None
            else SourceFile(uri, len(data), "1", "", {"label": uri})
            for uri, data in self.contents.items()
        ]

    def read(self, uri: str) -> bytes:
        data = self.contents[uri]
        if data is None:
            raise FileNotFoundError(uri)
        return data


def cut(
    store: Path, files: list[SourceFile], unit_rows: int, read: Callable[[str], bytes]
) -> list[list[SourceFile]]:
    written = units.write_listing(open_store(store), "listing", files, SCHEMA)
    assert written.rows == len(files)
    found = []
    for i, (name, rows) in enumerate(
        units.cut_units(open_store(store), written, "units", unit_rows, read)
    ):
        assert name == f"units/{i:06d}.parquet"
        unit = list(units.read_files(store / name))
        assert len(unit) == rows > 0
        found.append(unit)
    assert (
        sorted((store / "units").glob("*"))
        == [store / f"units/{i:06d}.parquet" for i in range(len(found))]
        or not found
    )
    return found


@pytest.fixture(params=["one partition", "many partitions"])
def partitions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "many partitions":
        monkeypatch.setattr(listing, "_PART_ROWS", 7)
        monkeypatch.setattr(units, "_PARTITION_ROWS", 20)
    return str(request.param)


@pytest.mark.usefixtures("partitions")
@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(listed=LISTED, lost=st.sets(st.integers(0, 400), max_size=5), unit_rows=st.integers(1, 20))
def test_units_are_a_partition_in_which_equal_files_meet(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[tuple[int, bytes]],
    lost: set[int],
    unit_rows: int,
) -> None:
    pile = Pile({f"/{i}.jpg": None if i in lost else data for i, data in listed})
    files = pile.files()
    found = cut(tmp_path_factory.mktemp("store"), files, unit_rows, pile.read)

    # every file is in one unit, once, with all that was listed of it
    assert sorted((file for unit in found for file in unit), key=str) == sorted(files, key=str)

    # equal bytes meet in one unit; and so do equal sizes, unless there are very many
    sizes, contents = defaultdict(set), defaultdict(set)
    count: dict[int, int] = defaultdict(int)
    for number, unit in enumerate(found):
        for file in unit:
            if file.bytes > 0:
                sizes[file.bytes].add(number)
                count[file.bytes] += 1
                contents[pile.contents[file.uri]].add(number)
    assert all(len(numbers) == 1 for numbers in contents.values())
    heavy = {size for size in count if count[size] > 4 * unit_rows}
    assert all(len(sizes[size]) == 1 for size in set(sizes) - heavy)

    # no unit is larger than it must be
    copies = max((len([1 for other in pile.contents.values() if other == data])
                  for data in pile.contents.values() if data), default=0)  # fmt: skip
    assert all(len(unit) < unit_rows + max(4 * unit_rows, copies) for unit in found)


@pytest.mark.usefixtures("partitions")
@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(listed=LISTED, unit_rows=st.integers(1, 20), seed=st.integers(0, 9))
def test_units_do_not_depend_on_the_order_of_the_listing(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[tuple[int, bytes]],
    unit_rows: int,
    seed: int,
) -> None:
    pile = Pile({f"/{i}.jpg": data for i, data in listed})
    files = pile.files()
    one = cut(tmp_path_factory.mktemp("one"), files, unit_rows, pile.read)
    random.Random(seed).shuffle(files)
    assert cut(tmp_path_factory.mktemp("other"), files, unit_rows, pile.read) == one


def test_many_units_are_made_and_filled(tmp_path: Path) -> None:
    files = [SourceFile(f"/{i}", 1 + i, "") for i in range(5000)]
    found = cut(tmp_path, files, 64, lambda uri: pytest.fail(f"{uri} was read"))
    assert len(found) == -(-5000 // 64)
    assert {len(unit) for unit in found[:-1]} == {64}
    # folders and sizes are mixed: no unit holds all the large ones
    means = [np.mean([file.bytes for file in unit]) for unit in found[:-1]]
    assert 1500 < min(means) < max(means) < 3500


def test_one_common_size_is_cut_by_content(tmp_path: Path) -> None:
    pile = Pile({f"/{i}.bmp": b"%04d" % (i // 2) for i in range(1000)})
    found = cut(tmp_path, pile.files(), 32, pile.read)
    assert len(found) > 20
    assert max(map(len, found)) <= 33
    where = {file.uri: number for number, unit in enumerate(found) for file in unit}
    assert all(where[f"/{i}.bmp"] == where[f"/{i + 1}.bmp"] for i in range(0, 1000, 2))


def test_a_heavy_file_that_cannot_be_read_is_in_a_unit_all_the_same(tmp_path: Path) -> None:
    pile = Pile({f"/{i}.bmp": b"%04d" % i for i in range(200)})
    files = pile.files()
    pile.contents["/7.bmp"] = None
    found = cut(tmp_path, files, 32, pile.read)
    assert sorted(file.uri for unit in found for file in unit) == sorted(pile.contents)


def test_empty_and_unreachable_files_do_not_gather_in_one_unit(tmp_path: Path) -> None:
    files = [
        SourceFile(f"/{i}", i % 2 - 1, "", "problem" if i % 2 == 0 else "") for i in range(999)
    ]
    found = cut(tmp_path, files, 32, lambda uri: pytest.fail(f"{uri} was read"))
    assert max(map(len, found)) == 32


def test_nothing_listed_makes_no_unit(tmp_path: Path) -> None:
    assert cut(tmp_path, [], 32, lambda uri: b"") == []


def test_metadata_that_a_source_lacks_is_null(tmp_path: Path) -> None:
    [[file]] = cut(tmp_path, [SourceFile("/a", 1, "v")], 32, lambda uri: b"")
    assert file == SourceFile("/a", 1, "v", "", {"label": None})


def test_a_store_below_a_name_with_an_equals_sign(tmp_path: Path) -> None:
    [[file]] = cut(tmp_path / "run=5", [SourceFile("/a", 1, "v")], 32, lambda uri: b"")
    assert set(file.metadata) == {"label"}


@pytest.mark.parametrize(
    ("listed", "workers", "rows"),
    [(0, 1, 32), (100, 2, 32), (1000, 2, 63), (1_000_000, 16, 1024), (10_000, 4, 313)],
)
def test_unit_rows(listed: int, workers: int, rows: int) -> None:
    assert units.unit_rows_for(listed, workers) == rows


def test_mix_is_splitmix64() -> None:
    # the first outputs of Vigna's splitmix64.c for the state 1234567
    gamma, state = 0x9E3779B97F4A7C15, 1234567
    states = np.array([(state + i * gamma) % 2**64 for i in range(3)], dtype=np.uint64)
    assert units.mix(states).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


def test_rows_bear_the_key_that_they_were_cut_along(tmp_path: Path) -> None:
    pile = Pile({**{f"/{i}.bmp": b"%04d" % i for i in range(200)}, "/a": b"ab", "/b": b"cd",
                 "/c": b"abc"})  # fmt: skip
    files = [*pile.files(), SourceFile("/t#1", 3, "", "", {}, "/t", 0, 0),
             SourceFile("/t#2", -1, "", "", {}, "/t", 1, 0),
             SourceFile("/t#3", 7, "", "", {}, "/t", 2, 0)]  # fmt: skip
    written = units.write_listing(open_store(tmp_path), "listing", files, SCHEMA)
    common = units.size_buckets(np.array([2, 7]))
    keys: dict[str, int | None] = {}
    for name, _ in units.cut_units(open_store(tmp_path), written, "units", 32, pile.read, common):
        table = pq.read_table(tmp_path / name)
        keys.update(zip(table["uri"].to_pylist(), table["_key"].to_pylist(), strict=True))

    def content(data: bytes) -> int:
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")

    by_size = units.size_keys(np.array([3])).tolist()[0]
    assert (keys["/c"], keys["/t#1"]) == (by_size, by_size)
    assert keys["/7.bmp"] == content(b"0007")  # very many in this listing
    assert (keys["/a"], keys["/b"]) == (content(b"ab"), content(b"cd"))  # very many before
    assert (keys["/t#2"], keys["/t#3"]) == (None, None)
    digests = [hashlib.sha256(data).digest() for data in (b"ab", b"cd", b"x")]
    column = pa.array([b"z" * 32, *digests], pa.binary(32))
    assert units.content_keys(column[1:])[:2].tolist() == [keys["/a"], keys["/b"]]
    assert units.content_keys(pa.chunked_array([column[1:2], column[2:3]])).tolist() == [
        keys["/a"], keys["/b"],
    ]  # fmt: skip
    assert units.content_keys(column[:0]).tolist() == []


# --- what lies in containers ------------------------------------------------------------------


def contained(sizes: list[list[int]]) -> list[SourceFile]:
    """Members of containers: `sizes` has the members per group of each."""
    return [
        SourceFile(f"/{c}.tar#{g}-{i}", 100, "v", "", {"label": "x"}, f"/{c}.tar", g * 1000 + i, g)
        for c, groups in enumerate(sizes)
        for g, count in enumerate(groups)
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.usefixtures("partitions")
@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(sizes=st.lists(st.lists(st.integers(0, 12), max_size=4), max_size=6), plain=LISTED,
       unit_rows=st.integers(1, 20), seed=st.integers(0, 9))  # fmt: skip
def test_containers_are_cut_into_whole_pieces_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[list[int]],
    plain: list[tuple[int, bytes]],
    unit_rows: int,
    seed: int,
) -> None:
    pile = Pile({f"/{i}.jpg": data for i, data in plain})
    files = [*pile.files(), *contained(sizes)]
    found = cut(tmp_path_factory.mktemp("one"), files, unit_rows, pile.read)
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
    assert cut(tmp_path_factory.mktemp("other"), files, unit_rows, pile.read) == found


def test_each_container_is_a_unit(tmp_path: Path) -> None:
    found = cut(tmp_path, contained([[10]] * 20), 32, lambda uri: pytest.fail(f"{uri} was read"))
    assert [len(unit) for unit in found] == [10] * 20


def test_members_of_one_size_are_not_read(tmp_path: Path) -> None:
    found = cut(tmp_path, contained([[500]]), 8, lambda uri: pytest.fail(f"{uri} was read"))
    assert [len(unit) for unit in found] == [500]


def test_much_metadata_makes_more_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_PART_BYTES", 10_000)
    monkeypatch.setattr(units, "_PARTITION_BYTES", 50_000)
    files = [SourceFile(f"/{i}", 1 + i, "", "", {"label": "x" * 1000}) for i in range(200)]
    written = units.write_listing(open_store(tmp_path), "listing", files, SCHEMA, pytest.fail)
    assert 20 <= len(written.parts) <= 30
    assert 200_000 < written.bytes < 250_000
    found = list(units.cut_units(open_store(tmp_path), written, "units", 1000, lambda uri: b""))
    assert sum(rows for _, rows in found) == 200
    assert len(found) > 1


def test_metadata_without_a_fitting_column_are_told_once(tmp_path: Path) -> None:
    schema = units.listing_schema(pa.schema([("n", pa.int64()), ("s", pa.string())]))
    values: list[dict[str, object]] = [
        {"n": 1, "s": "a"}, {"n": "x", "s": 2.5}, {"n": True, "new": 1}, {"n": 2**70, "new": 2},
    ]  # fmt: skip
    files = [SourceFile(f"/{i}", 1, "", "", value) for i, value in enumerate(values)]
    notices: list[str] = []
    [part] = units.write_listing(
        open_store(tmp_path), "listing", files, schema, notices.append
    ).parts
    assert [dict(file.metadata) for file in units.read_files(tmp_path / part)] == [
        {"n": 1, "s": "a"}, {"n": None, "s": "2.5"}, {"n": None, "s": None}, {"n": None, "s": None},
    ]  # fmt: skip
    assert notices == [
        "metadata left out: 'n' of /1, and others like it: 'x' is no int64",
        "metadata left out: 'new' of /2 and files after it; it was not seen where the columns were "
        "told from, or there are too many",
    ]
