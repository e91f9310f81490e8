"""The planner: what it chooses from one vector to ten billion, why, and what it refuses."""

from __future__ import annotations

import json
from math import log2, sqrt

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.ivf import codes
from lookalike.ivf.planner import plan
from lookalike.ivf.spec import IndexSpec
from lookalike.pipelines.config import parse_config
from lookalike.sizes import size_setting, size_text

GIB = 1 << 30
TIB = 1 << 40
EXACT = ("exact", 1, 0, 0)
MOST = {"memory": TIB}


def setting(size):
    """Bytes, as a config reads them."""
    features = [{"name": "a", "handle": "b"}]
    return parse_config({"features": features, "index": {"memory": size}}, []).index["memory"]


# n: dim: (kind, nlist, code_bytes, nbits), rotation_dim, train_rows, part_rows, shards
CHOSEN = {
    1: dict.fromkeys((16, 128, 512, 1280), (EXACT, None, 0, 131_072, 1)),
    9_999: dict.fromkeys((16, 128, 512, 1280), (EXACT, None, 0, 131_072, 1)),
    10_000: {
        16: (("ivf_sq", 128, 16, 8), 16, 8_000, 131_072, 1),
        128: (("ivf_pq", 128, 32, 4), 128, 8_000, 131_072, 1),
        512: (("ivf_pq", 128, 32, 4), 128, 8_000, 131_072, 1),
        1280: (("ivf_pq", 128, 32, 4), 128, 8_000, 131_072, 1),
    },
    100_000: {
        16: (("ivf_sq", 2_048, 16, 8), 16, 80_000, 131_072, 1),
        512: (("ivf_pq", 2_048, 32, 4), 128, 80_000, 131_072, 1),
    },
    1_000_000: {
        16: (("ivf_sq", 4_096, 16, 8), 16, 262_144, 131_072, 1),
        128: (("ivf_pq", 4_096, 32, 4), 128, 262_144, 131_072, 1),
        512: (("ivf_pq", 4_096, 32, 4), 128, 262_144, 131_072, 1),
        1280: (("ivf_pq", 4_096, 32, 4), 128, 262_144, 131_072, 1),
    },
    10_000_000: {
        16: (("ivf_sq", 16_384, 16, 8), 16, 1_048_576, 131_072, 1),
        512: (("ivf_pq", 16_384, 32, 4), 128, 1_048_576, 131_072, 1),
    },
    100_000_000: {512: (("ivf_pq", 65_536, 32, 4), 128, 4_194_304, 131_072, 7)},
    1_000_000_000: {
        16: (("ivf_sq", 262_144, 16, 8), 16, 16_777_216, 244_141, 63),
        128: (("ivf_pq", 262_144, 64, 4), 128, 16_777_216, 244_141, 63),
        512: (("ivf_pq", 262_144, 64, 4), 256, 16_777_216, 244_141, 63),
        1280: (("ivf_pq", 262_144, 64, 4), 256, 16_777_216, 244_141, 63),
    },
    10_000_000_000: {
        16: (("ivf_sq", 1_048_576, 16, 8), 16, 67_108_864, 2_441_407, 625),
        128: (("ivf_pq", 1_048_576, 64, 4), 128, 67_108_864, 2_441_407, 625),
        512: (("ivf_pq", 1_048_576, 64, 4), 256, 67_108_864, 2_441_407, 625),
        1280: (("ivf_pq", 1_048_576, 64, 4), 256, 67_108_864, 2_441_407, 625),
    },
}


@pytest.mark.parametrize(
    ("n", "dim", "expected"),
    [(n, dim, expected) for n, row in CHOSEN.items() for dim, expected in row.items()],
)
def test_what_is_chosen(n, dim, expected):
    spec = plan(n, dim, "cosine", MOST)
    found = (
        (spec.kind, spec.nlist, spec.code_bytes, spec.nbits),
        spec.rotation_dim,
        spec.train_rows,
        spec.part_rows,
        spec.shards,
    )
    assert found == (expected[0], expected[1] or dim, *expected[2:])


def test_what_a_searcher_of_a_billion_holds():
    spec = plan(10**9, 512, "cosine", {"memory": 100 * GIB})
    codes, centroids = 10**9 * (64 + 8), 262_144 * 256 * 4
    assert spec.searcher_bytes(10**9) == pytest.approx(codes + centroids, rel=0.01)


