"""Going back and removing, over small stores whose files are real and whose times are set."""

from __future__ import annotations

import json
import os
import threading
import time
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lookalike
from lookalike.errors import RequestError
from lookalike.pipelines.cli import main
from lookalike.search.searcher import Searcher
from lookalike.store import retention, snapshot
from lookalike.store.durable import write_bytes, write_json
from lookalike.store.folder import walk
from lookalike.store.locks import hold
from lookalike.store.objects import open_store
from tests import publishing
from tests.file_records import file_record
from tests.vector_stores import clustered, make_store

DAY = 86_400
NOW = 1_800_000_000.0


def published(store, name, at, files, parent=None):
    """A snapshot of some files, published at a time; what the files hold is their name."""
    lines = []
    for path in [*files, f"snapshots/{name}/ledger/00000.parquet"]:
        record = write_bytes(store, path, path.encode())
        lines.append({**record.to_json(), "kind": "other"})
    created = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(at))
    publishing.publish(
        open_store(store),
        {"name": name, "created": created, "parent": parent, "counts": {}, "files": lines},
    )
    set_time(store, snapshot.manifest_path(name), at)
    set_time(store, "CURRENT", at)


def set_time(store, path, at):
    os.utime(store / path, (at, at))


def files(store):
    return set(walk(store))


# --- rollback ---------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path):
    published(tmp_path, "a", NOW - 2 * DAY, ["embeddings/1"])
    published(tmp_path, "b", NOW - DAY, ["embeddings/1", "embeddings/2"], "a")
    return tmp_path


def test_going_back_publishes_the_parent_and_leaves_the_rest(two):
    before = files(two)
    assert retention.rollback(open_store(two))["name"] == "a"
    assert snapshot.current(open_store(two)) == "a"
    assert files(two) == before
    assert retention.rollback(open_store(two), "b")["name"] == "b"  # and forth
    assert list(snapshot.check_manifest(snapshot.read_manifest(open_store(two)))) == []


def test_going_back_to_what_is_not_whole_changes_nothing(two):
    (two / "embeddings/1").write_bytes(b"EMBEDDINGS/1")  # of the same size
    with pytest.raises(RequestError, match=r"embeddings/1: sha256: expected .*snapshots: a, b"):
        retention.rollback(open_store(two), check=True)
    (two / "embeddings/1").write_bytes(b"short")
    with pytest.raises(
        RequestError, match=r"cannot go back to a, 1 of its files .*embeddings/1: si"
    ):
        retention.rollback(open_store(two))
    assert snapshot.current(open_store(two)) == "b"


def test_what_cannot_be_gone_back_to_is_said(two):
    with pytest.raises(RequestError, match="no snapshot 'c'; finished snapshots: a, b"):
        retention.rollback(open_store(two), "c")
    with pytest.raises(RequestError, match="b is the published snapshot already"):
        retention.rollback(open_store(two), "b")
    retention.rollback(open_store(two))
    with pytest.raises(RequestError, match="a is its first snapshot, there is none to go back to"):
        retention.rollback(open_store(two))


def test_from_a_damaged_manifest_one_goes_back_to_the_one_before(two):
    (two / snapshot.manifest_path("b")).write_text("{")
    assert retention.rollback(open_store(two))["name"] == "a"
    lookup = two / "snapshots" / "a" / "manifest.json"
    lookup.write_text(lookup.read_text().replace("embeddings/1", "embeddings/2"))
    (two / snapshot.CURRENT).write_text("b")
    with pytest.raises(RequestError, match=r"1 of its files are not as they were: .*manifest"):
        retention.rollback(open_store(two))


def test_file_numbers_of_a_snapshot_left_behind_are_not_given_again(two):
    for name, number in (("a", 7), ("b", 9)):
        path = two / snapshot.manifest_path(name)
        path.write_text(json.dumps({**json.loads(path.read_text()), "next_file_no": number}))
    (two / "CURRENT").write_text("a\n")
    assert retention.next_file_no(open_store(two)) == 9


