from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.models import features
from lookalike.models.embedder import Embedder
from lookalike.models.features import Feature
from lookalike.models.fusing import fuse
from lookalike.models.inspection import inspect
from lookalike.models.saved_model import ModelInfo

finite = st.floats(-1e3, 1e3, width=32, allow_nan=False).map(lambda x: x if abs(x) > 1e-3 else 0.0)
weight = st.floats(1e-3, 1e3)


@st.composite
def hybrids(draw: Any) -> tuple[list[np.ndarray], list[float]]:
    rows = draw(st.integers(1, 5))
    dims = draw(st.lists(st.integers(1, 6), min_size=2, max_size=4))
    blocks = [draw(hnp.arrays(np.float32, (rows, dim), elements=finite)) for dim in dims]
    return blocks, [draw(weight) for _ in dims]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


@given(hybrids(), st.sampled_from(METRICS[:3]))
def test_inner_product_of_hybrids_is_the_weighted_mean_of_cosines(hybrid: Any, metric: str) -> None:
    blocks, weights = hybrid
    fused, ok = fuse(blocks, weights, metric)
    whole = np.all([(block != 0).any(axis=1) for block in blocks], axis=0)
    assert ok[whole].all()
    for i in np.flatnonzero(whole):
        for j in np.flatnonzero(whole):
            terms = [w * cosine(b[i], b[j]) for w, b in zip(weights, blocks, strict=True)]
            assert fused[i] @ fused[j] == pytest.approx(sum(terms) / sum(weights), abs=1e-5)


@given(hybrids())
def test_usable_rows_have_unit_length_and_the_others_are_zero(hybrid: Any) -> None:
    blocks, weights = hybrid
    fused, ok = fuse(blocks, weights, "cosine")
    assert fused.dtype == np.float32
    assert fused.shape == (len(blocks[0]), sum(b.shape[1] for b in blocks))
    assert np.array_equal(ok, np.any([(b != 0).any(axis=1) for b in blocks], axis=0))
    np.testing.assert_allclose(np.linalg.norm(fused[ok], axis=1), 1, atol=1e-6)
    assert not fused[~ok].any()


@given(hybrids(), st.floats(1e-3, 1e3))
def test_only_shares_of_weights_and_directions_of_blocks_matter(hybrid: Any, by: float) -> None:
    blocks, weights = hybrid
    fused, _ = fuse(blocks, weights, "cosine")
    longer = [blocks[0] * np.float32(1024), *blocks[1:]]
    again, _ = fuse(longer, [w * by for w in weights], "cosine")
    np.testing.assert_allclose(again, fused, atol=1e-6)


def test_a_zero_block_leaves_its_weight_to_the_others() -> None:
    colour = np.array([[0, 0], [3, 4]], np.float32)
    deep = np.array([[5, 0], [0, 2]], np.float32)
    fused, ok = fuse([colour, deep], [1, 3], "cosine")
    assert ok.all()
    np.testing.assert_allclose(fused[0], [0, 0, 1, 0], atol=1e-7)
    np.testing.assert_allclose(fused[1], [0.3, 0.4, 0, math.sqrt(0.75)], atol=1e-7)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_or_zero_are_reported(metric: str, value: float) -> None:
    block = np.array([[1, 2], [value, 1], [0, 0], [3, 0]], np.float32)
    for blocks in ([block], [block, np.zeros((4, 1), np.float32)]):
        fused, ok = fuse(blocks, [1.0] * len(blocks), metric)
        assert ok.tolist() == [True, False, False, True]
        assert np.isfinite(fused).all()
        assert not fused[~ok].any()


@pytest.mark.parametrize("metric", ["inner_product", "l2", "jaccard"])
def test_one_feature_passes_as_it_is(metric: str) -> None:
    block = np.array([[1, 2], [0.5, 0]], np.float32)
    fused, ok = fuse([block], [7], metric)
    assert np.array_equal(fused, block)
    assert ok.all()


def test_jaccard_has_no_use_for_negative_values() -> None:
    _, ok = fuse([np.array([[1, -1], [1, 0]], np.float32)], [1], "jaccard")
    assert ok.tolist() == [False, True]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-38, 1e-30, 1e30, 3e38])
def test_extreme_lengths_neither_overflow_nor_vanish(size: float) -> None:
    fused, ok = fuse([np.array([[size, size]], np.float32)], [1], "cosine")
    assert ok.all()
    np.testing.assert_allclose(fused, [[math.sqrt(0.5)] * 2], rtol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["l2", "inner_product"])
def test_a_vector_whose_squares_overflow_cannot_be_used(metric: str) -> None:
    block = np.array([[1e15, 1e15], [3e38, 3e38], [1e14, 1e14]], np.float32)
    fused, ok = fuse([block], [1], metric)
    assert ok.tolist() == [False, False, True]
    assert np.array_equal(fused, [[0, 0], [0, 0], block[2]])
    assert fuse([block, block], [1, 2], metric)[1].all()  # a hybrid has unit length


def test_no_rows() -> None:
    fused, ok = fuse([np.empty((0, 3), np.float32)] * 2, [1, 2], "cosine")
    assert fused.shape == (0, 6)
    assert ok.shape == (0,)


# --- value objects and fingerprints -----------------------------------------------------------

INFO = ModelInfo((8, 8), 4, "default", "pooled")


def feature(name: str = "deep", **changes: Any) -> Feature:
    whole = Feature(name, "somewhere", 0.5, "ab" * 32, INFO, "models/" + "ab" * 32)
    return replace(whole, **changes)