@pytest.mark.parametrize(
    ("memory", "code_bytes", "words"),
    [
        (100 * GIB, 64, "after 32 bytes about 1,750 vectors a query would have to be re-ranked"),
        (40 * GIB, 32, "as memory allows; for recall 0.95 about 1,750 vectors a query would have"),
        (16 * GIB, 9, "as memory allows"),
    ],
)
def test_codes_are_as_long_as_is_useful_and_fits(memory, code_bytes, words):
    spec = plan(10**9, 512, "cosine", {"memory": memory})
    assert spec.code_bytes == code_bytes
    assert spec.rotation_dim == 2 * spec.subquantizers
    assert spec.searcher_bytes(10**9) <= memory
    assert any(words in reason for reason in spec.reasons)
    longer = {"memory": memory, "code_bytes": code_bytes + 1}
    if code_bytes < 32:
        with pytest.raises(RequestError, match=r"index\.memory is 16\.0 GiB"):
            plan(10**9, 512, "cosine", longer)


@settings(max_examples=300)
@given(
    st.integers(64, 10**10),
    st.integers(2, 4000),
    st.sampled_from(METRICS),
    st.sampled_from((4, 8)),
    st.integers(14, 200),
    st.floats(0.5, 1),
)
def test_every_plan_is_sound(n, dim, metric, nbits, bytes_each, target):
    options = {
        "kind": "ivf_pq",
        "nbits": nbits,
        "memory": bytes_each * n + 100 * dim * dim + (1 << 24),
        "target_recall": target,
    }
    assume(nbits == 4 or n >= 320)
    spec = plan(n, dim, metric, options)
    available = n - n // 5
    assert spec.nlist & (spec.nlist - 1) == 0
    assert 1 <= spec.nlist <= max(1, available // 39)
    assert spec.nlist <= 16 * sqrt(n)
    assert spec.nlist >= 4 * sqrt(n) or 2 * spec.nlist > available // 39
    assert spec.subquantizers * spec.nbits == 8 * spec.code_bytes
    assert spec.rotation_dim % spec.subquantizers == 0
    assert 1 <= spec.subquantizers <= spec.rotation_dim <= min(dim, spec.train_rows)
    assert min(available, 39 * spec.nlist) <= spec.train_rows <= available
    assert spec.train_rows >= min(available, 65_536) or spec.nlist * 39 <= spec.train_rows
    assert max(spec.nlist, 1 << spec.nbits) <= spec.train_rows
    assert spec.searcher_bytes(n) <= options["memory"]
    assert spec.part_rows >= 131_072
    assert n / spec.part_rows <= 4096
    assert 1 <= spec.shards <= max(1, n / 16e6 + 1)
    assert 0 < spec.rerank <= min(n, codes.DEEPEST)
    assert len(spec.reasons) == 6
    assert IndexSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@settings(max_examples=100)
@given(st.integers(10_000, 10**10), st.integers(0, 10**9), st.sampled_from((16, 100, 512)))
def test_more_vectors_hold_more_memory_and_no_fewer_lists(n, more, dim):
    options = {"memory": 1 << 60, "target_recall": 0.9}
    one, other = plan(n, dim, "cosine", options), plan(n + more, dim, "cosine", options)
    assert other.searcher_bytes(n + more) >= one.searcher_bytes(n)
    assert other.nlist >= one.nlist
    assert other.code_bytes >= one.code_bytes
    assert other.shards >= one.shards


@settings(max_examples=100)
@given(st.integers(10_000, 10**9), st.integers(2, 2000), st.integers(1 << 16, 1 << 40))
def test_more_memory_never_shortens_codes(n, dim, memory):
    try:
        one = plan(n, dim, "cosine", {"memory": memory, "kind": "ivf_pq"})
    except RequestError as error:
        text = str(error)
        assert f"index.memory is {size_text(memory)}" in text
        remedy = text.partition("raise index.memory to ")[2].split()[0].strip(",")
        options = {"memory": setting(remedy), "kind": "ivf_pq"}
        assert plan(n, dim, "cosine", options).searcher_bytes(n) <= options["memory"]
        return
    assert one.searcher_bytes(n) <= memory
    assert (
        plan(n, dim, "cosine", {"memory": 2 * memory, "kind": "ivf_pq"}).code_bytes
        >= one.code_bytes
    )


def test_nearest_power_of_two_within_the_bounds():
    for n in (10**5, 10**6, 10**7, 10**8, 10**9, 10**10):
        nlist = plan(n, 512, "l2", MOST).nlist
        assert 4 * sqrt(n) <= nlist <= 16 * sqrt(n)
        if 4 * sqrt(n) * 1.5 < n / 3000 < 16 * sqrt(n) / 1.5:
            assert abs(log2(nlist) - log2(n / 3000)) <= 0.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"kind": "ivf_pq", "nlist": 7, "code_bytes": 5, "shards": 4, "seed": 3},
            ("ivf_pq", 7, 5, 4, 20, 4, 3),
        ),
        (
            {"kind": "ivf_pq", "nlist": 7, "code_bytes": 20, "nbits": 8},
            ("ivf_pq", 7, 20, 8, 80, 1, 0),
        ),
        ({"kind": "ivf_pq", "nlist": 7, "code_bytes": 40}, ("ivf_pq", 7, 40, 4, 80, 1, 0)),
        ({"kind": "ivf_sq"}, ("ivf_sq", 32, 100, 8, 100, 1, 0)),
        ({"kind": "ivf_sq", "nbits": 16}, ("ivf_sq", 32, 200, 16, 100, 1, 0)),
        ({"kind": "ivf_sq", "code_bytes": 200}, ("ivf_sq", 32, 200, 16, 100, 1, 0)),
        ({"kind": "exact"}, ("exact", 1, 0, 0, 100, 1, 0)),
        ({"kind": "auto", "code_bytes": None}, ("exact", 1, 0, 0, 100, 1, 0)),
    ],
)
def test_explicit_options_win(options, expected):
    spec = plan(1580, 100, "l2", options)
    assert expected == (
        spec.kind,
        spec.nlist,
        spec.code_bytes,
        spec.nbits,
        spec.rotation_dim,
        spec.shards,
        spec.seed,
    )


