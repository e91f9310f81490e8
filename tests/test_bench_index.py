"""The benchmark's generator, its oracle, and all ways that need no other environment, for real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.index import vectors
from benchmarks.index.__main__ import main
from benchmarks.index.crops import boxes
from benchmarks.index.generator import (
    BLOCK,
    MOST_NEAR,
    Generator,
    fit,
    neighbours,
    tenth_distance,
    thinned,
)
from benchmarks.index.measure import fastest
from benchmarks.index.way_exact import nearest, recall
from benchmarks.index.ways import highest
from benchmarks.processes import Sample
from lookalike.errors import RequestError


def places(n: int, dim: int = 24, seed: int = 0) -> vectors.Vectors:
    """Unit vectors in clusters of few directions, as crops of photographs are; in random order."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((60, dim))
    axes = random.standard_normal((60, 6, dim)) * 0.25
    own = random.integers(0, 60, n)
    rows = centres[own] + np.einsum("ni,nid->nd", random.standard_normal((n, 6)), axes[own])
    rows += 0.05 * random.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


REAL = places(6000)
GENERATOR = fit(REAL[:3000])


def test_rows_are_the_same_whatever_range_asks_for_them() -> None:
    whole = GENERATOR.rows(0, BLOCK + 50)
    np.testing.assert_array_equal(GENERATOR.rows(BLOCK - 300, BLOCK + 50), whole[BLOCK - 300 :])
    np.testing.assert_array_equal(GENERATOR.rows(7, 9), whole[7:9])
    other = Generator(GENERATOR.real, GENERATOR.near, GENERATOR.width, GENERATOR.spread, 1)
    assert not (other.rows(0, 50) == whole[:50]).all(axis=1).any()


def test_rows_have_unit_length_and_are_all_different() -> None:
    rows = GENERATOR.rows(0, 40_000)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_a_tenth_grows_to_what_the_real_set_is() -> None:
    tenth = thinned(REAL)
    found = fit(REAL)
    grown = Generator(tenth, neighbours(tenth, MOST_NEAR), found.width, found.spread).rows(0, 6000)
    assert tenth_distance(grown[:5000], grown[5000:]) == pytest.approx(
        tenth_distance(REAL[:5000], REAL[5000:]), rel=0.1
    )


def test_neighbours_come_closer_as_rows_grow() -> None:
    made = GENERATOR.rows(0, 24_200)
    away = [tenth_distance(made[:rows], made[-200:]) for rows in (3000, 6000, 12_000, 24_000)]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.8 * away[0]


def test_the_covariance_is_kept() -> None:
    made = GENERATOR.rows(0, 30_000)
    kept = np.linalg.eigvalsh(made.T @ made / len(made)) / np.linalg.eigvalsh(
        REAL[:3000].T @ REAL[:3000] / 3000
    )
    assert 0.85 < kept.min() <= kept.max() < 1.15


@settings(max_examples=20, deadline=None)
@given(st.integers(6, 400), st.integers(1, 32), st.integers(0, 5))
def test_neighbours_of_small_sets_are_other_rows_and_nearest_first(
    n: int, count: int, seed: int
) -> None:
    real = places(n, 8, seed)
    found = neighbours(real, count)
    assert found.shape == (n, min(count, n - 1))
    scores = real @ real.T
    np.fill_diagonal(scores, -2)
    wanted = -np.sort(-scores, axis=1)[:, : found.shape[1]]
    np.testing.assert_allclose(np.take_along_axis(scores, found, axis=1), wanted, atol=1e-5)


def test_neighbours_of_larger_sets_are_mostly_the_nearest() -> None:
    found = neighbours(REAL, 10)
    assert (found != np.arange(len(REAL))[:, None]).all()
    scores = REAL @ REAL.T
    np.fill_diagonal(scores, -2)
    assert recall(found, np.argsort(-scores, axis=1)[:, :10]) > 0.85


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.lists(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 9))
def test_exact_search_over_blocks_is_a_sort(k: int, sizes: list[int], seed: int) -> None:
    base, queries = places(sum(sizes), 8, seed), places(7, 8, seed + 100)
    parts = np.split(base, np.cumsum(sizes)[:-1])
    rows, scores = nearest(queries, parts, min(k, len(base)))
    true = queries @ base.T
    wanted = -np.sort(-true, axis=1)[:, : rows.shape[1]]
    np.testing.assert_allclose(scores, wanted, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(true, rows, axis=1), wanted, atol=1e-6)


