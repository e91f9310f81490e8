"""Stores on object storage, against a real S3 server, with every request failing once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from lookalike.errors import RequestError
from lookalike.pipelines.stores import StoreHandle
from lookalike.store import snapshot
from lookalike.store.bucket import BucketStore
from lookalike.store.files import record_of
from lookalike.store.locks import StoreBusyError
from lookalike.store.objects import ObjectStoreError, Store, open_store
from tests import publishing
from tests.s3_server import FAULTS, faulty_proxy, store_uri

pytest.importorskip("obstore")

EVERY = int(os.environ.get("LOOKALIKE_FAULTS_EVERY", "7"))  # 1: each request, with each fault
COUNTS = {"vectors": 0, "listed": 0, "removed": 0}


def unique(tmp_path: Path) -> str:
    return hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]


@pytest.fixture
def uri(s3: int, tmp_path: Path) -> str:
    return store_uri(s3, unique(tmp_path))


def write_snapshot(store: Store, name: str, contents: dict[str, bytes]) -> dict[str, Any]:
    """A snapshot of some files, and its manifest; nothing is published."""
    lines = []
    for path, data in contents.items():
        if not store.has(path):
            store.put(path, data)
        lines.append({**record_of(path, [data]).to_json(), "kind": path.split("/")[0], "rows": 0})
    return {"name": name, "files": lines, "counts": COUNTS}


FIRST = {"embeddings/1.parquet": b"one" * 50, "index/1.lists": b"lists", "models/a b/é%.txt": b"m"}
SECOND = {**FIRST, "embeddings/2.parquet": b"two" * 70, "snapshots/second/report.html": b"<p>"}


def publish(store: Store, name: str, contents: dict[str, bytes]) -> None:
    publishing.publish(store, write_snapshot(store, name, contents))


def contents_of(store: Store, name: str | None = None) -> dict[str, bytes]:
    manifest = snapshot.read_manifest(store, name)
    return {line["path"]: store.local(line["path"]).read_bytes() for line in manifest["files"]}


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
    s3: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ObjectStoreError, match=r"^s3://bucket/x: cannot read CURRENT after 2"):
        BucketStore(store_uri(9, "x")).read("CURRENT")
    if not os.environ.get("LOOKALIKE_S3_SERVER"):
        return  # moto lets everybody in
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RequestError, match=r"cannot read CURRENT: not allowed.*credentials"):
        BucketStore(store_uri(s3, "x")).read("CURRENT")


# --- several machines -------------------------------------------------------------------------


def test_what_one_machine_publishes_another_reads(uri: str, tmp_path: Path) -> None:
    one, other = (BucketStore(uri, tmp_path / name) for name in ("one", "other"))
    with pytest.raises(RequestError, match="nothing is published here"):
        snapshot.read_manifest(other)
    publish(one, "first", FIRST)
    assert contents_of(other) == FIRST
    publish(other, "second", SECOND)  # another machine goes on
    assert contents_of(one) == SECOND
    assert contents_of(one, "first") == FIRST
    manifest = snapshot.read_manifest(one)
    assert not [*snapshot.check_sizes(one, manifest["files"])]
    assert snapshot.names(one) == ["first", "second"]


def test_objects_that_are_not_what_the_manifest_says(uri: str, tmp_path: Path) -> None:
    store = BucketStore(uri, tmp_path / "one")
    publish(store, "first", FIRST)
    manifest = snapshot.read_manifest(store)
    store.put("embeddings/1.parquet", b"eno" * 50)
    store.put("index/1.lists", b"list")
    store.delete(["models/a b/é%.txt"])
    found = [one for line in manifest["files"] for one in snapshot.check_file(store, line)]
    assert {(one.path, one.problem) for one in found} == {
        ("embeddings/1.parquet", "sha256"),
        ("index/1.lists", "size"),
        ("models/a b/é%.txt", "missing"),
    }
    other = BucketStore(uri, tmp_path / "other")
    snapshot.read_manifest(other)
    with pytest.raises(ObjectStoreError, match=r"1.parquet: sha256: expected .*, found"):
        other.local("embeddings/1.parquet")
    assert not list((tmp_path / "other").rglob("*.parquet"))


def test_a_store_that_names_what_is_not_there(uri: str) -> None:
    BucketStore(uri).put("CURRENT", b"../../elsewhere\n")
    with pytest.raises(RequestError, match=r"no snapshot '../../elsewhere'; finished snapshots:"):
        snapshot.read_manifest(BucketStore(uri))


def test_what_another_run_wrote_meanwhile_is_not_written_over(uri: str, tmp_path: Path) -> None:
    path = snapshot.manifest_path("second")
    for store in (open_store(tmp_path / "folder"), BucketStore(uri, tmp_path / "cache")):
        publish(store, "first", FIRST)
        manifest = write_snapshot(store, "second", SECOND)
        for there in (None, b"what a killed run left"):
            if there is not None:
                store.put(path, there)

            def overtaken(store: Store = store) -> None:
                open_store(store.name).put(path, b"of another run")

            store.confirm = overtaken  # type: ignore[method-assign]
            with pytest.raises(StoreBusyError, match=r"second/manifest.json: another run wrote it"):
                snapshot.write_manifest(store, manifest)
            del store.confirm
            assert store.read_bytes(path) == b"of another run"
            store.delete([path])
        store.put(path, b"what a killed run left")
        publish(store, "second", SECOND)
        assert contents_of(store) == SECOND


def test_the_second_of_two_publications_is_refused(uri: str, tmp_path: Path) -> None:
    """Even where the lock did not keep them apart."""
    store = BucketStore(uri, tmp_path / "one")
    publish(store, "first", FIRST)
    place = StoreHandle(store)
    with place.writing():
        manifest = write_snapshot(store, "second", SECOND)
        BucketStore(uri).put("CURRENT", b"another\n")  # by a program that knows of no lock
        with pytest.raises(StoreBusyError, match="another was published by another run meanwhile"):
            place.publish(manifest)
    assert snapshot.current(store) == "another"
    BucketStore(uri).put("CURRENT", b"first\n")
    first = snapshot.read_manifest(store)
    publish(BucketStore(uri, tmp_path / "other"), "second", SECOND)
    message = "another run published second meanwhile"
    with place.writing(), pytest.raises(StoreBusyError, match=message):
        place.check_parent(first)


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_publication_may_fail(
    s3: int, tmp_path: Path, kind: str, lasting: bool
) -> None:
    """The published snapshot is whole at every point, and the next run completes.

    A single fault is not even noticed: the request is made again, and a conditional put whose
    answer was lost is found to have been ours.
    """
    tried = 0
    with faulty_proxy(s3) as (port, faults):

        def through(number: int, cache: str) -> BucketStore:
            prefix = f"{unique(tmp_path)}/{number}"
            return BucketStore(store_uri(port, prefix), tmp_path / f"{number}" / cache)

        faults.plan()
        publish(through(-1, "a"), "first", FIRST)
        requests = len(faults.seen) * 2
        step = EVERY * (3 if kind == "stall" else 1)
        for number in range(0, requests, step):
            faults.plan()
            publish(through(number, "a"), "first", FIRST)
            faults.plan(kind, number, lasting)
            error: Exception | None = None
            try:
                publish(through(number, "a"), "second", SECOND)
            except (ObjectStoreError, StoreBusyError) as raised:
                error = raised
            tried, failed = tried + bool(faults.failed), faults.failed
            faults.plan()
            assert lasting or error is None, (number, error)
            reader = through(number, "b")
            found = contents_of(reader)
            assert found == (FIRST if snapshot.current(reader) == "first" else SECOND)
            if error is None:
                assert found == SECOND
            # The next run, from the same machine: the lease of the dead one is no obstacle to it.
            again = through(number, "a")
            if snapshot.current(again) == "first":
                publish(again, "second", SECOND)
            assert contents_of(through(number, "c")) == SECOND, (number, failed)
    assert tried >= requests // 2 // step


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", FAULTS)
def test_every_request_of_a_reader_may_fail(s3: int, tmp_path: Path, kind: str) -> None:
    with faulty_proxy(s3) as (port, faults):
        name = store_uri(port, unique(tmp_path))
        publish(BucketStore(name, tmp_path / "a"), "first", FIRST)
        faults.plan()
        contents_of(BucketStore(name, tmp_path / "b"))
        for number in range(len(faults.seen)):
            faults.plan(kind, number)
            assert contents_of(BucketStore(name, tmp_path / f"{number}")) == FIRST, number
            assert faults.failed == 1
