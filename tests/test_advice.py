from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.exact_neighbours import interval
from lookalike.ivf.spec import IndexSpec
from lookalike.recall.advice import advise, queries_needed
from tests.test_certificate import certified, opened
from tests.vector_stores import certify, clustered


def test_too_coarse_codes_are_told_and_finer_ones_help(tmp_path):
    vectors = clustered(2000, 64, rank=24)
    options = {"kind": "ivf_pq", "nlist": 16, "code_bytes": 1}
    searcher, *_, truth = opened(tmp_path / "1", vectors, options=options, count=150)
    poor = certify(searcher, truth, max_rerank=50)
    assert poor["losses"]["code_error"] > 0.1
    assert poor["advice"].startswith("code errors dominate")
    assert "raise index.code_bytes to 2 (now 1)" in poor["advice"]
    searcher, *_, truth = opened(
        tmp_path / "2", vectors, options={**options, "code_bytes": 2}, count=150
    )
    better = certify(searcher, truth, max_rerank=50)
    assert better["recall"] > poor["recall"] + 0.03
    searcher, *_, truth = opened(
        tmp_path / "16", vectors, options={**options, "code_bytes": 16}, count=150
    )
    assert certify(searcher, truth, max_rerank=50)["reached"]


def test_too_few_lists_are_told_and_more_help(tmp_path):
    options = {"kind": "ivf_pq", "nlist": 64, "code_bytes": 16}
    searcher, *_, truth = opened(tmp_path, clustered(2500, 64, rank=60), options=options, count=200)
    capped = certify(searcher, truth, max_nprobe=2)
    assert capped["losses"]["coarse_miss"] > 0.04
    assert capped["nprobe"] == 2
    assert capped["advice"].startswith("coarse misses dominate")
    assert "more than 2 of the 64 lists" in capped["advice"]
    free = certify(searcher, truth)
    assert free["reached"]
    assert free["nprobe"] > 2


def test_too_few_queries_are_told_and_so_many_would_do(tmp_path):
    found = certified(tmp_path, clustered(300, 16), count=20)
    assert found["recall"] == 1
    assert not found["reached"]
    assert "raise index.queries to" in found["advice"]
    enough = queries_needed(1.0, 0.95, 300)
    assert f"to {enough} (now 20)" in found["advice"]
    assert certified(tmp_path / "more", clustered(300, 16), count=enough)["reached"]
    assert not certified(tmp_path / "less", clustered(300, 16), count=enough - 1)["reached"]


CERTIFICATE = {
    "k": 10,
    "target": 0.95,
    "recall": 0.8,
    "low": 0.78,
    "high": 0.82,
    "queries": 1000,
    "population": 10**6,
    "nprobe": 64,
    "rerank": 1000,
    "reached": False,
    "losses": {"coarse_miss": 0.02, "code_error": 0.18, "final": 0.0},
    "sweep": [
        {"nprobe": 64, "rerank": 500, "recall": 0.77},
        {"nprobe": 64, "rerank": 1000, "recall": 0.8},
        {"nprobe": 32, "rerank": 500, "recall": 0.8},
    ],
}
SPEC = IndexSpec("ivf_pq", 512, "cosine", nlist=4096, code_bytes=32, nbits=4, rotation_dim=128)


def test_code_bytes_are_doubled_to_what_the_dimension_allows():
    assert "index.code_bytes to 64 (now 32)" in advise(CERTIFICATE, SPEC)
    assert "index.code_bytes to 256 (now 200)" in advise(CERTIFICATE, replace(SPEC, code_bytes=200))
    assert "index.kind: ivf_sq" in advise(CERTIFICATE, replace(SPEC, code_bytes=256))
    assert "index.kind: exact" in advise(CERTIFICATE, replace(SPEC, kind="ivf_sq", nbits=8))


def test_what_deeper_re_ranking_brought_is_told_where_it_brought_something():
    assert advise(CERTIFICATE, SPEC).endswith(
        "; the last doubling of the depth, to 1,000, brought 0.030"
    )
    flat = {**CERTIFICATE, "sweep": [{"nprobe": 64, "rerank": 500, "recall": 0.7999}]}
    assert "depth" not in advise(flat, SPEC)
    assert "depth" not in advise({**CERTIFICATE, "sweep": []}, SPEC)


def test_a_certificate_that_meets_its_target_may_still_be_under_a_floor():
    reached = {**CERTIFICATE, "target": 0.75, "reached": True}
    assert advise(reached, SPEC) == ""
    assert advise(reached, SPEC, 0.77) == ""
    assert advise(reached, SPEC, 0.9) == "raise index.target_recall to 0.9 (now 0.75)"


@given(st.floats(0.5, 1), st.floats(0.01, 0.2), st.integers(10, 10**7))
def test_queries_needed_are_the_fewest(recall, below, population):
    wanted = recall - below
    enough = queries_needed(recall, wanted, population)
    assert interval(recall, enough, population)[0] >= wanted
    if enough > 1:
        assert interval(recall, enough - 1, population)[0] < wanted


@pytest.mark.parametrize("wanted", [0.951, 0.99])
def test_a_recall_under_what_is_wanted_is_no_matter_of_queries(wanted):
    assert "queries" not in advise({**CERTIFICATE, "recall": 0.95, "low": 0.93}, SPEC, wanted)