def test_a_short_code_of_few_dimensions_is_a_product_code():
    assert plan(10**6, 16, "l2").kind == "ivf_sq"
    assert plan(10**6, 33, "l2").kind == "ivf_pq"
    asked = plan(10**6, 16, "l2", {"code_bytes": 4})
    assert (asked.kind, asked.subquantizers, asked.rotation_dim) == ("ivf_pq", 8, 16)
    tight = plan(10**6, 16, "l2", {"memory": 16 << 20})
    assert (tight.kind, tight.code_bytes) == ("ivf_pq", 7)


def test_vectors_too_large_to_be_kept_whole_are_coded():
    assert plan(9_999, 1280, "cosine", {"memory": 60_000_000}).kind == "exact"
    assert plan(9_999, 1280, "cosine", {"memory": 30_000_000}).kind == "ivf_pq"


def test_high_targets_want_longer_codes_and_more_effort():
    usual, high = (plan(10**7, 512, "cosine", {"target_recall": target}) for target in (0.9, 0.995))
    assert (usual.code_bytes, high.code_bytes) == (32, 64)
    deeper = plan(10**6, 512, "cosine", {"target_recall": 0.97})
    assert deeper.rerank > plan(10**6, 512, "cosine", {"target_recall": 0.9}).rerank
    assert plan(10**6, 512, "cosine", {"target_recall": 1}).rerank <= codes.DEEPEST


@pytest.mark.parametrize(
    ("n", "code_bytes", "loss", "measured"),
    [
        (7_000, 32, 0.05, 33),
        (28_000, 32, 0.05, 49),
        (112_000, 32, 0.05, 75),
        (112_000, 32, 0.1, 48),
        (112_000, 32, 0.01, 177),
        (28_000, 32, 0.01, 119),
        (7_000, 64, 0.05, 19),
        (112_000, 64, 0.05, 31),
        (112_000, 64, 0.01, 63),
    ],
)
def test_guessed_depth_is_near_what_was_measured(n, code_bytes, loss, measured):
    guess = codes.depth(n, code_bytes, 1 - 2 * loss)
    assert measured / 1.6 <= guess <= measured * 1.6 + 10


@pytest.mark.parametrize(
    ("nlist", "loss", "measured"),
    [(128, 0.025, 14), (512, 0.025, 18), (1024, 0.025, 22), (2048, 0.025, 22), (1024, 0.01, 41)],
)
def test_guessed_probes_are_near_what_was_measured(nlist, loss, measured):
    assert measured / 1.5 <= codes.probes(nlist, 1 - 2 * loss) <= measured * 1.5


