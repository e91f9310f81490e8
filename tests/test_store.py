"""What every store does, whatever it lies on: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pytest
from faults.folder import armed, compiler, environment
from faults.injector import Fault
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError, StoreWriteError
from lookalike.pipelines.stores import StoreHandle
from lookalike.store import durable, s3_client, shard_format, shards
from lookalike.store.bucket import BucketStore
from lookalike.store.cached import CACHE, LIMIT, FileCache
from lookalike.store.files import FileRecord, Version, record_of
from lookalike.store.folder import FolderStore
from lookalike.store.objects import ConflictError, ObjectStoreError, Store, open_store
from lookalike.store.ranges import coalesce, cut
from lookalike.store.s3_uri import parse
from lookalike.store.sweeping import sweep
from lookalike.store.vector_reader import VectorReader
from tests.s3_server import BUCKET, FAULTS, faulty_proxy, store_uri, stub_server

obstore = pytest.importorskip("obstore")

LARGE = random.Random(0).randbytes((8 << 20) + 77)  # two parts


def prefix(tmp_path: Path) -> str:
    return hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]


@pytest.fixture
def bucket(s3: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return BucketStore(store_uri(s3, prefix(tmp_path)))


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "bucket":
        made: BucketStore = request.getfixturevalue("bucket")
        return made
    return open_store(tmp_path / "store")


# --- whole or absent --------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"1", LARGE], ids=["empty", "small", "large"])
@pytest.mark.parametrize("path", ["CURRENT", "a/b/é %#?&+.bin"])
def test_a_file_comes_back_as_it_was_written(store: Store, path: str, data: bytes) -> None:
    with store.write(path) as pending:
        for start in range(0, len(data), 1 << 20):
            pending.write(data[start : start + (1 << 20)])
    expected = FileRecord(path, hashlib.sha256(data).hexdigest(), len(data))
    assert pending.finished == store.record(path) == expected
    assert b"".join(store.chunks(path)) == store.read_bytes(path) == data
    assert store.local(path).read_bytes() == store.local(expected).read_bytes() == data
    found = store.stat(path)
    assert found is not None
    assert (found.path, found.bytes, store.has(path)) == (path, len(data), True)
    assert abs(datetime.now(timezone.utc) - found.modified) < timedelta(minutes=5)


def test_what_is_not_there(store: Store) -> None:
    assert store.read("a/b") is None
    assert store.stat("a/b") is None
    assert not store.has("a/b")
    assert list(store.entries()) == list(store.entries("a")) == store.folders("a") == []
    store.delete(["a/b"])
    store.delete_below("a")
    for call in (
        store.read_bytes,
        store.read_json,
        store.record,
        lambda path: store.read_ranges(path, [(0, 1)]),
        lambda path: store.local(path).read_bytes(),
    ):
        with pytest.raises(FileNotFoundError, match=r"a/b"):
            call("a/b")


def test_nothing_is_there_until_all_of_it_is(store: Store) -> None:
    with store.write("a/x") as pending:
        pending.write(b"half")
        assert store.read("a/x") is None
        assert list(store.entries()) == []
    store.write_json("a/x", {"é": [1]})
    with suppress(ZeroDivisionError), store.write("a/x") as pending:
        pending.write(b"half")
        assert store.read_json("a/x") == {"é": [1]}
        raise ZeroDivisionError
    assert [entry.path for entry in store.entries()] == ["a/x"]
    assert store.read_json("a/x") == {"é": [1]}


WRITER = """
import os, signal, sys
from lookalike.store.objects import open_store
store = open_store(sys.argv[1])
with store.write("x") as pending:
    pending.write(b"half")
    pending.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