def test_ready_vectors_are_distinct_and_keep_their_inner_products() -> None:
    raw = np.concatenate([3 * REAL[:500], REAL[:20] * 3, np.zeros((2, 24), np.float32)])
    raw[5, 3] = np.nan
    unit = vectors.ready(raw, 512, seed=1)
    assert unit.shape == (500, 24)  # 499 of the first, and the copy of the one that is spoilt
    np.testing.assert_allclose(
        np.sort((unit @ unit.T).ravel()), np.sort((REAL[:500] @ REAL[:500].T).ravel()), atol=1e-4
    )
    reduced = vectors.ready(raw, 12, seed=1)
    assert reduced.shape == (500, 12)
    lost = 1 - (unit[:, :12] ** 2).sum(axis=1)
    assert lost.mean() < 0.5


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_hold_the_rows(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "GROUP_ROWS", 100)
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    vectors.write_part(GENERATOR, 0, 1000, paths[0], dtype)
    vectors.write_part(GENERATOR, 1000, 1700, paths[1], dtype)
    read = np.concatenate(list(vectors.blocks(paths)))
    np.testing.assert_allclose(read, GENERATOR.rows(0, 1700), atol=1e-3 if dtype[-1] == "6" else 0)
    vectors.write_array(paths, 1700, 24, tmp_path / "array.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "array.npy"), read)
    assert vectors.load([tmp_path / "array.npy", paths[0]]).shape == (2700, 24)
    np.save(tmp_path / "wide.npy", np.zeros((3, 25), np.float32))
    with pytest.raises(RequestError, match=r"rows of one length; they are \(1700, 24\), \(3, 25\)"):
        vectors.load([tmp_path / "array.npy", tmp_path / "wide.npy"])


@given(st.binary(max_size=20), st.integers(1, 3000), st.integers(1, 3000))
def test_crops_lie_in_the_picture(data: bytes, width: int, height: int) -> None:
    found = boxes(data, width, height, 5)
    assert found == boxes(data, width, height, 5)
    for left, top, right, bottom in found:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_memory_is_above_the_libraries_of_as_many_processes() -> None:
    samples = [Sample(0, 1, 100, 60), Sample(1, 3, 390, 130), Sample(2, 1, 150, 70)]
    assert highest(samples, Sample(0, 1, 100, 50)) == (90, 20)
    assert highest(samples, Sample(0, 1, 999, 999)) == (0, 0)


def test_the_fastest_setting_that_reaches_a_recall() -> None:
    curve = [
        {"recall": 0.9, "batch_rate": 9.0},
        {"recall": 0.96, "batch_rate": 5.0},
        {"recall": 0.99, "batch_rate": 2.0},
    ]
    assert fastest({"curve": curve}, 0.95) == curve[1]
    assert fastest({"curve": curve}, 0.995) is None


@pytest.mark.slow
def test_all_ways_are_measured_on_made_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # OPQ's many small loops wait for busy cores
    np.save(tmp_path / "real.npy", REAL[:4000])
    output = tmp_path / "bench.json"
    arguments = ["--vectors", str(tmp_path / "real.npy"), "--rows", "12000", "--queries", "100"]
    arguments += ["--rounds", "1", "--ways", "wiki,exact", "--code-bytes", "4", "--patience", "100"]
    arguments += [
        "--workers",
        "1",
        "--recall",
        "0.8",
        "--json",
        str(output),
        "--work",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    found = json.loads(output.read_text())
    assert (found["rows"], found["dim"], found["queries"]) == (12_000, 24, 100)
    assert list(found["ways"]) == ["lookalike", "wiki", "exact"]
    for name, way in found["ways"].items():
        built = way["built"]
        assert built["failed"] == ""
        assert built["seconds"] > 0
        assert built["told"]["bytes"] > 12_000
        for row in way["curve"]:
            assert min(row["batch"] + row["single"]) > 0
        best = max(row["recall"] for row in way["curve"])
        assert best > {"lookalike": 0.9, "wiki": 0.2, "exact": 0.999}[name]
    assert found["ways"]["wiki"]["built"]["told"]["key"] == "OPQ4_16,IVF512,PQ4np"
    assert found["ways"]["lookalike"]["built"]["told"]["certificate"]["k"] == 10
    shown = capsys.readouterr().out
    assert "12,000 vectors of 24 components: made, each of five of 4,000 real ones" in shown
    assert "at recall@10 0.8, beside exact search in memory: " in shown
    assert [path.name for path in tmp_path.glob("lookalike-bench-*")] == []


@pytest.mark.slow
def test_crops_are_embedded_and_searched(
    pictures: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "bench.json"
    arguments = ["--images", str(pictures(6)), "--real", "240", "--rows", "200", "--queries", "20"]
    arguments += ["--rounds", "1", "--ways", "exact", "--workers", "1", "--json", str(output)]
    assert main([*arguments, "--work", str(tmp_path)]) == 0
    found = json.loads(output.read_text())
    assert "builtin:color-texture on 40 crops of each of 6 pictures" in found["vectors"]
    assert max(row["recall"] for row in found["ways"]["lookalike"]["curve"]) > 0.999
    assert "200 vectors" in capsys.readouterr().out


def test_wrong_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--vectors", str(tmp_path / "none.npy"), "--ways", "exact"]) == 2
    assert "there is no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["--ways", "hnsw"])
    assert ended.value.code == 2
    assert "not hnsw" in capsys.readouterr().err
