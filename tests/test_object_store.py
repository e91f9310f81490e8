"""Stores on object storage, against a real S3 server, with every request failing once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lookalike.errors import RequestError
from lookalike.store import bucket as bucket_module
from lookalike.store import snapshot
from lookalike.store.bucket import BucketStore
from lookalike.store.locks import StoreBusyError
from lookalike.store.mirror import Mirror, local_copy, mirror_folder
from lookalike.store.objects import ObjectStoreError
from lookalike.store.pushing import WritableMirror
from lookalike.store.storage import FileRecord, file_record, write_bytes
from tests.s3_server import FAULTS, KEYS, STALL_S, Faults, faulty_proxy, s3_server, store_uri

pytest.importorskip("obstore")

EVERY = int(os.environ.get("LOOKALIKE_FAULTS_EVERY", "7"))  # 1: each request, with each fault
COUNTS = {"vectors": 0, "listed": 0, "removed": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with s3_server(tmp_path_factory.mktemp("s3")) as port:
            yield port


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails soon, where a night's run would wait."""
    monkeypatch.setattr(bucket_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(bucket_module, "_TRIES", 2)
    monkeypatch.setitem(bucket_module._CLIENT, "read_timeout", f"{STALL_S / 3:.0f}s")
    short = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=10)}
    monkeypatch.setitem(bucket_module._RETRY, "backoff", {**short, "base": 2})
    monkeypatch.setitem(bucket_module._RETRY, "max_retries", 1)


def unique(tmp_path: Path) -> str:
    return hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]


@pytest.fixture
def uri(server: int, tmp_path: Path) -> str:
    return store_uri(server, unique(tmp_path))


def write_snapshot(folder: Path, name: str, contents: dict[str, bytes]) -> dict[str, Any]:
    """A snapshot of some files, and its manifest; nothing is published."""
    lines = []
    for path, data in contents.items():
        if not (folder / path).exists():
            write_bytes(folder, path, data)
        record = file_record(folder, path).to_json()
        lines.append({**record, "kind": path.split("/")[0], "rows": 0})
    return {"name": name, "files": lines, "counts": COUNTS}


FIRST = {"embeddings/1.parquet": b"one" * 50, "index/1.lists": b"lists", "models/a b/é%.txt": b"m"}
SECOND = {**FIRST, "embeddings/2.parquet": b"two" * 70, "snapshots/second/report.html": b"<p>"}


def publish(mirror: WritableMirror, name: str, contents: dict[str, bytes]) -> None:
    mirror.look()
    with mirror.holding():
        mirror.publish(write_snapshot(mirror.folder, name, contents))


def contents_of(mirror: Mirror, name: str | None = None) -> dict[str, bytes]:
    manifest = mirror.pull(name=name)
    return {line["path"]: (mirror.folder / line["path"]).read_bytes() for line in manifest["files"]}


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hdfs://host/store", r"local folder or on s3, gs, az, abfss, not on hdfs"),
        ("s3://key:secret@bucket/x", r"^s3://bucket/x: a store's name holds no credentials"),
        ("s3://bucket/x?regoin=eu", r"unknown option 'regoin' after \?; known: region"),
        ("gs://bucket/x?region=eu", r"unknown option 'region' after \?; known: none"),
        ("s3:///x", r"needs a bucket"),
    ],
)
def test_names_that_cannot_be_stores(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        BucketStore(name)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_does_not_answer_or_does_not_know_us(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ObjectStoreError, match=r"^s3://bucket/x: cannot read CURRENT after 2"):
        BucketStore(store_uri(9, "x")).read("CURRENT")
    if not os.environ.get("LOOKALIKE_S3_SERVER"):
        return  # moto lets everybody in
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RequestError, match=r"cannot read CURRENT: not allowed.*credentials"):
        BucketStore(store_uri(server, "x")).read("CURRENT")


# --- the mirror -------------------------------------------------------------------------------


def test_what_one_machine_publishes_another_reads(uri: str, tmp_path: Path) -> None:
    one, other = (WritableMirror(uri, tmp_path / name) for name in ("one", "other"))
    with pytest.raises(RequestError, match="nothing is published here"):
        other.pull()
    publish(one, "first", FIRST)
    assert snapshot.current(one.folder) == "first"
    assert contents_of(other) == FIRST
    publish(other, "second", SECOND)  # another machine goes on
    assert contents_of(one) == SECOND
    assert contents_of(one, "first") == FIRST
    assert list(one.verify()) == list(snapshot.check_manifest(one.pull())) == []
    assert snapshot.names(one.folder) == ["first", "second"]


