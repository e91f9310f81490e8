"""Runs on a store on object storage, from the commands: several machines, one after another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.bucket import BucketStore
from lookalike.store.objects import open_store
from tests.conftest import picture
from tests.s3_server import faulty_proxy, store_uri
from tests.vector_stores import clustered

pytest.importorskip("obstore")


@pytest.mark.slow
def test_the_machine_that_made_an_index_keeps_little_of_it(
    s3: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(4000, 256)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 256)
    names = [f"/pictures/{row}.png" for row in range(len(vectors))]
    pq.write_table(pa.table({"uri": names, "embedding": column}), tmp_path / "v.parquet")
    config = tmp_path / "config.yaml"
    config.write_text("index: {kind: ivf_pq, nlist: 16, code_bytes: 16}\nrunner: {workers: 2}\n")
    store = store_uri(s3, "kept")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert not main(
        [
            "index",
            "--config",
            str(config),
            "--embeddings",
            str(tmp_path / "v.parquet"),
            "--store",
            store,
            "--cache",
            str(tmp_path / "cache"),
        ]
    )
    manifest = snapshot.read_manifest(open_store(store))
    whole = sum(line["bytes"] for line in manifest["files"])
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < whole / 10
    workers = (tmp_path / "home").rglob("*")  # which keep what they fetch in the same place
    assert not [path for path in workers if path.is_file() and path.suffix in (".faiss", ".lists")]
    assert vectors.nbytes < whole


@pytest.mark.slow
def test_a_night_without_changes_moves_the_listing_and_little_else(
    s3: int, tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    config, folder = tmp_path / "config.yaml", pictures(40)
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    for path in folder.iterdir():  # what changed just before it was read is read again
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with faulty_proxy(s3) as (port, faults):
        store = store_uri(port, "quiet")
        asked = ["index", "--config", str(config), "--images", str(folder), "--store", store]
        assert not main([*asked, "--cache", str(tmp_path / "cache")])
        manifest = snapshot.read_manifest(open_store(store))
        whole = sum(line["bytes"] for line in manifest["files"])
        for night in range(2):
            faults.plan()
            assert not main([*asked, "--cache", str(tmp_path / "cache")])
            put = {one.split("/runs/")[1] for one in faults.seen if one.startswith("PUT")}
            others = [path for path in put if not path.endswith((".json", "lock", "clock"))]
            assert [path.split("/")[2] for path in others] == ["listing"]  # no rows of the ledger
            assert 0 < faults.received < whole / 200
            assert 0 < faults.sent < whole / 50  # of so small a store; the manifest is most of it
            read = [one for one in faults.seen if one.startswith("GET") and "/ledger/" in one]
            assert len(read) == (not night)  # this machine has it, from then on
        assert snapshot.current(open_store(store)) == manifest["name"]


def test_a_night_that_embeds_nothing_fetches_no_model(
    s3: int, tmp_path: Path, pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On machines that have none: they learn from the store what it is, and no more."""
    config, folder = tmp_path / "config.yaml", pictures(6)
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    with faulty_proxy(s3) as (port, faults):
        store = store_uri(port, "no-model")

        def night(home: str) -> tuple[dict[str, Any], list[str]]:
            """What is published then, and which files of models were read."""
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
            faults.plan()
            asked = ["index", "--config", str(config), "--images", str(folder), "--store", store]
            assert not main(asked)
            seen = [one for one in faults.seen if one.startswith("GET") and "/models/" in one]
            return snapshot.read_manifest(open_store(store)), seen

        first, _ = night("first")
        models = [line for line in first["files"] if line["kind"] == "model"]
        assert sum(line["bytes"] for line in models) > 100_000
        same, read = night("second")
        assert same["name"] == first["name"]
        assert [Path(one).suffix for one in read] == [".json"]
        (folder / "000.jpg").unlink()
        second, read = night("third")
        assert second["changes"]["removed"] == 1
        assert [Path(one).suffix for one in read] == [".json"]
        assert [line for line in second["files"] if line["kind"] == "model"] == models
        assert not main(["verify", "--store", store])


@pytest.mark.slow
def test_nights_on_object_storage(
    s3: int,
    tmp_path: Path,
    pictures: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, store = pictures(6), store_uri(s3, "store")
    config = tmp_path / "config.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )

    def run(command: str, *more: str, machine: str = "one", status: int = 0) -> Any:
        capsys.readouterr()
        where = ["--store", store, "--cache", str(tmp_path / machine)]
        assert main([command, *where, *more]) == status
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in more else out

    def index(machine: str) -> dict[str, Any]:
        asked = ["--config", str(config), "--images", str(folder), "--json"]
        found: dict[str, Any] = run("index", *asked, machine=machine)
        return found

    def neighbours(machine: str, name: str | None = None) -> dict[str, str]:
        """The nearest of every picture there is, by its own name."""
        searcher = lookalike.open(store, name, cache=tmp_path / machine)
        files = sorted(folder.glob("*.jpg"))
        found = searcher.search([str(path) for path in files], k=1)
        return {Path(rows[0].query_uri).name: Path(rows[0].uri).name for rows in found}

    first = index("one")
    assert first["new"]
    assert not index("one")["new"]
    assert not index("two")["new"]  # another machine sees that nothing changed
    (folder / "000.jpg").unlink()
    picture(77).save(folder / "new.jpg", quality=95)
    second = index("two")  # and one that changed goes on from what the first one left
    assert second["changes"] == {**second["changes"], "added": 1, "removed": 1, "unchanged": 5}
    names = {path.name: path.name for path in folder.glob("*.jpg")}
    assert neighbours("one") == neighbours("three") == names
    assert neighbours("three", first["snapshot"])["new.jpg"] != "new.jpg"

    shown = run("status", "--json", machine="three")
    assert shown["snapshots"] == [first["snapshot"], second["snapshot"]]
    assert shown["store"] == store
    assert run("verify", "--json", machine="three")["ok"]
    asked = ["--images", str(folder / "new.jpg"), "-k", "1", "--json"]
    assert run("query", *asked, machine="three")

    back = run("rollback", "--json", machine="three")
    assert back["snapshot"] == first["snapshot"]
    assert set(neighbours("one").values()) <= {f"00{number}.jpg" for number in range(6)}
    third = index("one")
    assert third["parent"] == first["snapshot"]
    assert neighbours("two") == names
    run("gc", "--keep-last", "1", "--keep-days", "0", "--grace", "0", "--dry-run", machine="two")
    assert len(BucketStore(store).folders("snapshots")) == 3
    run("gc", "--keep-last", "1", "--keep-days", "0", "--grace", "0", machine="two")
    assert BucketStore(store).folders("snapshots") == [third["snapshot"]]
    manifest = snapshot.read_manifest(open_store(store))
    listed = {line["path"] for line in manifest["files"]}
    there = {one.path for one in BucketStore(store).entries() if not one.path.startswith("runs/")}
    assert there == {*listed, "CURRENT", snapshot.manifest_path(third["snapshot"])}
    assert run("verify", "--json", machine="four")["ok"]
    assert neighbours("four") == names