# --- which snapshots stay ---------------------------------------------------------------------


def kept(store, *args, **options):
    found = retention.gc(open_store(store), *args, now=NOW, dry_run=True, **options)
    return {one.name: one.why for one in found.kept}


@pytest.fixture
def nights(tmp_path):
    """Ten nights; night 9 was half an hour ago."""
    for night in range(10):
        at = NOW - 1800 - (9 - night) * DAY
        parent = f"n{night - 1}" if night else None
        published(tmp_path, f"n{night}", at, [f"embeddings/{night}", "embeddings/all"], parent)
    return tmp_path


def test_the_last_and_those_of_the_last_days_stay(nights):
    ends = {"n9": "published", "n8": "last"}
    assert kept(nights, 2, 0, 0) == ends
    assert kept(nights, 1, 0, 0) == {"n9": "published"}
    assert kept(nights, 2, 3, 0) == {**ends, "n7": "days"}
    assert kept(nights, 2, 3.5, 0) == {**ends, "n7": "days", "n6": "days"}
    assert len(kept(nights, 100, 0, 0)) == 10
    assert len(kept(nights, 1, 100, 0)) == 10


def test_a_snapshot_that_was_current_until_a_moment_ago_stays(nights):
    assert kept(nights, 1, 0, 1700) == {"n9": "published"}
    assert kept(nights, 1, 0, 1900) == {"n9": "published", "n8": "grace"}
    assert kept(nights, 1, 0, DAY + 1900) == {"n9": "published", "n8": "grace", "n7": "grace"}


def test_after_going_back_the_newer_have_their_grace_from_then(nights):
    retention.rollback(open_store(nights), "n4")
    for path in ("CURRENT", snapshot.manifest_path("n9")):
        set_time(nights, path, NOW - 600)
    assert kept(nights, 1, 0, 500) == {"n4": "published", "n9": "last"}
    newer = {"n5": "grace", "n6": "grace", "n7": "grace", "n8": "grace"}
    assert kept(nights, 1, 0, 700) == {"n4": "published", **newer, "n9": "last"}
    # and what is left by going forth again, though its successor is days old
    retention.rollback(open_store(nights), "n9")
    for path in ("CURRENT", snapshot.manifest_path("n4")):
        set_time(nights, path, NOW - 300)
    left = kept(nights, 1, 0, 400)
    assert left == {"n9": "published", "n4": "grace", "n3": "grace"}  # n3 for good measure


@given(
    times=st.lists(st.integers(0, 100), min_size=1, max_size=8, unique=True).map(sorted),
    last=st.integers(1, 9),
    days=st.integers(0, 100),
    grace=st.integers(0, 100),
)
def test_the_rule_is_what_it_says(times, last, days, grace, tmp_path_factory):
    """Times in hours; each snapshot is the parent of the next, and the last is published."""
    store = tmp_path_factory.mktemp("rule")
    for at, hour in enumerate(times):
        parent = f"s{at - 1}" if at else None
        published(store, f"s{at}", NOW - (100 - hour) * 3600, [], parent)
    found = retention.gc(open_store(store), last, days / 24, grace * 3600, now=NOW)
    expected = {
        f"s{at}"
        for at, hour in enumerate(times)
        if at >= len(times) - last or hour >= 100 - days or times[at + 1] >= 100 - grace
    }
    assert {one.name for one in found.kept} == expected == set(snapshot.names(open_store(store)))
    assert {path.parent.name for path in store.glob("snapshots/*/ledger")} == expected


def test_numbers_that_make_no_sense_are_refused(two):
    for arguments, message in (
        ((0, 1, 1), "--keep-last must be at least 1, got 0"),
        ((1, -1, 1), "--keep-days must be at least 0, got -1"),
        ((1, 1, float("nan")), "--grace must be at least 0, got nan"),
    ):
        with pytest.raises(RequestError, match=message):
            retention.gc(open_store(two), *arguments)