FIRSTS = """
import itertools, sys
from lookalike.store.objects import open_store
store = open_store(sys.argv[1])
for number in itertools.count():
    store.put_if_absent(f"r/{number}", b"a" * 100_000)
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_leaves_nothing(store: Store) -> None:
    assert subprocess.run([sys.executable, "-c", WRITER, store.name]).returncode == -signal.SIGKILL
    assert list(store.entries()) == []
    assert store.put("x", b"whole") == record_of("x", [b"whole"])


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_a_first_writer_that_is_killed_has_written_all_or_nothing(store: Store, lines: int) -> None:
    command = [sys.executable, "-c", FIRSTS, store.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
    there = {entry.path: entry.bytes for entry in store.entries("r")}
    assert len(there) >= lines
    assert set(there.values()) == {100_000}
    for number in range(len(there) + 1):
        mine = store.put_if_absent(f"r/{number}", b"b")
        assert mine == (b"a" * 100_000 if f"r/{number}" in there else b"b")


# --- once -------------------------------------------------------------------------------------


def test_the_first_of_many_counts_for_all(store: Store) -> None:
    for number in range(3):
        path = f"r/{number}"
        with ThreadPoolExecutor(8) as pool:
            given = [bytes([who]) * (1000 + who) for who in range(8)]
            found = set(pool.map(partial(store.put_if_absent, path), given))
        assert len(found) == 1
        assert found == {store.read_bytes(path)} == {store.put_if_absent(path, b"late")}
        assert found <= set(given)


def test_the_first_counts_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(durable.os, "link", link)
    test_the_first_of_many_counts_for_all(FolderStore(tmp_path))
    assert not list(tmp_path.rglob(".*.tmp"))


def test_conditional_puts_let_one_of_two_through(store: Store) -> None:
    first = store.replace_if("x", b"mine", None)
    assert store.replace_if("x", b"mine", None) == first  # mine, whose answer was lost
    with pytest.raises(ConflictError):
        store.replace_if("x", b"another's", None)
    found = store.read("x")
    assert found is not None
    assert (found.version, found.data) == (first, b"mine")
    second = store.replace_if("x", b"mine again", first)
    with pytest.raises(ConflictError):
        store.replace_if("x", b"another's", first)
    store.delete(["x"])
    with pytest.raises(ConflictError):
        store.replace_if("x", b"late", second)
    with pytest.raises(ConflictError):
        store.replace_if("never/there", b"x", second)
    assert store.read("x") is store.read("never/there") is None


def test_no_increment_is_lost(store: Store) -> None:
    def increment(_: int) -> None:
        while True:
            found = store.read("n")
            old: Version | None = found.version if found else None
            number = int(found.data.split()[0]) if found else 0
            try:
                # No two write the same: that would count as written by both.
                store.replace_if("n", f"{number + 1} {os.urandom(8).hex()}".encode(), old)
                return
            except ConflictError:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(24)))
    assert store.read_bytes("n").split()[0] == b"24"


# --- all that is there ------------------------------------------------------------------------


def test_what_is_there(store: Store) -> None:
    paths = ["CURRENT", "a/x", "a/b/y", "a/b/z", "ab/x", *(f"many/{n:04}" for n in range(120))]
    for path in paths:
        store.put(path, path.encode())
    assert sorted(entry.path for entry in store.entries()) == sorted(paths)
    assert {(one.path, one.bytes) for one in store.entries("a")} == {
        ("a/x", 3),
        ("a/b/y", 5),
        ("a/b/z", 5),
    }
    assert store.folders("a") == ["b"]
    assert store.folders("") == ["a", "ab", "many"]
    store.delete(["a/x", "a/never there", "ab/x"])
    store.delete_below("many")
    store.delete_below("many")
    assert sorted(entry.path for entry in store.entries()) == ["CURRENT", "a/b/y", "a/b/z"]
    store.delete([])


def test_a_listing_that_is_cut_short_goes_on(
    bucket: BucketStore, s3: int, tmp_path: Path, impatient: None
) -> None:
    for number in range(30):
        bucket.put(f"{number:02}", b"")
    expected = sorted(entry.path for entry in bucket.entries())
    with faulty_proxy(s3) as (port, faults):
        through = BucketStore(store_uri(port, prefix(tmp_path)))
        for kind in FAULTS:
            faults.plan(kind)
            assert sorted(entry.path for entry in through.entries()) == expected
            assert faults.failed == 1


def test_objects_that_stand_for_folders_are_no_files(bucket: BucketStore) -> None:
    """Consoles and file browsers make such, with keys that end in a slash."""
    for path in ("CURRENT", "runs/x/plan.json", "runs/x-y", "snapshots/a/manifest.json", "z"):
        bucket.put(path, b"" if path in ("runs/x-y", "z") else b"1")
    expected = sorted(entry.path for entry in bucket.entries())
    name = parse(bucket.name)
    client = s3_client.open_client(name)
    for marker in ("", "runs/", "runs/x/", "snapshots/", "snapshots/a/"):
        client.put_object(Bucket=BUCKET, Key=f"{name.key}/{marker}", Body=b"")
    assert sorted(entry.path for entry in bucket.entries()) == expected
    assert bucket.files("runs") == ["runs/x-y", "runs/x/plan.json"]
    assert bucket.files("snapshots") == ["snapshots/a/manifest.json"]
    assert sweep(bucket, ["a"], [], []).paths == ["runs/x-y", "runs/x/plan.json"]
    assert bucket.folders("snapshots") == ["a"]


def test_a_store_travels_by_its_name(store: Store) -> None:
    store.put("x", b"1")
    other = pickle.loads(pickle.dumps(store))
    assert (other, other.name, hash(other)) == (store, store.name, hash(store))
    assert other.read_bytes("x") == b"1"
    assert other != open_store(f"{store.name.partition('?')[0]}-2")
    assert "?" not in f"{store} {store!r} {store.shown('x')}"


@pytest.mark.parametrize("kind", FAULTS)
def test_any_request_may_fail(
    kind: str, bucket: BucketStore, s3: int, tmp_path: Path, impatient: None
) -> None:
    with faulty_proxy(s3) as (port, faults):
        for number in range(0, 50, 4 if kind == "stall" else 1):
            faults.plan(kind, number)
            store = BucketStore(store_uri(port, f"{prefix(tmp_path)}/{number}"), tmp_path / "cache")
            record = store.put("x/y", str(number).encode() * 1000)
            assert store.put_if_absent("first", b"1") == b"1"
            found = store.read("first")
            assert found is not None
            store.replace_if("first", b"2", found.version)
            assert store.read_bytes("first") == b"2"
            assert store.local(record).read_bytes() == str(number).encode() * 1000
            assert store.read_ranges("x/y", [(0, 2), (1, 2)])[0] == store.read_bytes("x/y")[:2]
            assert sorted(entry.path for entry in store.entries()) == ["first", "x/y"]
            assert store.folders("") == ["x"]
            store.delete(["first"])
            assert not store.has("first")
            if not faults.failed:
                break
        assert 8 < number < 49  # every request had its turn


@pytest.mark.parametrize("kind", FAULTS)
def test_any_request_of_an_upload_in_parts_may_fail(
    kind: str, bucket: BucketStore, s3: int, tmp_path: Path, impatient: None
) -> None:
    with faulty_proxy(s3) as (port, faults):
        for number in range(9):
            store = BucketStore(store_uri(port, f"{prefix(tmp_path)}/{number}"), tmp_path / "cache")
            faults.plan(kind, number)
            with store.write("x/large") as pending:
                pending.write(LARGE)
            record = pending.finished
            if not faults.failed:
                break
            faults.plan()
            assert store.local(record).read_bytes() == LARGE
            # An upload of which nobody learned that it had begun stays, until it is looked for.
            left = [one.path for one in store.leftovers()]
            assert all(path.startswith("x/large?uploadId=") for path in left)
            executed = kind not in ("500 before", "cut before", "half a request")
            assert len(left) == (number == 0 and executed)
            store.delete([*left, *left])
            assert not [*store.leftovers()]
            assert [entry.path for entry in store.entries()] == ["x/large"]
        assert number == 4  # begun, two parts, complete


def test_what_a_killed_writer_left_of_an_upload_goes(bucket: BucketStore) -> None:
    name = parse(bucket.name)
    client = s3_client.open_client(name)
    for key in [
        "a/b",
        "a/b",
        "embeddings/1 é?.parquet",
        "runs/x/y",
        *(f"many/{n}" for n in range(9)),
    ]:
        client.create_multipart_upload(Bucket=BUCKET, Key=f"{name.key}/{key}")
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{name.key}-2/a/b")
    bucket.put("a/b", b"1")
    left = [one.path for one in bucket.leftovers()]
    assert len(set(left)) == len(left) == 13
    assert {path.partition("?uploadId=")[0] for path in left} >= {"a/b", "runs/x/y"}
    swept = sweep(bucket, [], ["a/b"], [])
    assert swept.files == 2
    assert sorted(one.path.partition("?")[0] for one in bucket.leftovers())[:2] == ["a/b", "a/b"]
    with StoreHandle(bucket).writing():
        assert not [*bucket.leftovers()]
    assert bucket.read_bytes("a/b") == b"1"
    assert len([*BucketStore(bucket.name.replace("?", "-2?")).leftovers()]) == 1


@pytest.mark.parametrize("denied", ["?uploads", "uploadId="])
def test_who_may_not_end_uploads_may_write(s3: int, tmp_path: Path, denied: str) -> None:
    with faulty_proxy(s3) as (port, faults):
        faults.denied = lambda request: denied in request and not request.startswith("PUT")
        store = BucketStore(store_uri(port, prefix(tmp_path)), tmp_path / "cache")
        name = parse(store_uri(s3, f"{prefix(tmp_path)}/runs/x"))
        s3_client.open_client(name).create_multipart_upload(Bucket=BUCKET, Key=name.key)
        with StoreHandle(store).writing():
            store.put("a", b"1")
        assert store.read_bytes("a") == b"1"


def removal(path: str, code: str) -> bytes:
    """What a server says that removed an object, but not another."""
    return (
        f"<DeleteResult><Deleted><Key>x/gone</Key></Deleted><Error><Key>x/{path}</Key>"
        f"<Code>{code}</Code><Message>no</Message></Error></DeleteResult>"
    ).encode()


@pytest.mark.usefixtures("impatient", "s3")
def test_objects_that_were_not_removed_with_the_others_are_tried_again(tmp_path: Path) -> None:
    done = b"<DeleteResult><Deleted><Key>x/gone</Key></Deleted></DeleteResult>"
    answers = [removal("there", "InternalError"), done]
    with stub_server(lambda method, path: (200, answers.pop(0))) as port:
        BucketStore(store_uri(port, "x"), tmp_path).delete(["gone", "there"])
    assert answers == []


@pytest.mark.usefixtures("s3")
def test_objects_that_may_not_be_removed_are_told_of_at_once(tmp_path: Path) -> None:
    answers = [removal("there", "AccessDenied")]
    with (
        stub_server(lambda method, path: (200, answers.pop(0))) as port,
        pytest.raises(RequestError, match=r"cannot remove gone: not allowed: .*x/there.*; check"),
    ):
        BucketStore(store_uri(port, "x"), tmp_path).delete(["gone", "there"])


# --- ranges -----------------------------------------------------------------------------------

RANGES = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 60)), max_size=12)


@given(RANGES, st.integers(0, 40), st.integers(1, 200))
def test_near_ranges_are_read_together(ranges: list[tuple[int, int]], gap: int, most: int) -> None:
    data = bytes(random.Random(1).randbytes(400))
    spans = coalesce(ranges, gap, most)
    read = dict(
        piece
        for one in spans
        for piece in cut(ranges, one, data[one.start : one.start + one.count])
    )
    assert [read.get(place, b"") for place in range(len(ranges))] == [
        data[start : start + count] for start, count in ranges
    ]
    wanted = sorted(place for one in spans for place in one.wanted)
    assert wanted == [place for place, (_, count) in enumerate(ranges) if count]
    for one, after in pairwise(spans):
        assert one.start <= after.start
        apart = after.start - (one.start + one.count) > gap
        assert apart or after.start + after.count - one.start > most
    assert all(one.count <= max(most, 60) for one in spans if len(one.wanted) < 2)


def test_ranges_come_in_the_order_asked_for(store: Store) -> None:
    store.put("x", LARGE)
    ranges = [(8 << 20, 77), (0, 3), (2, 5), (0, 0), (4 << 20, 1000), (len(LARGE), 0)]
    ranges += [(number * 100_003, 7) for number in range(60)]
    assert store.read_ranges("x", ranges) == [LARGE[at : at + count] for at, count in ranges]
    assert store.read_ranges("x", []) == []
    with pytest.raises(ValueError, match="no range of a file: 3 bytes from -1 on"):
        store.read_ranges("x", [(0, 1), (-1, 3)])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("start", [90, 100, 200])
def test_ranges_beyond_the_end_are_errors(store: Store, start: int) -> None:
    open_store(store.name).put("x", bytes(100))
    with pytest.raises(OSError, match=r"x"):
        open_store(store.name).read_ranges("x", [(0, 10), (start, 11)])


def test_few_requests_bring_many_ranges(bucket: BucketStore, s3: int, tmp_path: Path) -> None:
    bucket.put("x", LARGE)
    with faulty_proxy(s3) as (port, faults):
        store = BucketStore(store_uri(port, prefix(tmp_path)))
        store.read_ranges("x", [(number * 1000, 100) for number in range(1000)])
        assert len(faults.seen) == 1
        store.read_ranges("x", [(0, 10), (4 << 20, 10), (8 << 20, 10)])
        assert len(faults.seen) == 4


# --- the cache --------------------------------------------------------------------------------


def test_a_folder_gives_the_file_itself(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.local(store.put("a/x", b"1")) == store.local("a/x") == tmp_path / "a/x"


def test_a_file_is_fetched_once(bucket: BucketStore, s3: int, tmp_path: Path) -> None:
    record = bucket.put("a/x.parquet", b"1" * 1000)
    with faulty_proxy(s3) as (port, faults):
        store = BucketStore(store_uri(port, prefix(tmp_path)))
        store.know([record])
        path = store.local("a/x.parquet")
        assert (path.suffix, path.stat().st_size) == (".parquet", 1000)
        assert len(faults.seen) == 1
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(store.local, ["a/x.parquet"] * 8)) == {path}
        other = BucketStore(store_uri(port, prefix(tmp_path)))  # as of another process
        assert other.local(record) == path
        assert len(faults.seen) == 1
        assert other.local("a/x.parquet") == path  # must ask what it is
        assert len(faults.seen) == 2


def opened(found: Path | BinaryIO) -> BinaryIO:
    return open(found, "rb") if isinstance(found, Path) else found


def test_a_file_that_is_read_once_is_whole_and_not_kept(store: Store) -> None:
    record = store.put("a/x.parquet", LARGE)
    for asked in (record, "a/x.parquet"):
        with opened(open_store(store.name).once(asked)) as file:
            assert file.read() == LARGE
            assert os.fstat(file.fileno()).st_size == len(LARGE)
    if isinstance(store, BucketStore):
        assert not [path for path in store._cache.folder.iterdir() if path.stat().st_size > 100]


def test_a_file_that_is_kept_is_not_fetched_to_be_read_once(
    bucket: BucketStore, s3: int, tmp_path: Path
) -> None:
    record = bucket.put("x", b"1" * 1000)
    with faulty_proxy(s3) as (port, faults):
        store = BucketStore(store_uri(port, prefix(tmp_path)))
        path = store.local(record)
        seen = len(faults.seen)
        with opened(store.once(record)) as file:
            assert file.read() == b"1" * 1000
        assert len(faults.seen) == seen
    assert path.exists()


def test_where_a_command_keeps_files_its_workers_keep_them(
    bucket: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bucket.put("x", b"1" * 1000)
    monkeypatch.setenv(CACHE, str(tmp_path / "named"))
    assert open_store(bucket.name).local(record).is_relative_to(tmp_path / "named")
    told = BucketStore(bucket.name, tmp_path / "told")
    assert told.local(record).is_relative_to(tmp_path / "told")


@pytest.mark.parametrize("damage", [b"", b"2" * 1000, b"1" * 999])
def test_a_damaged_copy_is_fetched_anew(bucket: BucketStore, damage: bytes) -> None:
    record = bucket.put("x", b"1" * 1000)
    path = bucket.local(record)
    path.write_bytes(damage)
    os.utime(path, ns=(0, 0))
    assert open_store(bucket.name).local(record).read_bytes() == b"1" * 1000


def test_what_is_not_what_it_should_be_is_not_given(bucket: BucketStore) -> None:
    record = bucket.put("x", b"1" * 1000)
    wrong = FileRecord("x", hashlib.sha256(b"2" * 1000).hexdigest(), 1000)
    with pytest.raises(ObjectStoreError, match=rf"x: sha256: expected {wrong.sha256}, found"):
        bucket.local(wrong)
    with pytest.raises(ObjectStoreError, match=rf"x: sha256: expected {wrong.sha256}, found"):
        bucket.once(wrong)
    with pytest.raises(ObjectStoreError, match=r"x: no sha256: '../../../x'"):
        bucket.local(FileRecord("x", "../../../x", 1000))
    obstore.put(bucket._requests._store, "other", b"1")
    with pytest.raises(ObjectStoreError, match="other: was not written by lookalike"):
        bucket.local("other")
    assert bucket.local(record).read_bytes() == b"1" * 1000
    assert len(list(bucket._cache.folder.glob("[!.]*"))) == 1


def test_what_is_removed_is_not_kept(bucket: BucketStore) -> None:
    record = bucket.put("x", b"1" * 1000)
    path = bucket.local("x")
    with open(path, "rb") as file:
        bucket.delete(["x"])
        assert file.read() == b"1" * 1000
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        bucket.local(record)


SIZE = 100_000


def contents(number: int) -> bytes:
    return number.to_bytes(2, "big") * (SIZE // 2)


RECORDS = [record_of(f"{number}.x", [contents(number)]) for number in range(100)]


def read_many(folder: Path, limit: int, seed: int, count: int) -> int:
    """The most bytes that lay there."""
    cache, most = FileCache(folder, limit), 0
    for number in random.Random(seed).choices(range(len(RECORDS)), k=count):
        path = cache.get(RECORDS[number], lambda number=number: iter([contents(number)]))
        with open(path, "rb") as file:
            assert file.read() == contents(number)
        with durable.locked(cache.folder):
            most = max(most, sum(size for _, size, _ in cache._files()))
    return most


def test_the_bound_is_kept_by_all_processes(tmp_path: Path) -> None:
    limit = 40 * SIZE  # four times the 8 that are held, and some
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        given = [(tmp_path, limit, seed, 300) for seed in range(4)]
        most = pool.starmap(read_many, given)
    assert 20 * SIZE < max(most) <= limit
    assert not list((tmp_path / "files").glob(".*.part"))


def test_nobody_makes_room_with_what_was_fetched_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def crowded(old: Path, new: Path) -> None:
        replace(old, new)
        FileCache(tmp_path)._remove_oldest(1 << 40)  # as another process does

    monkeypatch.setattr(os, "replace", crowded)
    path = FileCache(tmp_path).get(RECORDS[0], lambda: iter([contents(0)]))
    assert path.read_bytes() == contents(0)


def test_those_used_longest_ago_go_first(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, 20 * SIZE)

    def get(number: int) -> Path:
        return cache.get(RECORDS[number], lambda: iter([contents(number)]))

    first = [get(number) for number in range(20)]
    assert get(0) == first[0]
    for number in range(20, 25):
        get(number)
    assert [path.exists() for path in first[:6]] == [True, *[False] * 5]
    assert all(path.exists() for path in first[8:])


def test_the_bound_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "1 GB")
    with pytest.raises(ValueError, match=r"LOOKALIKE_CACHE_BYTES must be .*, got '1 GB'"):
        FileCache(tmp_path)
    monkeypatch.setenv(LIMIT, str(30 * SIZE))
    assert read_many(tmp_path, 0, 0, 100) <= 30 * SIZE


FULL = """
import sys
from pathlib import Path
from typing import BinaryIO
from tests.test_store import read_many
read_many(Path(sys.argv[1]), 1 << 40, 0, 60)
"""


@pytest.mark.skipif(compiler() is None, reason="needs a C compiler")
def test_a_full_disk_makes_room(tmp_path: Path) -> None:
    """From the 20th write on there is no room, but what is removed makes some."""
    fault = armed(tmp_path, Fault("write", "tight", 20))
    found = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        env=environment(LOOKALIKE_FAULT=fault),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    # 45 different ones are asked for; what is removed makes room for one, and for its size.
    assert 10 < len(list((tmp_path / "files").glob("[!.]*"))) < 40


@pytest.mark.skipif(compiler() is None, reason="needs a C compiler")
def test_a_disk_that_stays_full_is_told_of(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        env=environment(LOOKALIKE_FAULT=armed(tmp_path, Fault("write", "full", 3))),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert StoreWriteError.__name__ in found.stderr
    assert "make room, or name another place with --cache" in found.stderr


# --- vectors ----------------------------------------------------------------------------------


def test_rows_are_read_where_they_lie(store: Store, s3: int, tmp_path: Path) -> None:
    rows = 5000
    vectors = np.random.default_rng(0).normal(size=(rows, 64)).astype(np.float32)
    with shards.open_shard(store, "a.parquet", shard_format.schema(64, pa.schema([]), {}), 3) as (
        writer,
        _,
    ):
        for number, vector in enumerate(vectors):
            found = {"uri": f"/{number}", "content_sha256": bytes(32), "format": "png"}
            writer.append({**found, "width": 1, "height": 1, "bytes": 1}, vector)
    ids = np.array([4999, 0, 7, 4999, 2048, 2047], dtype=np.int64) + (3 << 32)
    reader = VectorReader(store, {3: "a.parquet"})
    np.testing.assert_array_equal(reader.vectors(ids), vectors[ids - (3 << 32)])
    assert [row["uri"] for row in reader.described(ids)] == [f"/{i & 0xFFFF}" for i in ids.tolist()]
    if isinstance(store, BucketStore):
        with faulty_proxy(s3) as (port, faults):
            through = BucketStore(store_uri(port, prefix(tmp_path)))
            VectorReader(through, {3: "a.parquet"}).vectors(ids[:3])
            assert len(faults.seen) <= 8  # size, footer, and two parts
            assert not through._cache.folder.exists()
    with pytest.raises(IndexError, match=r"a\.parquet: no row 5000, it has 5000"):
        reader.vectors(np.array([(3 << 32) + 5000]))
