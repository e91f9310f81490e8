"""A report whose parts fail is written without them, and says so."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_page import Page, assert_harmless
from test_report_data import NO_SAMPLES, made, row
from vector_stores import make_store

from lookalike.errors import StoreWriteError
from lookalike.faults import Faults
from lookalike.pipelines.measuring import Measuring
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.report_data import write_report
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.report.report import render_report
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.runs import Run


def written(store, manifest, parent, samples=NO_SAMPLES):
    """The three files of a report, and the lines that were said."""
    said = []
    write_report(open_store(store), "snapshots/one", manifest, parent, samples, Faults(said.append))
    folder = store / "snapshots/one"
    known = json.loads((folder / "report.json").read_text())
    return (folder / "report.html").read_text(), known, (folder / "metrics.txt").read_text(), said


def test_embeddings_that_cannot_be_read_cost_the_neighbours_alone(tmp_path):
    _, manifest, parent = made(tmp_path, {"kind": "ivf_pq", "nlist": 8})
    for line in snapshot.files_of(manifest, "embedding"):
        (tmp_path / line["path"]).write_bytes(b"\0" * line["bytes"])
    page, known, metrics, said = written(tmp_path, manifest, parent)
    assert {"neighbourhoods"} <= set(known["faults"])
    assert any("report: left out neighbourhoods: " in line for line in said)
    assert known["neighbourhoods"] == {}
    assert known["lists"]["lists"] == 8
    parsed = Page(page)
    assert_harmless(parsed)
    assert any(one.startswith("left out: ") for one in parsed.inside("p"))
    assert {"Neighbours", "Index", "Files", "Time"} <= set(parsed.inside("h2"))
    assert 'lookalike_files{status="unchanged"} 300' in metrics


def test_an_index_that_cannot_be_opened_costs_what_is_measured(tmp_path):
    _, manifest, parent = made(tmp_path)
    for line in snapshot.files_of(manifest, "template"):
        (tmp_path / line["path"]).unlink()
    for line in snapshot.files_of(manifest, "index"):
        (tmp_path / line["path"]).unlink()
    page, known, _, said = written(tmp_path, manifest, parent)
    assert set(known["faults"]) & {"searches", "neighbourhoods"}
    assert said
    assert "400 listed" in page


def test_samples_that_make_no_sense_cost_themselves(tmp_path):
    _, manifest, parent = made(tmp_path, features=[{"name": "low"}])
    samples = {"added": [{"status": "embedded"}], "rejected:x": [row("/t", detail=3, reason=5)]}
    page, known, _, said = written(tmp_path, manifest, parent, samples)
    assert "pictures" in known["faults"]  # a row without a name has none
    assert len(said) == len(known["faults"])
    assert "400 listed" in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"counts": {"listed": 1, "rejected_by_reason": {"a": 1, 2: 3}, "rejected": 10**400}},
        {"stages": {"scan": {"seconds": 1e308}, "embed": {"seconds": 1e308, "items": None}}},
        {"certificate": {"recall": float("nan"), "sweep": [{"cost": 1, "recall": float("inf")}]}},
        {
            "certificate": {
                "recall": 1.0,
                "levels": [{"before": ["x"] * 3}],
                "weights": {"list": []},
            }
        },
        {"files": {"index": {"files": 1, "rows": 1, "bytes": 10**400}}},
        {"lists": {"edges": [0, 1e308], "counts": [10**400]}, "index": {"reasons": 3}},
        {"neighbourhoods": {"asked": 1, "share": float("nan"), "groups": [{"size": "x"}]}},
        {"name": "\udc80", "features": [{"name": object(), "info": 3}]},
        {"changes": {"added": "x"}, "parent": 5, "samples": {"added": [5, {"uri": None}]}},
    ],
)
def test_facts_that_make_no_sense_never_stop_a_page(wrong):
    """Each is shown as it is, or has a note in its place; what is beside it is there."""
    said = []
    facts = {"name": "one", "counts": {"listed": 3, "embedded": 3}, "created": "2026", **wrong}
    parsed = Page(render_report(facts, {}, Faults(said.append)))
    assert_harmless(parsed)
    notes = [one for one in parsed.inside("p") if one.startswith("left out: ")]
    assert len(notes) == sum("section" in line for line in said)
    assert "Files" in parsed.inside("h2")


def test_a_store_that_takes_no_more_files_is_no_fault_of_the_report(tmp_path):
    def full():
        raise StoreWriteError("no room")

    faults = Faults()
    with pytest.raises(StoreWriteError):
        faults.spare("one", full, None)
    assert faults.noted == {}


def test_nor_is_it_where_a_task_measures(tmp_path, monkeypatch):
    """Other errors of a task cost what it measures."""
    _, manifest, parent = made(tmp_path)
    run = Run(open_store(tmp_path), "0123456789abcdef")
    run.start()
    measuring = Measuring(TaskRunner(run, RunnerSpec(workers=1), Progress(quiet=True)))

    def measured(error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("lookalike.recall.measured.measure", fail)
        faults = Faults()
        return measuring(open_store(tmp_path), manifest, parent, NO_SAMPLES, faults), faults.noted

    with pytest.raises(StoreWriteError, match="no room"):
        measured(StoreWriteError("no room"))
    assert measured(OSError("gone")) == ({}, {"searches": "EngineError: OSError: gone"})
    monkeypatch.undo()
    faults = Faults()
    found = measuring(open_store(tmp_path), manifest, parent, NO_SAMPLES, faults)
    assert found["neighbourhoods"]["asked"] > 0
    assert faults.noted == {}


@pytest.mark.parametrize(
    ("vectors", "metric"),
    [
        (np.ones((400, 16)), "cosine"),
        (np.repeat(np.eye(16), 25, axis=0), "cosine"),
        (np.eye(16)[:1], "l2"),
        (1e8 + np.eye(16)[np.arange(400) % 16], "l2"),
        (np.ones((400, 16)) + 1e-7 * (np.arange(400)[:, None] % 2), "l2"),
        (np.ones((400, 16)) * 3e-39, "cosine"),
        (np.eye(16)[np.arange(400) % 16] * 1e-10, "inner_product"),
        (np.eye(16)[np.arange(400) % 16] * 1e14, "inner_product"),
        (np.zeros((400, 16)), "l2"),
        (np.ones((400, 16)), "jaccard"),
    ],
)
@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_degenerate_vectors_have_a_report_without_faults(tmp_path, vectors, metric, kind):
    options = {"kind": kind} if kind == "exact" else {"kind": kind, "nlist": 4}
    if kind == "ivf_pq" and len(vectors) < 16:
        pytest.skip("too few vectors to train on")
    _, _, manifest = make_store(
        tmp_path, vectors.astype(np.float32), metric=metric, options=options
    )
    manifest |= {"counts": {"listed": len(vectors), "embedded": len(vectors)}, "parent": None}
    page, known, _, said = written(tmp_path, manifest, None)
    assert said == []
    assert known["faults"] == {}
    near = known["neighbourhoods"]
    if len(vectors) > 1:
        # All of them, or as many as there was time for.
        assert 0 < near["asked"] == sum(near["nearest"]["counts"]) <= len(vectors)
        assert 'class="plot low"' in page
    else:
        assert near["asked"] == 0
