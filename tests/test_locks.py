"""One run at a time: on a local store by the system's lock, on object storage by a lease."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path

import pytest

from lookalike.errors import RequestError
from lookalike.pipelines.stores import StoreHandle
from lookalike.store import locks, retention, snapshot
from lookalike.store.locks import Lease, StoreBusyError, hold
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store, open_store
from tests.s3_server import faulty_proxy, store_uri

ROOT = Path(__file__).resolve().parent.parent

HOLDER = """
import sys, time
from pathlib import Path
from lookalike.store.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

LEASE_HOLDER = """
import sys, time
from pathlib import Path
from lookalike.store.locks import Lease
from lookalike.store.bucket import BucketStore
with Lease(BucketStore(sys.argv[1]), Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the store."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


# --- local stores -----------------------------------------------------------------------------


def test_a_second_process_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    with holder(HOLDER, str(tmp_path)) as process:
        for _ in range(2):  # the refused one leaves the holder's name in place
            message = rf"{tmp_path}: process {process.pid} on .* \(since 20.*\) is running"
            with pytest.raises(StoreBusyError, match=message), hold(tmp_path):
                pytest.fail("the store was held twice")
        with hold(tmp_path / "another store"):
            pass
        process.kill()  # no farewell: the system lets go
        process.wait()
        deadline = time.monotonic() + 10
        while True:
            try:
                with hold(tmp_path):
                    break
            except StoreBusyError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_a_store_is_free_again_after_a_run_that_failed(tmp_path: Path) -> None:
    def fail() -> None:
        with hold(tmp_path):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    # and the next one is named alone
    message = rf"^{tmp_path}: process {os.getpid()} on \S+ \(since \S+\) is running on this store"
    with hold(tmp_path), pytest.raises(StoreBusyError, match=message), hold(tmp_path):
        pytest.fail("the store was held twice")


# --- stores on object storage -----------------------------------------------------------------


def lease(uri: str, mirror: Path) -> Lease:
    from lookalike.store.bucket import BucketStore

    mirror.mkdir(exist_ok=True)
    return Lease(BucketStore(uri), mirror)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "RENEW_S", 0.5)
    monkeypatch.setattr(locks, "EXPIRES_S", 3.0)


def test_a_second_machine_is_refused_and_told_of_the_first(s3: int, tmp_path: Path) -> None:
    uri = store_uri(s3, tmp_path.name)
    with lease(uri, tmp_path / "one") as held:
        message = rf"process {os.getpid()} on \S+ \(since 20\S+\) is running on this store \(last"
        for _ in range(2):
            with pytest.raises(StoreBusyError, match=message), lease(uri, tmp_path / "other"):
                pytest.fail("the store was held twice")
        held.confirm()
    with lease(uri, tmp_path / "other") as now:
        now.confirm()
        with pytest.raises(StoreBusyError), lease(uri, tmp_path / "one"):
            pytest.fail("the store was held twice")


def test_only_one_of_many_that_come_at_once_gets_a_store(s3: int, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    uri = store_uri(s3, tmp_path.name)
    leases = [lease(uri, tmp_path / f"{number}") for number in range(8)]

    def take(one: Lease) -> bool:
        try:
            one.__enter__()
        except StoreBusyError:
            return False
        return True

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(take, leases))
        assert sum(taken) == 1
        leases[taken.index(True)].__exit__(None, None, None)
        leases = [lease(uri, tmp_path / f"{number}") for number in range(8)]


@pytest.mark.usefixtures("hasty")
def test_a_dead_holder_is_succeeded_once_it_has_been_silent(s3: int, tmp_path: Path) -> None:
    uri = store_uri(s3, tmp_path.name)
    (tmp_path / "dead").mkdir()
    with holder(LEASE_HOLDER, uri, str(tmp_path / "dead")) as process:
        process.kill()
        process.wait()
    began = time.monotonic()
    message = rf"process {process.pid} on .*until it has been silent for 3 s$"
    with pytest.raises(StoreBusyError, match=message), lease(uri, tmp_path / "next"):
        pytest.fail("it may be alive")
    while True:
        try:
            with lease(uri, tmp_path / "next"):
                break
        except StoreBusyError:
            time.sleep(0.2)
    assert 1 < time.monotonic() - began < 60  # the server's clock shows whole seconds


def test_a_dead_holder_is_succeeded_at_once_on_its_own_machine(s3: int, tmp_path: Path) -> None:
    """Whoever holds the notes there knows that those who held them before are dead."""
    uri = store_uri(s3, tmp_path.name)
    (tmp_path / "one").mkdir()
    with holder(LEASE_HOLDER, uri, str(tmp_path / "one")) as process:
        process.kill()
        process.wait()
    with pytest.raises(StoreBusyError), lease(uri, tmp_path / "other"):
        pytest.fail("another machine cannot know")
    with lease(uri, tmp_path / "one"):
        pass


@pytest.mark.usefixtures("hasty")
def test_a_holder_that_works_is_not_succeeded_however_long_it_takes(
    s3: int, tmp_path: Path
) -> None:
    uri = store_uri(s3, tmp_path.name)
    with lease(uri, tmp_path / "one") as held:
        until = time.monotonic() + locks.EXPIRES_S * 2
        while time.monotonic() < until:
            with pytest.raises(StoreBusyError), lease(uri, tmp_path / "other"):
                pytest.fail("the store was held twice")
            time.sleep(0.3)
        held.confirm()


@pytest.mark.usefixtures("hasty")
def test_a_holder_that_was_frozen_learns_that_it_was_succeeded(s3: int, tmp_path: Path) -> None:
    with faulty_proxy(s3) as (port, faults):
        with lease(store_uri(port, tmp_path.name), tmp_path / "one") as held:
            faults.plan("cut before", 0, lasting=True)  # its renewals reach nobody
            deadline = time.monotonic() + 20
            while True:
                try:
                    with lease(store_uri(s3, tmp_path.name), tmp_path / "other") as other:
                        faults.plan()
                        message = r"silent for \d+ s, and the store was taken over: by process"
                        with pytest.raises(StoreBusyError, match=message):
                            held.confirm()
                        other.confirm()
                        break
                except StoreBusyError:
                    assert time.monotonic() < deadline
                    time.sleep(0.3)
        # what it gave back was not its own any more
        with lease(store_uri(s3, tmp_path.name), tmp_path / "third") as third:
            third.confirm()


@pytest.mark.parametrize("hours", [24, -24])
@pytest.mark.usefixtures("hasty")
def test_clocks_of_machines_do_not_matter(
    s3: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A machine a day ahead takes over nothing that is held; one a day behind waits no longer."""

    class Skewed(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Skewed:  # type: ignore[override]
            there = datetime.now(tz) + timedelta(hours=hours)
            return cls.fromtimestamp(there.timestamp(), tz)

    uri = store_uri(s3, f"{tmp_path.name}{hours}")
    (tmp_path / "one").mkdir()
    with holder(LEASE_HOLDER, uri, str(tmp_path / "one")) as process:
        monkeypatch.setattr(locks, "datetime", Skewed)
        assert f"(since {Skewed.now(timezone.utc):%Y-%m-%d}" in locks.holder()
        message = rf"process {process.pid} on .* \(last heard of [0-4] s ago\)"
        with pytest.raises(StoreBusyError, match=message), lease(uri, tmp_path / "other"):
            pytest.fail("the store was held twice")
        process.kill()
        process.wait()
    time.sleep(locks.EXPIRES_S + 1)
    with lease(uri, tmp_path / "other") as held:
        held.confirm()


# --- what a frozen run does when it has been succeeded ------------------------------------------


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every holder is silent, and soon succeeded."""
    monkeypatch.setattr(locks, "RENEW_S", 3600.0)
    monkeypatch.setattr(locks, "EXPIRES_S", 1.0)


@contextmanager
def succeeded(place: StoreHandle) -> Iterator[None]:
    """Hold a store once whoever holds it has been silent for long enough."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with place.writing():
                yield
                return
        except StoreBusyError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def snapshot_of(store: Store, name: str, day: int = 1) -> Manifest:
    line = store.put(f"embeddings/of-{name}", name.encode()).line("model")
    counts = {"vectors": 0, "listed": 0, "removed": 0}
    return {"name": name, "created": f"2026-01-{day:02}", "files": [line], "counts": counts}


@pytest.mark.usefixtures("frozen")
def test_a_request_to_publish_that_comes_late_publishes_nothing_that_gc_removed(
    s3: int, tmp_path: Path
) -> None:
    """Whoever sent it was silent since the store was last seen to be its own."""
    uri = store_uri(s3, tmp_path.name)
    one, other = (StoreHandle(open_store(uri, tmp_path / name)) for name in ("one", "other"))
    with one.writing():
        one.publish(snapshot_of(one.store, "a", day=2))  # by a clock that is ahead
    with one.writing():
        before = one.store.read(snapshot.CURRENT)
        snapshot.write_manifest(one.store, snapshot_of(one.store, "b"))
        with succeeded(other):
            retention.gc(other.store, 1, 0, 0)
            assert snapshot.names(other.store) == ["a"]
        with pytest.raises(StoreBusyError, match="a was published by another run meanwhile"):
            snapshot.point(one.store, "b", before)
        other.store.put("snapshots/b/report.html", b"of the one that goes on with it")
        with pytest.raises(
            StoreBusyError, match="the store was taken over: by another that has ended"
        ):
            snapshot.replace(one.store, "snapshots/b/report.html", b"late")
    assert snapshot.current(one.store) == "a"
    assert not [*snapshot.check_sizes(other.store, snapshot.read_manifest(other.store)["files"])]
    with one.writing():  # it was given back: nothing is on its way
        there = one.store.read(snapshot.CURRENT)
        one.publish(snapshot_of(one.store, "c"))
    assert there is not None
    assert (there.data, one.store.read_bytes(snapshot.CURRENT)) == (b"a\n\n", b"c\n")


@pytest.mark.usefixtures("frozen")
def test_gc_removes_nothing_when_it_has_been_succeeded(s3: int, tmp_path: Path) -> None:
    uri = store_uri(s3, tmp_path.name)
    one, other = (StoreHandle(open_store(uri, tmp_path / name)) for name in ("one", "other"))
    for day, name in enumerate("ab", 1):
        with one.writing():
            one.publish(snapshot_of(one.store, name, day))
    one.store.put("models/x/model", b"nobody's, when gc began")
    before = {entry.path for entry in one.store.entries()}
    with one.writing():
        with succeeded(other):
            pass
        with pytest.raises(StoreBusyError, match="the store was taken over: by another"):
            retention.gc(one.store, 1, 0, 0)
    assert {entry.path for entry in one.store.entries()} == before
    with other.writing():
        retention.gc(other.store, 1, 0, 0)
    assert snapshot.names(other.store) == ["b"]
    assert not other.store.has("models/x/model")


def test_storage_that_heeds_no_conditions_holds_no_store(s3: int, tmp_path: Path) -> None:
    with faulty_proxy(s3) as (port, faults):
        store = open_store(store_uri(port, "heedless"), tmp_path)
        with store.hold():
            pass
        faults.heedless = True
        with (
            pytest.raises(RequestError, match=r"^s3://bucket/heedless: .* conditions of puts"),
            store.hold(),
        ):
            pytest.fail("it is held")