def test_readers_fetch_what_they_need_and_only_once(uri: str, tmp_path: Path, server: int) -> None:
    said: list[str] = []
    publish(WritableMirror(uri, tmp_path / "one"), "first", FIRST)
    folder, name = local_copy(uri, kinds=("index",), cache=tmp_path / "other", say=said.append)
    assert (folder, name) == (mirror_folder(uri, tmp_path / "other"), "first")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there >= {"CURRENT", "index/1.lists", "snapshots/first/manifest.json"}
    assert not any(path.startswith(("embeddings", "models")) for path in there)
    with faulty_proxy(server) as (port, faults):
        mirror = Mirror(store_uri(port, unique(tmp_path)), tmp_path / "third", said.append)
        mirror.pull()
        faults.plan()
        mirror.pull()
        assert [line.split()[0] for line in faults.seen] == ["GET"] * 3  # CURRENT, list, manifest
    assert len(said) == 2
    assert said[0].startswith("pull: 1 files, 0.0 MB, from s3://bucket/")
    assert local_copy(tmp_path, "any") == (tmp_path, "any")


def test_a_file_of_an_unpublished_run_is_not_taken_for_the_stores(uri: str, tmp_path: Path) -> None:
    """Another machine made a file of the name and size; only its contents tell."""
    publish(WritableMirror(uri, tmp_path / "one"), "first", FIRST)
    other = Mirror(uri, tmp_path / "other")
    write_bytes(other.folder, "embeddings/1.parquet", b"two" * 50)
    assert contents_of(other) == FIRST


def test_objects_that_are_not_what_the_manifest_says(uri: str, tmp_path: Path) -> None:
    one = WritableMirror(uri, tmp_path / "one")
    publish(one, "first", FIRST)
    store = BucketStore(uri)
    store.put("embeddings/1.parquet", b"eno" * 50)
    store.put("index/1.lists", b"list")
    store.delete(["models/a b/é%.txt"])
    assert {(one.path, one.problem) for one in one.verify()} == {
        ("embeddings/1.parquet", "sha256"),
        ("index/1.lists", "size"),
        ("models/a b/é%.txt", "missing"),
    }
    assert sorted(one.missing(one.pull())) == ["index/1.lists", "models/a b/é%.txt"]
    with pytest.raises(ObjectStoreError, match=r"1.parquet: sha256: expected .*, found"):
        Mirror(uri, tmp_path / "other").pull(["embeddings"])
    assert not list(mirror_folder(uri, tmp_path / "other").rglob("*1.parquet*"))


def test_a_file_that_another_snapshot_lists_is_never_changed(uri: str, tmp_path: Path) -> None:
    publish(WritableMirror(uri, tmp_path / "one"), "first", FIRST)
    other = WritableMirror(uri, tmp_path / "other")
    write_bytes(other.folder, "index/1.lists", b"other")
    with pytest.raises(ObjectStoreError, match=r"index/1.lists: another snapshot has it with"):
        publish(other, "second", {"index/1.lists": b"other"})
    assert contents_of(Mirror(uri, tmp_path / "third")) == FIRST


def test_a_store_that_names_what_is_not_there(uri: str, tmp_path: Path) -> None:
    BucketStore(uri).put("CURRENT", b"../../elsewhere\n")
    with pytest.raises(RequestError, match=r"CURRENT names '../../elsewhere', and there is no"):
        Mirror(uri, tmp_path).pull()


def test_the_second_of_two_publications_is_refused(uri: str, tmp_path: Path) -> None:
    """Even where the lock did not keep them apart."""
    one, other = (WritableMirror(uri, tmp_path / name) for name in ("one", "other"))
    publish(one, "first", FIRST)
    one.look()
    with one.holding():
        BucketStore(uri).put("CURRENT", b"another\n")  # by a program that knows of no lock
        with pytest.raises(StoreBusyError, match="another was published by another run meanwhile"):
            one.publish(write_snapshot(one.folder, "second", SECOND))
    assert snapshot.current(one.folder) == "first"
    BucketStore(uri).put("CURRENT", b"first\n")
    other.look()
    publish(one, "second", SECOND)
    message = "second was published while this run began"
    with pytest.raises(StoreBusyError, match=message), other.holding():
        pytest.fail("it would have changed what it did not look at")


