"""The report that a run writes, and the file of metrics."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_metrics_text import read
from test_page import Page, assert_harmless
from vector_stores import clustered, make_store

from lookalike.faults import Faults
from lookalike.pipelines.metrics_file import write_metrics
from lookalike.pipelines.report_data import facts, write_report
from lookalike.recall.measured import fresh_rows, measure
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.folder import FolderStore
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.file_records import file_record

NO_SAMPLES: dict[str, list[dict[str, object]]] = {}
COUNTS = {
    "listed": 400,
    "embedded": 100,
    "unchanged": 300,
    "duplicate": 0,
    "rejected": 0,
    "ignored": 0,
    "removed": 0,
    "rejected_by_reason": {},
    "vectors": 400,
}


def made(store, options=None, n=400, **more):
    """A store of vectors, its manifest as a run has it before the report, and its parent's."""
    ids, _, manifest = make_store(store, clustered(n, 16), options=options)
    numbers = [line["file_no"] for line in snapshot.files_of(manifest, "embedding")]
    manifest |= {
        "counts": COUNTS,
        "created": "2026-01-02T03:04:05+00:00",
        "parent": "zero",
        "stages": {"scan": 0.5, "embed": 2.0},
        "changes": {"previous": 300, "unchanged": 300},
        **more,
    }
    parent = {**manifest, "name": "zero", "next_file_no": numbers[-1]}
    return ids, manifest, parent


def row(uri, **more):
    return {
        "uri": str(uri),
        "status": "embedded",
        "reason": "",
        "detail": "",
        "bytes": 9,
        "version": "1",
        "content_sha256": b"\1" * 32,
        "metadata_hash": 0,
        "id": 1,
        **more,
    }


def known_of(store, manifest, parent):
    """All facts, without samples."""
    faults = Faults()
    measured = measure(open_store(store), manifest, parent, NO_SAMPLES, faults)
    return facts(manifest, parent, NO_SAMPLES, measured, faults)


def test_three_files_are_written_and_named(tmp_path):
    _, manifest, parent = made(tmp_path, features=[{"name": "low"}])
    picture = tmp_path / "<b>new.png"
    Image.new("RGB", (40, 30), (9, 99, 199)).save(picture)
    samples = {
        "added": [row(picture)],
        "removed": [row("/gone\n.png", status="removed")],
        "renamed": [row("/to.png", previous="/from.png")],
        "rejected:truncated": [row(f"/t{i}", reason="truncated", detail="x") for i in range(30)],
        "rejected:empty": [row("/e", reason="empty")],
    }
    lines = write_report(open_store(tmp_path), "snapshots/one", manifest, parent, samples, Faults())
    names = ["report.html", "report.json", "metrics.txt"]
    assert [line["path"] for line in lines] == [f"snapshots/one/{name}" for name in names]
    for line in lines:
        assert line["kind"] == "report"
        found = file_record(tmp_path, line["path"])
        assert (line["sha256"], line["bytes"]) == (found.sha256, found.bytes)
    page, known, text = ((tmp_path / line["path"]).read_text() for line in lines)
    parsed = Page(page)
    assert_harmless(parsed)
    assert parsed.values("img", "alt") == ["<b>new.png"]
    assert "was from.png" in parsed.inside("div")
    found = json.loads(known)["samples"]
    assert found["added"] == [
        {"uri": str(picture), "status": "embedded", "reason": "", "detail": "", "bytes": 9, "id": 1}
    ]
    assert [one["reason"] for one in found["rejected"]][:3] == ["empty", "truncated", "truncated"]
    assert len(found["rejected"]) == 12
    assert read(text)["lookalike_vectors", None] == 400


def test_given_vectors_bring_no_name_that_is_looked_for_in_a_network(tmp_path):
    """The names come from whoever made the table; a remote one could be anybody's address."""
    _, manifest, parent = made(tmp_path, features=[])
    samples = {"added": [row("s3://bucket/that/does/not/exist.png"), row("hdfs://nobody/x.png")]}
    began = time.monotonic()
    write_report(open_store(tmp_path), "snapshots/one", manifest, parent, samples, Faults())
    assert time.monotonic() - began < 20


