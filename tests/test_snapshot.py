from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lookalike.errors import RequestError
from lookalike.ivf.shard_files import write_head
from lookalike.store import durable, ledger, shard_format, shards, snapshot
from lookalike.store.index_header import ShardHeader
from lookalike.store.ledger import Counts, LedgerRow
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing

GOLDEN = Path(__file__).parent / "golden" / "manifest_v1.json"
Manifest = dict[str, Any]


def make_files(store: Path, name: str) -> Manifest:
    """One small file of each kind, and the manifest that lists them."""
    counts, rows = Counts(), []
    with shards.open_shard(
        open_store(store), "embeddings/0.parquet", shard_format.schema(2, pa.schema([]), {}), 0
    ) as (writer, pending):
        for i in range(3):
            row = {
                "uri": f"/{i}.jpg",
                "content_sha256": bytes([i]) * 32,
                "width": 8,
                "height": 8,
                "format": "PNG",
                "bytes": 9,
            }
            row_id = writer.append(row, np.full(2, i, np.float32))
            rows.append(LedgerRow(row["uri"], "embedded", bytes=9, id=row_id))
    rows += [LedgerRow("/x.jpg", "rejected", "corrupt"), LedgerRow("/y.json", "ignored")]
    for ledger_row in rows:
        counts.add(ledger_row)
    record, written = ledger.write_ledger(
        open_store(store), f"snapshots/{name}/ledger/0.parquet", rows
    )
    files = [
        shards.shard_record(pending.finished, 0, writer.rows),
        {**record.to_json(), "kind": "ledger", "rows": written},
    ]
    header = ShardHeader("t" * 64, "plain", 3, 0, 1, 1, 8, 0, 2)
    with durable.write_file(store, "index/0.lists") as index:
        write_head(header, np.array([3]), index.write)
    files.append({**index.finished.to_json(), "kind": "index", "rows": 3})
    for path, kind, extra in (
        ("templates/t/spec.json", "template", {}),
        ("models/m/saved_model.pb", "model", {}),
        (f"snapshots/{name}/report.html", "report", {}),
    ):
        data = hashlib.sha256(path.encode()).digest() * 9
        files.append({**durable.write_bytes(store, path, data).to_json(), "kind": kind, **extra})
    return {"name": name, "counts": {**counts.to_json(), "vectors": 3}, "files": files}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publishing.publish(open_store(tmp_path / "store"), make_files(tmp_path / "store", "first"))
    return tmp_path / "store"


def paths(store: Path) -> dict[str, str]:
    """Path of the file of each kind."""
    return {
        line["kind"]: line["path"] for line in snapshot.read_manifest(open_store(store))["files"]
    }


KINDS = ("embedding", "ledger", "index", "template", "model", "report")

# --- publishing -------------------------------------------------------------------------------


def test_a_store_that_is_whole_has_no_problems(store: Path) -> None:
    assert set(paths(store)) == set(KINDS)
    assert list(snapshot.verify(open_store(store))) == []


def test_what_was_published_is_read_back(store: Path) -> None:
    manifest = make_files(store, "second")
    publishing.publish(open_store(store), manifest)
    assert snapshot.current(open_store(store)) == "second"
    assert snapshot.names(open_store(store)) == ["first", "second"]
    found = snapshot.read_manifest(open_store(store))
    assert {key: found[key] for key in manifest} == manifest
    assert snapshot.read_manifest(open_store(store), "first")["name"] == "first"