# --- which files stay -------------------------------------------------------------------------


def test_files_go_with_the_last_snapshot_that_lists_them(nights):
    before = files(nights)
    found = retention.gc(open_store(nights), 3, 0, 0, now=NOW, dry_run=True)
    assert files(nights) == before
    again = retention.gc(open_store(nights), 3, 0, 0, now=NOW)
    assert again.swept.paths == found.swept.paths
    assert again.swept.snapshots == [f"n{night}" for night in range(7)]
    assert files(nights) == before - set(again.swept.paths)
    assert files(nights) == {"CURRENT", "embeddings/all", "runs/lock"} | {
        path
        for night in (7, 8, 9)
        for path in (
            f"embeddings/{night}",
            f"snapshots/n{night}/manifest.json",
            f"snapshots/n{night}/ledger/00000.parquet",
        )
    }
    assert again.swept.files == 3 * 7
    assert not (nights / "snapshots" / "n0").exists()
    nothing = retention.gc(open_store(nights), 3, 0, 0, now=NOW).swept
    assert (nothing.snapshots, nothing.files, nothing.bytes) == ([], 0, 0)


def test_a_manifest_goes_before_the_files_that_it_lists(nights):
    """However far it came when it was stopped, what can be read can be read whole."""
    paths = retention.gc(open_store(nights), 3, 0, 0, now=NOW, dry_run=True).swept.paths
    for path in paths:
        (nights / path).unlink()
        for name in snapshot.names(open_store(nights)):
            lines = snapshot.read_manifest(open_store(nights), name)["files"]
            assert all((nights / line["path"]).is_file() for line in lines), (path, name)
    rest = retention.gc(open_store(nights), 3, 0, 0, now=NOW).swept
    assert rest.files == 0
    assert len(list((nights / "snapshots").iterdir())) == 3


@pytest.fixture
def unfinished(two):
    """Two unfinished runs, one of them old, and what deleted ones left."""
    for run, age in (("aaaa000011112222", 1), ("bbbb000011112222", 20)):
        write_json(two, f"runs/{run}/plan.json", {"snapshot": f"of-{run}", "begun": "b"})
        write_bytes(two, f"runs/{run}/b/units/000000.parquet", b"names")
        write_bytes(two, f"embeddings/00000009-{run}.parquet", b"vectors")
        write_bytes(two, f"index/{run}-0123456789ab-00000.lists", b"codes")
        write_bytes(two, f"snapshots/of-{run}/ledger/00000.parquet", b"rows")
        for path in [*walk(two, f"runs/{run}")]:
            set_time(two, path, NOW - age * DAY)
        for folder in (f"runs/{run}/b/units", f"runs/{run}/b", f"runs/{run}"):
            set_time(two, folder, NOW - age * DAY)
        (two / f"runs/{run}/b/units/.000001.parquet.0f.tmp").write_bytes(b"half")
        set_time(two, f"runs/{run}/b/units/.000001.parquet.0f.tmp", NOW - age * DAY)
        set_time(two, f"runs/{run}/b/units", NOW - age * DAY)
    write_bytes(two, "models/cafe/model.pb", b"a model")
    write_bytes(two, "runs/lock", b"process 1")
    for path in ("embeddings/.000.parquet.0f.tmp", ".CURRENT.0f.tmp"):
        (two / path).write_bytes(b"half")
    return two


def test_what_an_unfinished_run_may_need_stays_as_long_as_snapshots_do(unfinished):
    before = files(unfinished)
    found = retention.gc(open_store(unfinished), 2, 7, 0, now=NOW)
    young, old = "aaaa000011112222", "bbbb000011112222"
    assert found.runs == [young]
    gone = before - files(unfinished)
    assert gone == {path for path in before if old in path or path.endswith(".tmp")}
    assert not (unfinished / "runs" / old).exists()
    assert "models/cafe/model.pb" in files(unfinished)

    later = retention.gc(open_store(unfinished), 2, 7, 0, now=NOW + 7 * DAY)
    assert later.runs == []
    left = files(unfinished)
    assert not [path for path in left if young in path or path.startswith("models/")]
    assert "runs/lock" in left