def test_an_ivf_index_has_its_lists_and_codes_described(tmp_path):
    ids, manifest, parent = made(tmp_path, {"kind": "ivf_pq", "nlist": 8})
    searcher = Searcher(open_store(tmp_path), manifest)
    found = known_of(tmp_path, manifest, parent)
    sizes = np.bincount(searcher.index.lists_of(ids), minlength=8)
    lists = found["lists"]
    assert lists["entries"] == 400
    assert (lists["lists"], lists["min"], lists["max"]) == (8, sizes.min(), sizes.max())
    assert sum(lists["counts"]) == 8
    codes = found["codes"]
    assert codes["sample"]["rows"] == 400
    assert codes["fresh"]["rows"] == 100  # the last of four files came with this run
    assert sum(codes["fresh"]["counts"]) == 100
    lost = searcher.index.lost_by_codes(ids)
    assert codes["sample"]["mean"] == pytest.approx(lost.mean(), abs=1e-4)
    assert 0 < lost.min() < lost.max() < 1
    assert found["neighbourhoods"]["fresh"] == 100
    assert json.loads(json.dumps(found)) == found


def test_an_index_that_is_too_large_to_be_fetched_is_described_all_the_same(tmp_path, monkeypatch):
    _, manifest, parent = made(tmp_path, {"kind": "ivf_pq", "nlist": 8, "shards": 2})
    expected = known_of(tmp_path, manifest, parent)
    monkeypatch.setattr("lookalike.recall.measured._FETCHED_BYTES", 1)
    assert known_of(tmp_path, manifest, parent)["lists"] == expected["lists"]
    monkeypatch.setattr(FolderStore, "mapped", lambda store, path: None)  # as elsewhere
    monkeypatch.setattr("lookalike.search.vector_index.read_shard", pytest.fail)
    found = known_of(tmp_path, manifest, parent)
    assert (found["lists"], found["codes"]) == (expected["lists"], expected["codes"])
    assert found["neighbourhoods"] == {}
    assert "is not fetched for that" in found["faults"]["neighbourhoods"]


def test_an_exact_index_has_neither(tmp_path):
    _, manifest, parent = made(tmp_path)
    found = known_of(tmp_path, manifest, parent)
    assert found["lists"] == found["codes"] == {}


def test_tombstones_are_counted_and_not_asked(tmp_path):
    ids, manifest, parent = made(tmp_path)
    line = write_tombstones(open_store(tmp_path), "snapshots/one/dead.npy", ids[:50]).to_json()
    manifest["files"].append({**line, "kind": "tombstones"})
    found = known_of(tmp_path, manifest, parent)
    assert found["tombstones"] == 50
    assert found["neighbourhoods"]["asked"] == found["neighbourhoods"]["living"] == 350


def lines_of(*rows, first=0):
    return {
        "model_fingerprint": "m",
        "counts": {"embedded": 7},
        "files": [
            {"kind": "embedding", "file_no": number, "rows": many, "path": f"{number}"}
            for number, many in enumerate(rows, start=first)
        ],
    }


NOBODY = np.empty(0, dtype=np.int64)


@pytest.mark.parametrize(
    ("rows", "next_file_no", "files"),
    [
        ((9, 9, 7), 2, {2}),
        ((9, 9, 4, 3, 2), 2, {2, 3}),  # the last are copies
        ((9, 9), 2, set()),  # nothing new
        ((0, 0, 20), 2, set()),  # compacted: more rows than were embedded
    ],
)
def test_fresh_rows_are_those_the_run_embedded(rows, next_file_no, files):
    parent = {"model_fingerprint": "m", "next_file_no": next_file_no}
    found = fresh_rows(lines_of(*rows), parent, NOBODY, NO_SAMPLES)
    assert set((found >> 32).tolist()) == files
    assert len(found) == sum(rows[number] for number in files)


