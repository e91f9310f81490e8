"""Sources that are listed by many tasks: the same rows in the same order as by one."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.pipelines import listing as rounds
from lookalike.pipelines.listing import SourceListing
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.records import SourceFile
from lookalike.sources import listing as listings
from lookalike.sources import places, source, walking
from lookalike.sources.kinds import metadata_schema, open_source
from lookalike.sources.listing import as_files, listing_schema, write_listing
from lookalike.sources.places import Notes, Place, Spot, ranges, spread
from lookalike.sources.remote_walking import part_keys
from lookalike.sources.selection import Selection
from lookalike.store.objects import open_store
from lookalike.store.runs import Run
from tests.tar_files import write_tar

SAMPLES = [(f"{i}.{end}", b"%d" % i) for i in range(9) for end in ("jpg", "cls")]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has each task list a few rows, and folders parted into few ranges."""

    def set_limits(rows: int) -> None:
        for name, value in (("_HERE_ROWS", rows), ("_TASK_ROWS", rows), ("_HERE_BYTES", -1)):
            monkeypatch.setattr(rounds, name, value)
        monkeypatch.setattr(places, "_RANGES", 3)
        monkeypatch.setattr(places, "FEW", 2)
        monkeypatch.setattr(walking, "FEW", 2)
        monkeypatch.setattr(source, "_BLOCK_ROWS", 4)

    return set_limits


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Files, links, names that are no text, tars, tables and manifests."""
    root = tmp_path / "in"
    for number in range(24):
        file = root / f"tree/{number % 4}/{number % 3}/{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(number))
    (root / "tree/1.png").write_bytes(b"before what lies in 1/")
    (root / "tree/link.png").symlink_to("1.png")
    (root / "tree/way").symlink_to("1")
    (root / "tree/2/.cache").mkdir()
    (root / "tree/2/.cache/x.png").touch()
    for name in (b"\xff.png", b"d\xe9/\xe9.png"):
        path = os.path.join(os.fsencode(root / "tree"), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).touch()
    (root / "mixed").mkdir()
    write_tar(root / "mixed", SAMPLES, "a.tar")
    write_tar(root / "mixed", SAMPLES[:4], "b.tar.gz")
    (root / "mixed/a.txt").touch()
    (root / "mixed/z.txt").touch()
    images = pa.table({"image": [b"%d" % i for i in range(20)], "n": range(20)})
    for year in (1, 2):
        (root / f"mixed/y={year}").mkdir()
        pq.write_table(images, root / f"mixed/y={year}/t.parquet", row_group_size=3)
    rows = [f"tree/{i % 4}/{i % 3}/{i:02d}.png,{i}\n" for i in range(30)]
    (root / "m.csv").write_text("uri,n\n" + "".join([*rows, ",31\n", "none.png,32\n", *rows]))
    return root


def by_tasks(store: Path, specs: list[str], selection: Selection) -> tuple[list[SourceFile], str]:
    """The listing of a run, and what it says."""
    run = Run(open_store(store), "run")
    run.start()
    told = io.StringIO()
    sources = [open_source(spec, selection) for spec in specs]
    runner = TaskRunner(run, RunnerSpec(workers=1), Progress(told))
    listing, metadata = SourceListing(runner, f"{run.folder}/listing", sources).run()
    parts = [store / part for part in listing.parts]
    assert all(pq.read_schema(part) == listing_schema(metadata) for part in parts)
    assert listing.rows == sum(pq.read_metadata(part).num_rows for part in parts)
    assert metadata == metadata_schema(sources)
    return [file for part in parts for file in as_files(pq.read_table(part))], told.getvalue()


def by_one(
    store: Path, specs: list[str], selection: Selection
) -> tuple[list[SourceFile], list[str]]:
    """The stream of the sources' files, as the listing's columns hold them, and what is said."""
    sources, said = [open_source(spec, selection) for spec in specs], list[str]()
    files = (file for one in sources for file in one.files(said.append))
    listing = write_listing(
        open_store(store), "stream", files, listing_schema(metadata_schema(sources)), said.append
    )
    return [file for part in listing.parts for file in as_files(pq.read_table(store / part))], said


@pytest.mark.parametrize("rows", [1, 10])
@pytest.mark.parametrize(
    "specs",
    [
        ["tree"],
        ["tree/*/*/1*.png"],
        ["tree/**"],
        ["tree/*"],
        ["tree/1*"],
        ["tree", "tree/1"],
        ["mixed/*"],
        ["mixed/**/*.parquet"],
        ["mixed/a.tar", "mixed/b.tar.gz", "tree/0"],
        ["m.csv"],
        ["*.csv"],
        ["m.csv", "mixed/**", "tree"],
    ],
    ids=" ".join,
)
def test_rows_and_their_order_do_not_depend_on_tasks(
    place: Path, tmp_path: Path, few: Callable[[int], None], specs: list[str], rows: int
) -> None:
    few(rows)
    named = [str(place / spec) for spec in specs]
    for selection in (Selection(), Selection(("2/", "*1.png"), hidden=False)):
        found, told = by_tasks(tmp_path / "store", named, selection)
        expected, said = by_one(tmp_path / "store", named, selection)
        assert found == expected
        assert set(said) <= set(told.splitlines())


def test_a_small_source_is_listed_without_an_engine(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TaskRunner, "run", lambda *args: pytest.fail("an engine was started"))
    named = [str(place / "mixed/**"), str(place / "tree"), str(place / "m.csv")]
    found, _ = by_tasks(tmp_path / "store", named, Selection())
    assert found == by_one(tmp_path / "store", named, Selection())[0]


def test_what_is_listed_twice_is_listed_once(place: Path, tmp_path: Path) -> None:
    """Of two attempts the first one's record counts, whatever the other saw."""
    store, sources = open_store(tmp_path), [open_source(str(place / "tree/1"))]
    task = listings.ListTask(0, (Place(0),), "listing/0", "listed/0.json", 100, 0)
    first = listings.list_places(task, store, sources, pa.schema([]))
    (place / "tree/1/new.png").touch()
    assert listings.list_places(task, store, sources, pa.schema([])) == first
    store.delete(["listed/0.json"])
    assert listings.list_places(task, store, sources, pa.schema([])) != first