def test_what_a_run_left_that_was_killed_when_it_had_published_goes(two):
    """Its note says that it is to be continued, but there is nothing left to do."""
    published = snapshot.read_manifest(open_store(two))
    for name, pending in (("p", published["name"]), ("q", published["parent"]), ("r", "other")):
        write_json(two, f"runs/{name}/plan.json", {"snapshot": pending, "begun": "b"})
        write_json(two, f"runs/{name}/b/embedded/000000.json", {})
        for path in [*walk(two, f"runs/{name}")]:
            set_time(two, path, NOW)
    assert published["parent"]
    assert retention.gc(open_store(two), 2, 7, 0, now=NOW).runs == ["r"]
    assert sorted(path for path in files(two) if path.startswith("runs/")) == [
        "runs/lock",
        "runs/r/b/embedded/000000.json",
        "runs/r/plan.json",
    ]


def test_what_a_link_points_to_is_not_touched(two, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    published(outside, "x", NOW, ["embeddings/far"])
    (two / "snapshots" / "linked").symlink_to(outside / "snapshots" / "x")
    (two / "embeddings" / "folder").symlink_to(outside / "embeddings")
    (two / "embeddings" / "file").symlink_to(outside / "embeddings" / "far")
    (two / "index").symlink_to(outside / "embeddings")
    before = files(outside)
    assert {"embeddings/far", "snapshots/x/manifest.json"} <= before
    with pytest.raises(RequestError, match="a link leads out of the store"):
        retention.gc(open_store(two), 1, 0, 0, now=NOW)
    (two / "snapshots" / "linked").unlink()
    (two / "snapshots" / "linked").symlink_to(outside / "snapshots")
    retention.gc(open_store(two), 1, 0, 0, now=NOW)
    assert files(outside) == before
    assert files(two) & {"embeddings/folder", "embeddings/file", "snapshots/linked"} == set()


def test_nothing_goes_while_a_manifest_cannot_be_trusted(two):
    before = files(two)
    path = two / snapshot.manifest_path("a")
    good = path.read_text()
    for bad in (
        "{",
        good.replace("embeddings/1", "embeddings/3"),
        good.replace("embeddings/", "/"),
    ):
        path.write_text(bad)
        with pytest.raises(RequestError, match="manifest"):
            retention.gc(open_store(two), 2, 0, 0, now=NOW)
        assert files(two) == before


# --- the commands -----------------------------------------------------------------------------


def test_the_commands_say_what_they_did(tmp_path, capfd):
    for night in range(10):
        at = time.time() - 7200 - (9 - night) * DAY
        parent = f"n{night - 1}" if night else None
        published(tmp_path, f"n{night}", at, [f"embeddings/{night}"], parent)
    store = ["--store", str(tmp_path)]
    assert main(["rollback", *store]) == 0
    assert capfd.readouterr().out.startswith("published n8 (created ")
    assert main(["rollback", *store, "--snapshot", "n9", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {"snapshot": "n9", "before": "n8", "counts": {}}
    flags = ["gc", *store, "--keep-last", "2", "--keep-days", "4", "--grace", "0"]
    assert main([*flags, "--dry-run", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [one["name"] for one in found["kept"]] == ["n6", "n7", "n8", "n9"]
    assert (found["dry_run"], found["files"], len(found["snapshots"])) == (True, 18, 6)
    assert main(flags) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "kept 4 snapshots: n6 (days), n7 (days), n8 (last), n9 (published)"
    assert lines[1].startswith("removed 6 snapshots, 18 files, ")


def test_the_commands_refuse_what_is_no_store_or_is_held(nights, tmp_path_factory, capfd):
    empty = tmp_path_factory.mktemp("empty")
    for command in ("gc", "rollback"):
        assert main([command, "--store", str(empty)]) == 2
        assert "nothing is published in it" in capfd.readouterr().err
        assert list(empty.iterdir()) == []
        with hold(nights):
            assert main([command, "--store", str(nights)]) == 1
        assert "is running on this store" in capfd.readouterr().err
    assert main(["rollback", "--store", str(nights), "--snapshot", "n77"]) == 2


# --- readers ----------------------------------------------------------------------------------


def test_readers_see_one_snapshot_whole_whatever_is_published_and_removed(tmp_path):
    """Each snapshot holds other vectors, so that an answer shows which snapshot gave it."""
    store, queries, expected = tmp_path / "store", clustered(4, 8, seed=99), {}

    def publish(number):
        name = f"night-{number:02d}"
        expected[name], manifest = make_night(store, number, name)
        publishing.publish(open_store(store), manifest)

    publish(0)
    stop, errors, seen = threading.Event(), [], []

    def read():
        try:
            while not stop.is_set():
                searcher = lookalike.open(store)
                answer = searcher.search(vectors=queries, k=3)
                seen.append(
                    (searcher.manifest["name"], [[one.uri for one in row] for row in answer])
                )
        except Exception as error:
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    removed = 0
    for number in range(1, 21):
        publish(number)
        time.sleep(0.05)
        if number % 5 == 0:
            removed += len(retention.gc(open_store(store), 1, 0, 0.5).swept.snapshots)
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert removed >= 5, "nothing was removed under the readers"
    assert len({name for name, _ in seen}) >= 10
    for name, answer in seen:
        vectors = expected[name]
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        order = np.argsort(-(queries @ units.T), axis=1, kind="stable")[:, :3]
        assert answer == [[f"/pictures/{row}.png" for row in rows] for rows in order.tolist()]


def test_a_reader_tries_again_when_its_snapshot_was_removed_while_it_opened(tmp_path, monkeypatch):
    """Between reading CURRENT and reading the files, another was published and all else removed."""
    store = tmp_path / "store"
    make_night(store, 0, "one", publish=True)
    open_files, turns = Searcher.__init__, iter(["two", "three"])

    def slow(self, *args, **options):
        following = next(turns, None)
        if following:
            make_night(store, len(following), following, publish=True)
            retention.remove_all_but(open_store(store), following, "none")
        open_files(self, *args, **options)

    monkeypatch.setattr(Searcher, "__init__", slow)
    searcher = lookalike.open(store)
    assert searcher.manifest["name"] == "three"
    assert len(searcher.search(vectors=clustered(1, 8), k=3)[0]) == 3
    with pytest.raises(RequestError, match="no snapshot 'one'"):
        lookalike.open(store, "one")


def test_a_file_that_is_missing_from_the_published_snapshot_is_an_error(tmp_path):
    store = tmp_path / "store"
    _, manifest = make_night(store, 0, "one", publish=True)
    (store / snapshot.files_of(manifest, "embedding")[0]["path"]).unlink()
    with pytest.raises(RequestError, match="missing"):
        lookalike.open(store)


def make_night(store, number, name, publish=False):
    """A snapshot of 40 vectors, whose files are its own: those of a store made elsewhere."""
    made = store.parent / f"made-{name}"
    _, vectors, manifest = make_store(made, clustered(40, 8, seed=number), files=2)
    lines = []
    for line in manifest["files"]:
        folder, _, rest = line["path"].partition("/")
        path = f"{folder}/{rest}" if folder == "templates" else f"{folder}/{name}/{rest}"
        if not (store / path).exists():  # a trained index is the same for all
            write_bytes(store, path, (made / line["path"]).read_bytes())
        lines.append({**line, **file_record(store, path).to_json()})
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = {**manifest, "name": name, "created": created, "files": lines}
    if publish:
        publishing.publish(open_store(store), manifest)
    return vectors, manifest