def test_after_compaction_fresh_rows_are_those_of_the_samples_that_are_there():
    parent = {"model_fingerprint": "m", "next_file_no": 2}
    samples = {"added": [{"id": 2 << 32 | 3}, {"id": 1 << 32}, {"id": None}], "changed": [{}]}
    manifest = lines_of(20, first=2)
    assert fresh_rows(manifest, parent, NOBODY, samples).tolist() == [2 << 32 | 3]
    assert len(fresh_rows(manifest, None, NOBODY, samples)) == 0
    assert len(fresh_rows(manifest, {**parent, "model_fingerprint": "n"}, NOBODY, samples)) == 0


def test_the_time_is_bounded_by_the_run_and_by_the_clock(tmp_path, monkeypatch):
    _, manifest, parent = made(tmp_path, n=4000)
    monkeypatch.setattr("lookalike.recall.measured._LEAST_S", 0.0)
    manifest["stages"] = {"scan": 0.0}
    found = known_of(tmp_path, manifest, parent)
    assert 0 < found["neighbourhoods"]["asked"] < 1000  # one block of them


# --- the file of metrics ------------------------------------------------------------------------


def metrics(path: Path, store: Path, **more):
    write_metrics(
        path, open_store(store), **{"status": 0, "seconds": 1.5, "published": True, **more}
    )
    return read(path.read_text())


def label(store):
    return f'store="{store}"'


def test_metrics_of_a_run_without_a_store(tmp_path):
    path, store = tmp_path / "l.prom", tmp_path / "none"
    values = metrics(path, store, status=2, published=False)
    assert values["lookalike_run_exit_status", label(store)] == 2
    assert ("lookalike_run_last_success_timestamp_seconds", label(store)) not in values
    assert not any(name.startswith("lookalike_snapshot") for name, _ in values)


def test_metrics_of_runs_keep_the_last_success_and_the_published_snapshot(tmp_path):
    path, store = tmp_path / "l.prom", tmp_path / "store"
    store.mkdir()
    _, manifest, parent = made(store)
    manifest["files"] += write_report(
        open_store(store), "snapshots/two", manifest, parent, NO_SAMPLES, Faults()
    )
    publishing.publish(open_store(store), {**manifest, "name": "two"})
    good = metrics(path, store)
    at = good["lookalike_run_last_success_timestamp_seconds", label(store)]
    assert abs(at - time.time()) < 60
    assert good["lookalike_files", f'{label(store)},status="unchanged"'] == 300
    bad = metrics(path, store, status=3, published=False)
    assert bad["lookalike_run_exit_status", label(store)] == 3
    assert bad["lookalike_run_last_success_timestamp_seconds", label(store)] == at
    assert bad["lookalike_files", f'{label(store)},status="unchanged"'] == 300
    assert path.stat().st_mode & 0o444 == 0o444  # the collector is somebody else
    assert [one.name for one in tmp_path.glob("*.prom*")] == ["l.prom"]


def test_metrics_of_a_snapshot_without_a_report_come_from_its_manifest(tmp_path):
    path, store = tmp_path / "l.prom", tmp_path / "store"
    store.mkdir()
    _, manifest, _ = made(store)
    publishing.publish(open_store(store), {**manifest, "name": "two"})
    values = metrics(path, store)
    assert values["lookalike_files", f'{label(store)},status="unchanged"'] == 300
    assert values["lookalike_stage_seconds", f'{label(store)},stage="embed"'] == 2
    assert not any(name == "lookalike_near_duplicates_ratio" for name, _ in values)


def test_metrics_say_how_the_run_ended_though_the_report_is_damaged(tmp_path):
    path, store = tmp_path / "l.prom", tmp_path / "store"
    store.mkdir()
    _, manifest, parent = made(store)
    manifest["files"] += write_report(
        open_store(store), "snapshots/two", manifest, parent, NO_SAMPLES, Faults()
    )
    publishing.publish(open_store(store), {**manifest, "name": "two"})
    for damage in (b"{", b"[]", b"\xff"):
        (store / "snapshots/two/report.json").write_bytes(damage)
        values = metrics(path, store, status=1, published=False, name='s3://b/"x"')
        assert values["lookalike_run_exit_status", r'store="s3://b/\"x\""'] == 1