def test_a_manifest_that_changes_meanwhile_is_refused(
    place: Path, tmp_path: Path, few: Callable[[int], None]
) -> None:
    few(5)
    run = Run(open_store(tmp_path / "store"), "run")
    run.start()
    opened = open_source(str(place / "m.csv"))
    (place / "m.csv").write_text("uri,n\n1.png,1\n")
    runner = TaskRunner(run, RunnerSpec(workers=1), Progress(io.StringIO()))
    with pytest.raises(RequestError, match=r"m\.csv: it changed while it was read"):
        SourceListing(runner, f"{run.folder}/listing", [opened]).run()


def test_places_go_through_records() -> None:
    spot = Spot("/a/\udcff", "b", "c", ("*", "d"), "/a")
    for one in (Place(1), Place(2, "walk", spot), Place(0, "tar", None, "/t.tar", 5, "v", 1, 2)):
        assert Place.from_json(one.to_json()) == one


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, unique=True), st.data())
def test_ranges_part_names(names: list[str], data: st.DataObject) -> None:
    names = sorted(names)
    folders = data.draw(st.none() | st.integers(0, len(names)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "_RANGES", data.draw(st.integers(1, 9)))
        patch.setattr(places, "FEW", data.draw(st.integers(1, 9)))
        found = list(ranges(names, "", "", folders))
    parts = [
        [one for one in names if one > after and (not until or one <= until)]
        for after, until in found
    ]
    assert [one for part in parts for one in part] == names
    assert all(parts)


@given(st.integers(0, 50), st.integers(1, 200))
def test_numbers_are_spread(first: int, count: int) -> None:
    found = list(spread(first, first + count))
    assert [one for start, end in found for one in range(start, end)] == [
        *range(first, first + count)
    ]
    assert all(start < end for start, end in found)


KEYS = st.text("a/\U0010ffffé0", max_size=6).map("p/".__add__)


@given(st.lists(KEYS, unique=True, max_size=60), KEYS, KEYS | st.just(""))
def test_keys_are_parted_whatever_they_are(keys: list[str], after: str, until: str) -> None:
    keys = sorted(keys)
    probes: list[str] = []

    def next_key(text: str) -> str | None:
        probes.append(text)
        return next((key for key in keys if key > text), None)

    ends = part_keys(next_key, "p/", after, until)
    assert len(probes) < 1000
    bounds = [after, *ends, until or "\U0010ffff" * 9]
    left = [key for key in keys if after < key <= bounds[-1]]
    found = [key for low, high in pairwise(bounds) for key in left if low < key <= high]
    assert sorted(found) == left
    if left:
        assert ends == sorted(set(ends))
        assert len(found) == len(left)


def test_keys_without_folders_are_parted() -> None:
    keys = [f"p/IMG_{i:06d}.jpg" for i in range(5000)]

    def next_key(text: str) -> str | None:
        return next((key for key in keys if key > text), None)

    bounds = ["p/IMG_000100.jpg", *part_keys(next_key, "p/", "p/IMG_000100.jpg", ""), "q"]
    shares = [sum(low < key <= high for key in keys) for low, high in pairwise(bounds)]
    assert sum(shares) == 4899
    assert max(shares) <= 1000


def test_notes_are_told_once_and_counted() -> None:
    def notes(source: int) -> Iterator[Notes]:
        one = Notes()
        one.tell("a line", about="x")
        one.tell("a link")
        one.lost("n", "metadata left out: n")
        one.take(source, 2, f"s{source}.tar#a.json: why")
        yield one

    told: list[str] = []
    merged = Notes(told.append)
    for source_number in (0, 1, 0):
        for one in notes(source_number):
            merged.merge(one.to_json())
    merged.finish()
    assert told == [
        "a line",
        "a link",
        "metadata left out: n",
        "a link",
        "a link",
        "4 .json, .txt or .cls members of tars are no metadata, the first is s0.tar#a.json: why",
        "2 .json, .txt or .cls members of tars are no metadata, the first is s1.tar#a.json: why",
    ]
