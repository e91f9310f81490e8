"""Near-duplicate groups and outliers, held against comparing all rows with all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_stores import clustered, make_store

from lookalike.recall.histograms import histogram
from lookalike.recall.neighbourhoods import neighbourhoods, sample_rows
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from lookalike.store.vector_reader import VectorReader

NOBODY = np.empty(0, dtype=np.int64)
TWINS = [(0, 300), (1, 301), (1, 302), (5, 303)]  # rows, the second a save of the first
ODD = 250


def planted(metric):
    """400 vectors, some of them nearly equal, one far from all."""
    vectors = clustered(400, 24, groups=8) + 0.5 * np.random.default_rng(1).standard_normal(
        (400, 24)
    )
    if metric == "jaccard":
        vectors = np.abs(vectors) + 0.1
    noise = np.random.default_rng(2).standard_normal(vectors.shape)
    for first, second in TWINS:
        vectors[second] = vectors[first] * (1 + 1e-3 * noise[second])
    if metric == "jaccard":
        vectors[ODD] = 0
        vectors[ODD, :2] = 50
    else:
        vectors[ODD] = 40 * noise[ODD] - 5 * vectors.mean(axis=0)
    return vectors.astype(np.float32)


@pytest.fixture(params=["cosine", "l2", "inner_product", "jaccard"])
def opened(request, tmp_path):
    ids, _, manifest = make_store(tmp_path, planted(request.param), request.param)
    lines = snapshot.files_of(manifest, "embedding")
    reader = VectorReader(open_store(tmp_path), {line["file_no"]: line["path"] for line in lines})
    return ids, Searcher(open_store(tmp_path), manifest), reader


def name(row):
    return f"/pictures/{row}.png"


def groups_of(found):
    return {frozenset(one["uri"] for one in group["members"]) for group in found["groups"]}


def test_what_was_planted_is_found(opened):
    ids, searcher, reader = opened
    found = neighbourhoods(searcher, reader, ids, NOBODY, seconds=60, groups=9, outliers=1)
    assert found["asked"] == found["living"] == 400
    assert found["fresh"] == 0
    wanted = {frozenset(map(name, rows)) for rows in ((0, 300), (1, 301, 302), (5, 303))}
    assert groups_of(found) == wanted
    assert found["group_count"] == 3
    assert [group["size"] for group in found["groups"]] == [3, 2, 2]
    assert found["with_near_duplicates"] == 7
    assert found["share"] == pytest.approx(7 / 400, abs=1e-4)
    if searcher.metric != "inner_product":  # where the longest vectors are everybody's nearest
        (odd,) = found["outliers"]
        assert odd["uri"] == name(ODD)
    assert sum(found["nearest"]["counts"]) == 400


def test_fresh_rows_come_first_and_are_marked(opened):
    ids, searcher, reader = opened
    fresh = ids[[302, 303, 399]]
    found = neighbourhoods(searcher, reader, ids, fresh, seconds=60, groups=2, outliers=0)
    assert found["fresh"] == 3
    assert groups_of(found) == {frozenset(map(name, (1, 301, 302))), frozenset(map(name, (5, 303)))}
    marked = {one["uri"] for g in found["groups"] for one in g["members"] if one["fresh"]}
    assert marked == {name(302), name(303)}
    assert [group["members"][0]["fresh"] for group in found["groups"]] == [True, True]
    assert found["share"] == pytest.approx(5 / 397, abs=1e-4)  # of those that are not fresh


def test_it_stops_when_time_is_over(opened):
    ids, searcher, reader = opened
    fresh = ids[200:210]
    found = neighbourhoods(searcher, reader, ids, fresh, seconds=0, groups=9, outliers=9)
    assert 10 < found["asked"] < 400  # one block
    assert found["fresh"] == 10


def test_the_dead_are_neither_asked_nor_found(tmp_path):
    ids, _, manifest = make_store(tmp_path, planted("cosine"))
    deleted = ids[[300, 302]]
    line = write_tombstones(open_store(tmp_path), "snapshots/one/tombstones.npy", deleted).to_json()
    manifest["files"].append({**line, "kind": "tombstones"})
    lines = snapshot.files_of(manifest, "embedding")
    sample = sample_rows({line["file_no"]: line["rows"] for line in lines}, deleted, 10**6)
    assert set(sample.tolist()) == set(ids.tolist()) - set(deleted.tolist())
    reader = VectorReader(open_store(tmp_path), {line["file_no"]: line["path"] for line in lines})
    searcher = Searcher(open_store(tmp_path), manifest)
    found = neighbourhoods(searcher, reader, sample, NOBODY, seconds=60, groups=9, outliers=9)
    assert groups_of(found) == {frozenset(map(name, (1, 301))), frozenset(map(name, (5, 303)))}


@pytest.mark.parametrize("rows", [1, 2])
def test_tiny_stores_have_few_neighbours(tmp_path, rows):
    ids, _, manifest = make_store(tmp_path, clustered(rows, 8), files=1)
    lines = snapshot.files_of(manifest, "embedding")
    reader = VectorReader(open_store(tmp_path), {line["file_no"]: line["path"] for line in lines})
    found = neighbourhoods(
        Searcher(open_store(tmp_path), manifest),
        reader,
        ids,
        NOBODY,
        seconds=9,
        groups=9,
        outliers=9,
    )
    assert found["asked"] == (0 if rows == 1 else 2)
    assert len(found["outliers"]) == found["asked"]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 50), st.integers(0, 40), max_size=6),
    st.integers(0, 200),
    st.integers(0, 9),
    st.data(),
)
def test_samples_are_living_rows_as_many_as_there_are(rows, count, seed, data):
    everybody = [number << 32 | row for number, many in rows.items() for row in range(many)]
    deleted = data.draw(st.sets(st.sampled_from(everybody))) if everybody else set()
    found = sample_rows(rows, np.array(sorted(deleted), dtype=np.int64), count, seed)
    assert (np.diff(found) > 0).all()
    assert set(found.tolist()) <= set(everybody) - deleted
    living = len(everybody) - len(deleted)
    if count >= living or not deleted:
        assert len(found) == min(count, living)


def test_samples_are_uniform():
    """Each of 50 rows in two files is drawn about as often as any other."""
    rows, drawn = {3: 10, 7: 40}, np.zeros(50)
    for seed in range(400):
        for one in sample_rows(rows, NOBODY, 10, seed).tolist():
            drawn[(one & 0xFFFFFFFF) + (10 if one >> 32 == 7 else 0)] += 1
    assert drawn.sum() == 4000
    assert drawn.min() >= 50
    assert drawn.max() <= 115


@given(st.lists(st.floats(-1e3, 1e3), min_size=1) | st.lists(st.integers(-999, 999), min_size=1))
def test_histograms_count_everything(values):
    found = histogram(values)
    assert sum(found["counts"]) == len(values)
    assert len(found["edges"]) == len(found["counts"]) + 1 <= 31
    if all(isinstance(value, int) for value in values):
        assert (
            len({round(b - a) for a, b in zip(found["edges"], found["edges"][1:], strict=False)})
            == 1
        )
        assert all(edge == int(edge) for edge in found["edges"])


def test_nothing_is_no_histogram():
    assert histogram([]) == {}