def test_json_round_trip() -> None:
    import json

    assert Feature.from_json(json.loads(json.dumps(feature().to_json()))) == feature()


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
def test_weights_are_positive_and_finite(wrong: float) -> None:
    with pytest.raises(RequestError, match="'deep' must be a positive number, not"):
        feature(weight=wrong)


def test_features_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(RequestError, match="used more than once: deep"):
        features.check([feature(), feature()], "cosine")
    with pytest.raises(RequestError, match="no feature"):
        features.check([], "cosine")
    with pytest.raises(RequestError, match="not 'hamming'"):
        features.check([feature()], "hamming")
    with pytest.raises(RequestError, match="needs a name"):
        feature(name="")


def test_model_fingerprint_covers_what_vectors_depend_on() -> None:
    low, deep = feature("low"), feature()
    known = features.model_fingerprint([low, deep], "cosine")
    assert len(known) == 64

    def same(*changed: Feature, metric: str = "cosine") -> bool:
        return features.model_fingerprint(changed, metric) == known

    assert same(low, replace(deep, name="other", handle="elsewhere", folder="moved"))
    assert same(replace(low, weight=3.0), replace(deep, weight=3.0))
    assert same(low, deep, metric="l2")  # a hybrid's blocks are brought to unit length anyway
    assert not same(low)
    assert not same(low, replace(deep, weight=0.6))
    assert not same(low, replace(deep, fingerprint="cd" * 32))
    for change in ({"signature": "x"}, {"output": "x"}, {"dim": 5}, {"pooled": True}):
        assert not same(low, replace(deep, info=replace(INFO, **change)))


def test_shares_of_weights_decide_whatever_their_rounding() -> None:
    third = [feature("a", weight=0.1), feature("b", weight=0.2)]
    whole = [feature("a", weight=1.0), feature("b", weight=2.0)]
    prints = {features.model_fingerprint(each, "cosine") for each in (third, whole)}
    assert len(prints) == 1


def test_a_raw_and_a_unit_vector_have_different_fingerprints() -> None:
    prints = [features.model_fingerprint([feature()], metric) for metric in METRICS]
    assert prints[0] != prints[1] == prints[2] == prints[3]


def test_preprocessing_fingerprint_covers_what_pixels_depend_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lookalike.images import preparing as images

    known = features.preprocessing_fingerprint([feature()])
    assert len(known) == 64
    assert features.preprocessing_fingerprint([feature(weight=2.0, fingerprint="x")]) == known
    for change in ({"input_size": (8, 9)}, {"input_dtype": "uint8"}):
        other = feature(info=replace(INFO, **change))
        assert features.preprocessing_fingerprint([other]) != known
    monkeypatch.setitem(images.PREPROCESSING, "version", -1)
    assert features.preprocessing_fingerprint([feature()]) != known


def test_reading_a_manifest_needs_neither_tensorflow_nor_pillow() -> None:
    code = (
        "import sys; from lookalike.models import features, handles;"
        "print(sorted({'tensorflow', 'PIL', 'pyarrow', 'tensorflow_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the embedder -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Feature]]:
    """Two models in a store: mean colours at 8 by 8, and two patches of gray at 4 by 6."""
    root = tmp_path_factory.mktemp("store")
    from lookalike.models.quiet_tf import tf

    class Mean(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, images: Any) -> Any:
            return tf.reduce_mean(images, [1, 2])

    class Halves(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec([None, 4, 6, 3], tf.float32)])
        def __call__(self, images: Any) -> Any:
            left, right = tf.split(images, 2, axis=2)
            return tf.stack([tf.reduce_mean(half, [1, 2, 3]) for half in (left, right)], axis=1)

    found = []
    for name, module, share in (("mean", Mean(), 1.0), ("halves", Halves(), 3.0)):
        tf.saved_model.save(module, str(root / "models" / name))
        info = inspect(root / "models" / name)
        found.append(Feature(name, "here", share, name, info, f"models/{name}"))
    return root, found


def test_embedder_prepares_and_embeds(store: tuple[Path, list[Feature]]) -> None:
    root, found = store
    embedder = Embedder(found, root, "cosine", threads=1)
    assert embedder.sizes == ((8, 8), (4, 6))
    assert embedder.dim == 5
    assert 1 <= embedder.batch <= 64
    red = np.zeros((32, 48, 3), np.uint8)
    red[..., 0] = 255
    black = np.zeros((10, 10, 3), np.uint8)
    prepared = [embedder.prepare(red), embedder.prepare(black)]
    assert [each.shape for each in prepared[0]] == [(8, 8, 3), (4, 6, 3)]
    vectors, ok = embedder.embed(prepared)
    assert ok.tolist() == [True, False]
    expected = [0.5, 0, 0, math.sqrt(0.375), math.sqrt(0.375)]
    np.testing.assert_allclose(vectors[0], expected, atol=1e-6)
    vectors, ok = embedder.embed([])
    assert vectors.shape == (0, 5)
    assert ok.shape == (0,)


def test_features_of_one_model_share_it(store: tuple[Path, list[Feature]]) -> None:
    root, found = store
    embedder = Embedder([found[0], replace(found[0], name="again")], root, "cosine")
    assert embedder.sizes == ((8, 8),)
    assert embedder._models[0] is embedder._models[1]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_a_vector_does_not_depend_on_its_batch(
    store: tuple[Path, list[Feature]], seed: int, n: int
) -> None:
    root, found = store
    embedder = Embedder(found, root, "cosine")
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), np.uint8)
    prepared = [embedder.prepare(each) for each in pixels]
    together, _ = embedder.embed(prepared)
    alone = np.concatenate([embedder.embed([each])[0] for each in prepared])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_missing_model_is_named(store: tuple[Path, list[Feature]], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no saved_model.pb in .*models/mean"):
        Embedder(store[1], tmp_path, "cosine")