def crash_on(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Let the naming of one file fail, as a crash right before it would."""

    def crashing(do: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def name(source: Path, target: Path) -> None:
            if str(target).endswith(ending):
                raise OSError("crash")
            do(source, target)

        return name

    for how in ("replace", "link"):
        monkeypatch.setattr(durable.os, how, crashing(getattr(os, how)))


def test_a_crash_before_current_leaves_the_old_snapshot(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_files(store, "second")
    with monkeypatch.context() as patch:
        crash_on(patch, "CURRENT")
        with pytest.raises(OSError, match="crash"):
            publishing.publish(open_store(store), manifest)
    assert snapshot.current(open_store(store)) == "first"
    assert list(snapshot.verify(open_store(store))) == []
    # the manifest was written first, whole: pointing at it is all that is left to do
    assert list(snapshot.verify(open_store(store), "second")) == []
    publishing.publish(open_store(store), manifest)
    assert snapshot.read_manifest(open_store(store))["name"] == "second"


def test_a_crash_before_the_manifest_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_files(tmp_path, "first")
    crash_on(monkeypatch, "manifest.json")
    with pytest.raises(OSError, match="crash"):
        publishing.publish(open_store(tmp_path), manifest)
    assert snapshot.current(open_store(tmp_path)) is None
    assert snapshot.names(open_store(tmp_path)) == []


# --- verify -----------------------------------------------------------------------------------


def found(store: Path) -> list[tuple[str, str]]:
    return [(problem.path, problem.problem) for problem in snapshot.verify(open_store(store))]


@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_a_file_is_named(store: Path, kind: str) -> None:
    path = store / paths(store)[kind]
    whole = path.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        assert found(store) == [(paths(store)[kind], "sha256")]
    for damaged in (whole[:-1], b"", whole + b"\0"):
        path.write_bytes(damaged)
        assert found(store) == [(paths(store)[kind], "size")]
    path.unlink()
    assert found(store) == [(paths(store)[kind], "missing")]
    path.mkdir()
    assert found(store) == [(paths(store)[kind], "missing")]
    path.rmdir()
    path.write_bytes(whole)
    assert found(store) == []


def test_a_problem_says_what_was_expected_and_found(store: Path) -> None:
    path = paths(store)["index"]
    size = (store / path).stat().st_size
    (store / path).write_bytes(b"123")
    [problem] = snapshot.verify(open_store(store))
    assert str(problem) == f"{path}: size: expected {size} bytes, found 3 bytes"


def test_every_damaged_file_is_named_at_once(store: Path) -> None:
    for path in paths(store).values():
        (store / path).unlink()
    assert found(store) == [(path, "missing") for path in paths(store).values()]


def edit(store: Path, change: Callable[[Manifest], object], digest: bool = False) -> None:
    """Change the published manifest, and with `digest` make it look untouched."""
    path = store / snapshot.manifest_path("first")
    manifest = json.loads(path.read_bytes())
    change(manifest)
    if digest:
        manifest["digest"] = snapshot._digest(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(metric="l2"),
        lambda manifest: manifest.update(search={"nprobe": 1}),
        lambda manifest: manifest["counts"]["rejected_by_reason"].update(corrupt=2),
        lambda manifest: manifest["files"].pop(),
        lambda manifest: manifest.pop("digest"),
        lambda manifest: manifest.update(digest="0" * 64),
    ],
)
def test_a_changed_manifest_is_named(store: Path, change: Callable[[Manifest], object]) -> None:
    edit(store, change)
    assert found(store) == [("snapshots/first/manifest.json", "manifest")]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda manifest: manifest["files"][0].update(rows=4), "rows of the embedding shards"),
        (lambda manifest: manifest["files"][1].update(rows=4), "rows of the ledger"),
        (lambda manifest: manifest["files"][2].update(rows=4), "entries of the index shards"),
        (lambda manifest: manifest["counts"].update(vectors=4), "entries of the index shards"),
        (lambda manifest: manifest["counts"].update(vectors=2), "rows of the embedding shards"),
        (lambda manifest: manifest["counts"].update(listed=6), "files by status"),
        (lambda manifest: manifest["counts"].update(embedded=4), "files by status"),
        (lambda manifest: manifest["counts"].pop("embedded"), "files by status"),
        (lambda manifest: manifest.pop("counts"), "rows of the ledger"),
    ],
)
def test_counts_that_contradict_each_other_are_named(
    store: Path, change: Callable[[Manifest], object], what: str
) -> None:
    edit(store, change, digest=True)
    assert ("snapshots/first/manifest.json", what) in found(store)


@pytest.mark.parametrize(("number", "kind"), [(0, "embedding"), (2, "index")])
def test_rows_that_the_file_denies_are_named(store: Path, number: int, kind: str) -> None:
    edit(store, lambda manifest: manifest["files"][number].update(rows=4), digest=True)
    assert (paths(store)[kind], "rows") in found(store)


def bury(store: Path, ids: list[int], **counts: int) -> None:
    """Make tombstones of rows."""
    line = {
        **write_tombstones(open_store(store), "snapshots/first/dead.npy", ids).to_json(),
        "kind": "tombstones",
    }

    def change(manifest: Manifest) -> None:
        manifest["files"].append(line)
        manifest["counts"].update(counts)

    edit(store, change, digest=True)


def test_dead_rows_may_stay_in_the_index(store: Path) -> None:
    bury(store, [0, 2], vectors=1)
    assert found(store) == []


@pytest.mark.parametrize(
    ("ids", "vectors", "what"),
    [
        ([1], 3, "rows of the embedding shards"),
        ([1, 3], 2, "tombstones of no row"),
        ([1, 1 << 32], 2, "tombstones of no row"),
    ],
)
def test_tombstones_that_do_not_add_up_are_named(
    store: Path, ids: list[int], vectors: int, what: str
) -> None:
    bury(store, ids, vectors=vectors)
    assert ("snapshots/first/manifest.json", what) in found(store)


# --- reading a manifest -----------------------------------------------------------------------


def test_no_store_and_nothing_published(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="absent: no such store; make one with: look"):
        snapshot.read_manifest(open_store(tmp_path / "absent"))
    with pytest.raises(RequestError, match="nothing is published here"):
        snapshot.read_manifest(open_store(tmp_path))
    assert snapshot.current(open_store(tmp_path)) is None
    (tmp_path / "CURRENT").write_text("\n")
    with pytest.raises(RequestError, match="nothing is published here"):
        snapshot.read_manifest(open_store(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["second", "..", ".", "../store/snapshots/first", "first/", "/first", "a\0b", "x" * 9999],
)
def test_unknown_names_are_refused_with_the_known_ones(store: Path, name: str) -> None:
    (store / "manifest.json").write_text("{}")  # where `..` would lead
    with pytest.raises(RequestError, match=r"no snapshot .*; finished snapshots: first"):
        snapshot.read_manifest(open_store(store), name)
    (store / "CURRENT").write_text(name)
    with pytest.raises(RequestError, match=r"no snapshot .*; finished snapshots: first"):
        snapshot.read_manifest(open_store(store))


def test_a_current_that_is_no_text(store: Path) -> None:
    (store / "CURRENT").write_bytes(b"\xff\xfe\0")
    with pytest.raises(RequestError, match="CURRENT: not readable as a snapshot's name"):
        snapshot.read_manifest(open_store(store))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "manifest.json: not readable"),
        (b'{"format": "lookalike-snapshot", "ver', "manifest.json: not readable"),
        (b"\xff\xfe{}", "manifest.json: not readable"),
        (b"[]", "not a lookalike manifest"),
        (b'{"format": "other"}', "not a lookalike manifest"),
        (b'{"format": "lookalike-snapshot"}', "format version None, this lookalike reads 1"),
        (
            b'{"format": "lookalike-snapshot", "version": 2}',
            "format version 2, this lookalike reads 1; use the version that wrote it",
        ),
        (b'{"format": "lookalike-snapshot", "version": 1}', "damaged: it names itself None"),
    ],
)
def test_manifests_that_cannot_be_read(store: Path, content: bytes, message: str) -> None:
    (store / snapshot.manifest_path("first")).write_bytes(content)
    with pytest.raises(RequestError, match=message):
        snapshot.read_manifest(open_store(store))
    with pytest.raises(RequestError, match=message):
        list(snapshot.verify(open_store(store)))


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../outside", "embeddings/../../outside", "..", "", ".", "a\0b"]
)
def test_a_manifest_may_name_no_file_outside_its_store(store: Path, path: str) -> None:
    (store.parent / "outside").write_bytes(b"secret")
    edit(store, lambda manifest: manifest["files"][3].update(path=path), digest=True)
    for read in (snapshot.read_manifest, lambda store: list(snapshot.verify(store))):
        with pytest.raises(RequestError, match=r"damaged: the file .* lies outside the store"):
            read(open_store(store))


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(name="../first"),
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.update(files={}),
        lambda manifest: manifest.update(counts=None),
        lambda manifest: manifest["files"].append("x"),
        lambda manifest: manifest["files"][0].pop("sha256"),
        lambda manifest: manifest["files"][0].pop("rows"),
        lambda manifest: manifest["files"][3].update(path=7, bytes="x"),
    ],
)
def test_manifests_of_another_shape_are_refused(
    store: Path, change: Callable[[Manifest], object]
) -> None:
    edit(store, change, digest=True)
    with pytest.raises(RequestError, match=r"manifest.json: damaged: "):
        snapshot.read_manifest(open_store(store))


# --- the format does not change ---------------------------------------------------------------


def test_manifests_of_version_1_stay_readable(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_bytes())
    target = tmp_path / snapshot.manifest_path(golden["name"])
    target.parent.mkdir(parents=True)
    shutil.copy(GOLDEN, target)
    (tmp_path / "CURRENT").write_text(golden["name"] + "\n")
    manifest = snapshot.read_manifest(open_store(tmp_path))
    assert manifest == golden
    # its files are not here, but nothing else is wrong with it: the digest and the sums hold
    problems = list(snapshot.verify(open_store(tmp_path)))
    assert [problem.path for problem in problems] == [line["path"] for line in manifest["files"]]
    assert {problem.problem for problem in problems} == {"missing"}


def test_manifests_are_still_written_as_version_1(tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_bytes())
    bare = copy.deepcopy(golden)
    for key in ("format", "version", "digest"):
        del bare[key]
    publishing.publish(open_store(tmp_path), bare)
    assert (tmp_path / snapshot.manifest_path(golden["name"])).read_bytes() == GOLDEN.read_bytes()
