"""Indexes that go on from the parent's: deltas, tombstones, compaction, drift, the truth kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.errors import NotPublishedError
from lookalike.exact_neighbours import ExactNeighbours
from lookalike.recall.truth import TRUTH_K, Truth
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from tests.nights import Nights
from tests.vector_stores import best, brute_force, clustered

DIM = 16
DEEP = {"compact": {"max_delta_share": 1.0, "max_tombstone_share": 1.0}}


def kept_truth(nights: Nights) -> Truth:
    assert nights.manifest is not None
    [line] = snapshot.files_of(nights.manifest, "truth")
    return Truth.from_bytes((nights.store / line["path"]).read_bytes())


def assert_truth_is_from_scratch(nights: Nights) -> Truth:
    """What recall is measured by, against a comparison of the queries with all living rows."""
    truth = kept_truth(nights)
    ids, vectors = nights.living()
    assert set(truth.ids.tolist()) <= set(ids.tolist())
    np.testing.assert_array_equal(truth.known.queries, vectors[np.searchsorted(ids, truth.ids)])
    scratch = ExactNeighbours(truth.known.queries, truth.ids, TRUTH_K, "cosine")
    scratch.update(ids, vectors)
    measured = truth.measured()
    np.testing.assert_array_equal(measured.ids, scratch.ids)
    np.testing.assert_array_equal(measured.scores, scratch.scores)
    return truth


def assert_search_is_exact(nights: Nights, **how: Any) -> None:
    """Every living row can be found, and nothing else; with all lists, as by brute force."""
    ids, vectors = nights.living()
    assert nights.manifest is not None
    searcher = Searcher(open_store(nights.store), nights.manifest)
    assert searcher.count == len(ids)
    queries = vectors[:: max(1, len(vectors) // 40)] + np.float32(0.01)
    found, scores = searcher.search_vectors(queries, 10, **how)
    expected = brute_force(queries, vectors, "cosine")
    order = best(expected, found.shape[1], "cosine")
    np.testing.assert_array_equal(found, ids[order])
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), rtol=1e-5)
    assert list(snapshot.verify(open_store(nights.store))) == []


def nights_of(tmp_path: Path, dim: int = DIM, **index: Any) -> Nights:
    nights = Nights(tmp_path, dim, **index)
    nights.settings |= DEEP
    return nights


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "ivf_pq", "ivf_sq"])
def test_nights_of_changes_search_as_all_living_rows_do(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(5)
    pool = clustered(4000, DIM)
    nights = nights_of(tmp_path, kind=kind, queries=200)
    first = nights.add(pool[:2000])
    assert nights.index()["index"]["way"] == "retrain"
    at, ids = 2000, [*first.tolist()]
    ways = []
    for night in range(5):
        ids += nights.add(pool[at : at + 60 + night]).tolist()
        at += 60 + night
        gone = rng.choice(ids, 50, replace=False).tolist()
        ids = [one for one in ids if one not in set(gone)]
        nights.remove(gone)
        manifest = nights.index()
        ways.append(manifest["index"]["way"])
        every = {} if kind == "exact" else {"nprobe": manifest["index"]["nlist"], "rerank": 1000}
        assert_search_is_exact(nights, **every)
        assert_truth_is_from_scratch(nights)
        assert manifest["certificate"]["population"] == len(ids)
    assert ways == ["append"] * 5
    deltas = [line for line in snapshot.files_of(manifest, "index") if line.get("delta")]
    assert len(deltas) == 5


def test_a_night_of_removals_alone_adds_no_file_to_the_index(tmp_path: Path) -> None:
    nights = nights_of(tmp_path, kind="ivf_pq", queries=100)
    ids = nights.add(clustered(1500, DIM))
    before = snapshot.files_of(nights.index(), "index")
    nights.remove(ids[10:100])
    after = nights.index()
    assert snapshot.files_of(after, "index") == before
    assert_search_is_exact(nights, nprobe=after["index"]["nlist"], rerank=1000)
    assert_truth_is_from_scratch(nights)


def test_queries_follow_the_rows(tmp_path: Path) -> None:
    """Queries die with their rows, new rows become queries in proportion, and never too many."""
    nights = nights_of(tmp_path, kind="exact", queries=150)
    ids = nights.add(clustered(600, DIM))
    nights.index()
    first = kept_truth(nights)
    assert len(first) == 150
    nights.remove(np.setdiff1d(ids, first.ids)[:100])
    nights.remove(first.ids[:20])
    new = nights.add(clustered(120, DIM, seed=9))
    nights.index()
    second = assert_truth_is_from_scratch(nights)
    assert not np.isin(first.ids[:20], second.ids).any()
    assert np.isin(first.ids[20:], second.ids).all()
    assert 10 < np.isin(second.ids, new).sum() < 60  # a quarter of them
    nights.add(clustered(600, DIM, seed=10))
    nights.index()
    assert len(assert_truth_is_from_scratch(nights)) == 150  # thinned
    nights.remove(kept_truth(nights).ids[:60])
    nights.index()
    assert len(assert_truth_is_from_scratch(nights)) == 150  # drawn again


def test_a_query_that_lost_its_neighbours_is_compared_again(tmp_path: Path) -> None:
    nights = nights_of(tmp_path, kind="exact", queries=40)
    ids = nights.add(clustered(1000, DIM))
    nights.index()
    truth = kept_truth(nights)
    near = truth.known.ids[3][truth.known.ids[3] >= 0]
    assert len(near) == 150
    nights.remove(np.setdiff1d(near, truth.ids)[:120])
    nights.index()
    assert_truth_is_from_scratch(nights)
    assert len(ids) == 1000


def test_equal_vectors_do_not_confuse_the_truth(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = clustered(5, DIM)
    nights = nights_of(tmp_path, kind="exact", queries=60)
    ids = nights.add(few[rng.integers(0, 5, 800)])
    nights.index()
    for night in range(3):
        nights.remove(ids[night * 50 : night * 50 + 40])
        nights.add(few[rng.integers(0, 5, 30)])
        nights.index()
        assert_truth_is_from_scratch(nights)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_compaction_keeps_queries_and_encodes_all_again(tmp_path: Path, kind: str) -> None:
    pool = clustered(3000, DIM)
    nights = nights_of(tmp_path, kind=kind, queries=100)
    ids = nights.add(pool[:2000])
    first = nights.index()
    nights.add(pool[2000:2200])
    nights.index()
    before = kept_truth(nights)
    nights.remove(ids[::4])
    new = nights.add(pool[2200:2500])
    moved = nights.compact()
    manifest = nights.index()
    assert manifest["index"]["way"] == "reencode"
    assert "compacted" in manifest["index"]["why"]
    assert manifest["index"]["template"] == first["index"]["template"]
    [shard] = snapshot.files_of(manifest, "index")
    assert (shard["rows"], "delta" in shard) == (len(nights.rows), False)
    assert snapshot.files_of(manifest, "tombstones") == []
    every = {} if kind == "exact" else {"nprobe": manifest["index"]["nlist"], "rerank": 1000}
    assert_search_is_exact(nights, **every)
    after = assert_truth_is_from_scratch(nights)
    stayed = moved(before.ids)
    assert set(stayed[stayed >= 0].tolist()) <= set(after.ids.tolist())
    others = np.setdiff1d(after.ids, stayed)
    assert len(others)  # of the rows of this night, none that was trained on
    assert np.isin(others, moved(new)).all()


@pytest.mark.slow
def test_too_many_deltas_are_encoded_again(tmp_path: Path) -> None:
    pool = clustered(2000, DIM)
    nights = nights_of(tmp_path, kind="ivf_pq", queries=50)
    nights.settings["compact"] = {"max_delta_share": 1.0, "max_deltas": 2}
    nights.add(pool[:1500])
    nights.index()
    ways = []
    for night in range(4):
        nights.add(pool[1500 + night * 50 : 1550 + night * 50])
        ways.append(nights.index()["index"]["way"])
    assert ways == ["append", "append", "reencode", "append"]
    assert any("compact.max_deltas 2" in line for line in nights.said)


@pytest.mark.slow
def test_drift_trains_anew_and_says_why(tmp_path: Path) -> None:
    nights = nights_of(tmp_path, kind="ivf_pq", queries=100)
    nights.add(clustered(3000, DIM, rank=4))
    first = nights.index()
    other = np.random.default_rng(1).standard_normal((400, DIM)).astype("f4")
    nights.add(other[:50])  # too few to tell
    second = nights.index()
    assert (second["index"]["way"], second["index"]["drift"]["drifted"]) == ("append", False)
    assert second["index"]["drift"]["rows"] == 50
    assert second["index"]["drift"]["error_ratio"] > 1.1
    nights.add(other[50:])
    third = nights.index()
    assert third["index"]["way"] == "retrain"
    assert third["index"]["template"] != first["index"]["template"]
    assert "no longer fits: of 400 vectors added since" in third["index"]["why"]
    assert third["index"]["why"] in "\n".join(nights.said)
    assert len(snapshot.files_of(third, "index")) == 1
    assert_search_is_exact(nights, nprobe=third["index"]["nlist"], rerank=1000)


def test_vectors_of_the_same_kind_do_not_drift(tmp_path: Path) -> None:
    pool = clustered(3000, DIM)
    nights = nights_of(tmp_path, kind="ivf_pq", queries=400)
    nights.add(pool[:2000])
    nights.index()
    nights.add(pool[2000:])
    manifest = nights.index()
    assert manifest["index"]["way"] == "append"
    found = manifest["index"]["drift"]
    assert (found["rows"], found["drifted"]) == (1000, False)
    assert 0.8 < found["error_ratio"] < 1.2


def test_a_delta_under_the_target_is_made_anew_before_giving_up(tmp_path: Path) -> None:
    nights = nights_of(tmp_path, kind="ivf_pq", queries=200, target_recall=0.9)
    nights.add(clustered(3000, DIM))
    first = nights.index()
    assert first["certificate"]["reached"]
    with pytest.raises(NotPublishedError, match=r"under publish\.min_recall 1"):
        nights.index(publish={"min_recall": 1.0})
    assert sum("index: anew" in line for line in nights.said) == 2
    assert "lower bound" in nights.said[-1] or any(
        "is under publish.min_recall" in line for line in nights.said
    )
    assert snapshot.current(open_store(tmp_path)) == first["name"]


def test_another_kind_or_model_is_made_anew(tmp_path: Path) -> None:
    nights = nights_of(tmp_path, kind="ivf_pq", queries=50, nlist=16)
    nights.add(clustered(1000, DIM))
    nights.index()
    nights.settings["index"] |= {"nlist": 32}
    assert "16 lists, planned are 32" in nights.index()["index"]["why"]
    nights.settings["index"] = {"kind": "exact"}
    assert "kind is ivf_pq, planned is exact" in nights.index()["index"]["why"]
    assert nights.manifest is not None
    nights.manifest["model_fingerprint"] = "other"
    assert "another model" in nights.index()["index"]["why"]


@pytest.mark.slow
def test_a_small_change_costs_little(tmp_path: Path) -> None:
    """1 % of 10,000 rows changed: the certificate and little else."""
    pool = clustered(10_300, 64)
    nights = nights_of(tmp_path, 64)
    ids = nights.add(pool[:10_000])
    nights.index()
    nights.add(pool[10_000:10_100])
    nights.remove(ids[:100])
    began = time.process_time()
    manifest = nights.index()
    assert manifest["index"]["way"] == "append"
    assert time.process_time() - began < 20  # about 2 where nothing else is going on