@pytest.mark.parametrize(
    ("n", "options", "message"),
    [
        (63, {"kind": "ivf_pq"}, "at least 64 vectors to train on, there are 63"),
        (1000, {"kind": "ivf_pq", "nlist": 801}, "nlist is 801, more than the 800 vectors to tr"),
        (1000, {"kind": "ivf_pq", "code_bytes": 16}, "code_bytes is 16, at most 15 fit 30 dim"),
        (1000, {"kind": "ivf_pq", "code_bytes": 31, "nbits": 8}, "is 31, at most 30 fit 30 dim"),
        (1000, {"nlist": 5}, "index.nlist is 5, but the index for 1,000 vectors is exact"),
        (1000, {"nbits": 4}, "index.nbits is 4, but the index for 1,000 vectors is exact"),
        (1000, {"kind": "hnsw"}, "kind must be auto, exact, ivf_sq, ivf_pq, got 'hnsw'"),
        (1000, {"kind": "ivf_pq", "nbits": 6}, "nbits is 6 for ivf_pq, but can be ivf_pq: 4 or 8"),
        (1000, {"kind": "ivf_sq", "nbits": 4}, "nbits is 4 for ivf_sq, .* ivf_sq: 8 or 16"),
        (300, {"kind": "ivf_pq", "nbits": 8}, "needs at least 256 vectors to train on.* are 240"),
        (1000, {"kind": "ivf_sq", "code_bytes": 7}, "code_bytes is 7, but scalar codes of 8 bits"),
        (
            10**9,
            {"memory": 10**9},
            "memory is 953.7 MiB, but the ids of 1,000,000,000 vectors "
            "alone have 7.5 GiB, and with 15-byte codes and 262,144 centroids .* raise .* to 22GiB",
        ),
        (10**9, {"code_bytes": 8}, "index.memory is 4.0 GiB.* lower index.code_bytes"),
        (10**9, {"kind": "ivf_sq", "memory": GIB}, "with 30-byte codes.* set index.kind: ivf_pq"),
        (10**8, {"kind": "exact"}, "exact index of 100,000,000 vectors of 30 dim.* to 12GiB"),
        (1000, {"shards": 0}, "index.shards must be a whole number from 1, got 0"),
        (1000, {"shards": 2}, "index.shards is 2, more than the 1 lists that they share"),
        (1000, {"kind": "ivf_pq", "target_recall": 0}, "target_recall must be above 0 .* got 0"),
        (1000, {"memory": "4GiB"}, "index.memory must be a whole number from 1, got '4GiB'"),
    ],
)
def test_impossible_options_are_refused_with_both_values(n, options, message):
    with pytest.raises(RequestError, match=message):
        plan(n, 30, "cosine", options)


def test_one_dimension_has_no_product_code():
    with pytest.raises(RequestError, match="at least 2 dimensions, they have 1"):
        plan(10**6, 1, "l2", {"kind": "ivf_pq"})
    assert plan(10**6, 1, "l2").kind == "ivf_sq"


def test_unknown_metric_is_refused():
    with pytest.raises(RequestError, match="got 'hamming'"):
        plan(10, 3, "hamming")


def test_reasons_carry_the_numbers():
    text = "\n".join(plan(1_000_000, 512, "cosine", {"seed": 5}).reasons)
    for words in (
        "ivf_pq: 1,000,000 vectors of 512 dimensions; 42.4 MiB of 4.0 GiB",
        "lists: 4,096 (at least 4 sqrt(n) = 4,000), 244 vectors each",
        "32 bytes, 64 parts of 4 bits, of 128 rotated components",
        "training: a sample of 262,144 vectors, 64 for each list",
        "about 30 of 4,096 lists and 220 re-ranked vectors a query for recall 0.95",
        "files of the index: 1 (one for every 16,000,000 vectors); encoded in 8 tasks",
    ):
        assert words in text
    assert "10,000, where a scan of all is fast" in plan(9_999, 100, "cosine").reasons[0]


@given(st.integers(1, 1 << 45))
def test_sizes_as_settings_are_enough_and_little_more(count):
    assert count <= setting(size_setting(count)) <= 2 * count