def test_a_mirror_forgets_what_the_store_has_removed(uri: str, tmp_path: Path) -> None:
    one, other = (WritableMirror(uri, tmp_path / name) for name in ("one", "other"))
    publish(one, "first", FIRST)
    contents_of(other)
    publish(one, "third", {"embeddings/3.parquet": b"3"})
    write_bytes(other.folder, "embeddings/9.parquet", b"of a run that is not finished")
    one.look()
    with one.holding():
        paths = [path for path in FIRST if path != "index/1.lists"]
        one.remove([*paths, "snapshots/first/manifest.json"])
    assert other.look() == "third"
    assert snapshot.names(other.folder) == ["third"]
    with other.holding():
        pass
    for path in FIRST:
        assert not (other.folder / path).exists()
    assert (other.folder / "embeddings/9.parquet").exists()


# --- faults -----------------------------------------------------------------------------------


def night(faults: Faults, mirror: WritableMirror, name: str, contents: dict[str, bytes]) -> int:
    """Publish without faults, to count the requests that it takes."""
    faults.plan()
    publish(mirror, name, contents)
    return len(faults.seen)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_publication_may_fail(
    server: int, tmp_path: Path, kind: str, lasting: bool
) -> None:
    """The published snapshot is whole at every point, and the next run completes.

    A single fault is not even noticed: the request is made again, and a conditional put whose
    answer was lost is found to have been ours.
    """
    tried = 0
    with faulty_proxy(server) as (port, faults):

        def through(number: int, cache: str) -> WritableMirror:
            prefix = f"{unique(tmp_path)}/{number}"
            return WritableMirror(store_uri(port, prefix), tmp_path / f"{number}" / cache)

        requests = night(faults, through(-1, "a"), "first", FIRST) * 2
        step = EVERY * (3 if kind == "stall" else 1)
        for number in range(0, requests, step):
            faults.plan()
            publish(through(number, "a"), "first", FIRST)
            faults.plan(kind, number, lasting)
            mirror = through(number, "a")
            error: Exception | None = None
            try:
                publish(mirror, "second", SECOND)
            except (ObjectStoreError, StoreBusyError) as raised:
                error = raised
            tried, failed = tried + bool(faults.failed), faults.failed
            faults.plan()
            assert lasting or error is None, (number, error)
            reader = through(number, "b")
            found = contents_of(reader)
            assert found == (FIRST if snapshot.current(reader.folder) == "first" else SECOND)
            if error is None:
                assert found == SECOND
            assert list(reader.verify()) == []
            # The next run, from the same machine: the lease of the dead one is no obstacle to it.
            again = through(number, "a")
            if again.look() == "first":
                with again.holding():
                    again.publish(
                        {**write_snapshot(again.folder, "second", SECOND), "created": "later"}
                    )
            assert contents_of(through(number, "c")) == SECOND, (number, failed)
    assert tried >= requests // 2 // step


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_reader_may_fail(server: int, tmp_path: Path, kind: str) -> None:
    with faulty_proxy(server) as (port, faults):
        name = store_uri(port, unique(tmp_path))
        publish(WritableMirror(name, tmp_path / "a"), "first", FIRST)
        faults.plan()
        contents_of(Mirror(name, tmp_path / "b"))
        for number in range(len(faults.seen)):
            faults.plan(kind, number)
            assert contents_of(Mirror(name, tmp_path / f"{number}")) == FIRST, number
            assert faults.failed == 1


def test_records_are_compared_before_a_file_is_pushed_again(uri: str, tmp_path: Path) -> None:
    """What a cut-off run has pushed is not pushed again, and what differs is."""
    store, mirror = BucketStore(uri), WritableMirror(uri, tmp_path / "a")
    manifest = write_snapshot(mirror.folder, "first", FIRST)
    right, wrong = "embeddings/1.parquet", "index/1.lists"
    store.upload(mirror.folder / right, file_record(mirror.folder, right))
    store.put(wrong, b"LISTS")
    before = {one.path: one.modified for one in store.entries()}
    uploaded: list[str] = []
    original = mirror.objects.upload

    def upload(file: Path, record: FileRecord) -> None:
        uploaded.append(record.path)
        original(file, record)

    mirror.objects.upload = upload  # type: ignore[method-assign]
    mirror.look()
    with mirror.holding():
        mirror.publish(manifest)
    assert sorted(uploaded) == [wrong, "models/a b/é%.txt"]
    assert {one.path: one.modified for one in store.entries()}[right] == before[right]
    assert contents_of(Mirror(uri, tmp_path / "b")) == FIRST
