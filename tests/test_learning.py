"""Weights and projections learned from vectors made so that the right answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from lookalike.errors import RequestError
from lookalike.evaluation import folder_label
from lookalike.learning import adapting
from lookalike.learning.adapting import Solver, adapt, moments
from lookalike.learning.altered import COPIES, copies
from lookalike.learning.held_out import Fold, folds_of, gain_of
from lookalike.learning.labelled import OTHER, Labelled, read_labelled, sample_by_label
from lookalike.learning.tuning import grid, tune
from lookalike.models.conversion import rescale
from lookalike.models.fusing import fuse
from lookalike.models.projection import project
from lookalike.pipelines.config import parse_config
from lookalike.pipelines.learn import config_text
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests.test_evaluation import make_store

Vectors = npt.NDArray[np.float32]


def unit(vectors: npt.NDArray[Any]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def kinds(classes: int, each: int, dim: int, noise: npt.NDArray[Any], seed: int = 0) -> Labelled:
    """Vectors of kinds that differ in all directions alike, with noise that does not."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = 0.3 * rng.standard_normal((classes, dim)) + 1
    vectors = centres[labels] + noise * rng.standard_normal((len(labels), dim))
    order = rng.permutation(len(labels))
    return Labelled(unit(vectors[order]), labels[order], len(labels))


def plain_precision(vectors: Vectors, labels: list[int], k: int) -> float:
    """One query and one neighbour at a time."""
    found = []
    for query in range(len(labels)):
        near = sorted(
            (float(-(vectors[query].astype(float) @ vectors[row].astype(float))), row)
            for row in range(len(labels))
            if row != query
        )
        found.append(sum(labels[row] == labels[query] for _, row in near[:k]) / k)
    return float(np.mean(found))


# --- samples ------------------------------------------------------------------------------------


def test_of_a_store_the_living_rows_whose_label_another_has_are_read(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((400, 5)))
    uris = [f"/pictures/{'alone' if row == 7 else row % 30}/{row}.png" for row in range(400)]
    manifest = make_store(tmp_path, vectors, uris, "cosine")
    record = write_tombstones(open_store(tmp_path), "dead.npy", np.array([3, 1 << 32 | 4]))
    manifest["files"].append({**record.to_json(), "kind": "tombstones"})
    manifest["dim"] = 5
    found = read_labelled(open_store(tmp_path), manifest, folder_label)
    living = [row for row in range(400) if row not in (3, 154)]  # 154: the second file's fourth
    assert np.array_equal(found.vectors, vectors[[row for row in living if row != 7]])
    labels = [folder_label(uris[row]) for row in living if row != 7]
    pairs = set(zip(labels, found.labels.tolist(), strict=True))
    assert len(pairs) == 30 == found.classes
    assert found.of == 398
    few = read_labelled(open_store(tmp_path), manifest, folder_label, most_bytes=100 * 20)
    assert 60 <= len(few.vectors) <= 100
    assert few.classes == 30
    with pytest.raises(RequestError, match="398 images have a label and no two share one"):
        read_labelled(open_store(tmp_path), manifest, lambda uri: uri)
    with pytest.raises(RequestError, match=r"^0 images have a label"):
        read_labelled(open_store(tmp_path), manifest, lambda _: None)


@pytest.mark.parametrize(
    ("sizes", "most", "right"),
    [
        ([5, 1, 9], 100, [5, 0, 9]),  # all but what is alone
        ([1000, 4, 2], 30, [None, 4, 2]),  # the largest gives way
        ([2] * 100, 50, [None] * 100),  # too many labels: whole pairs of some
        ([], 10, []),
        ([1, 1], 10, [0, 0]),
    ],
)
def test_samples_are_even_and_never_of_one_image_of_a_label(
    sizes: list[int], most: int, right: list[int | None]
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(1).permutation(np.concatenate([labels, [OTHER] * 3])).astype(int)
    chosen = sample_by_label(labels, most)
    counts = np.bincount(labels[chosen], minlength=len(sizes)) if chosen.any() else []
    assert chosen.sum() <= most
    assert not chosen[labels == OTHER].any()
    assert 1 not in list(counts)
    for count, wanted in zip(counts, right, strict=False):
        assert wanted is None or count == wanted
    if len(sizes) == 100:
        assert chosen.sum() == 50


# --- held out -----------------------------------------------------------------------------------


def test_precision_is_that_of_a_plain_loop_and_folds_share_no_label() -> None:
    data = kinds(12, 6, 8, np.full(8, 0.5))
    folds = folds_of(data, 4)
    seen: set[int] = set()
    for fold in folds:
        labels = data.labels[fold.rows]
        assert not seen & set(labels.tolist())
        seen |= set(labels.tolist())
        found = fold.precision(3 * data.vectors[fold.rows])  # lengths do not matter
        right = plain_precision(data.vectors[fold.rows], labels.tolist(), 4)
        assert found.mean() == pytest.approx(right)
    assert seen == set(range(12))


def test_pictures_that_are_like_none_are_wrong_answers_and_no_queries() -> None:
    vectors = unit(np.array([[1, 0], [1, 0.2], [1, 0.1], [0, 1]]))
    fold = Fold(np.arange(4), np.array([0, 1]), np.array([0, 0, OTHER, OTHER]), 1)
    assert fold.precision(vectors).tolist() == [0, 0]
    far = unit(np.array([[1, 0], [1, 0.2], [0, 1], [-1, 0]]))
    assert fold.precision(far).tolist() == [1, 1]


def test_too_few_labels_and_no_k_are_said() -> None:
    with pytest.raises(RequestError, match="7 labels have two images or more, and it takes 8"):
        folds_of(kinds(7, 3, 4, np.ones(4)), 10)
    with pytest.raises(RequestError, match="k must be at least 1, got 0"):
        folds_of(kinds(9, 3, 4, np.ones(4)), 0)


def test_the_interval_is_that_of_labels_and_not_of_queries() -> None:
    """Many queries of two labels, one that gains and one that loses, are no certain gain."""
    labels = np.repeat([0, 1], 500)
    fold = Fold(np.arange(1000), np.arange(1000), labels, 10)
    before, after = np.full(1000, 0.5), np.where(labels == 0, 1.0, 0.2)
    found = gain_of([fold], [before], [after])
    assert (found.before, found.after) == (pytest.approx(0.5), pytest.approx(0.6))
    assert (found.low, found.high) == (pytest.approx(-0.3), pytest.approx(0.5))
    assert not found.helps
    sure = gain_of([fold], [before], [before + 0.1])
    assert (sure.low, sure.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert sure.helps
    assert not gain_of([fold], [before], [before]).helps


# --- adapt --------------------------------------------------------------------------------------


def test_moments_are_those_of_numpy_and_add_up() -> None:
    data = kinds(5, 40, 6, np.linspace(0.1, 2, 6))
    labels = np.where(data.labels == 4, OTHER, data.labels)
    found = moments(data.vectors, labels)
    kept = data.vectors[labels != OTHER].astype(float)
    spread = sum(
        160 / 4 * np.cov(data.vectors[labels == label].T.astype(float), bias=True)
        for label in range(4)
    )
    assert found.rows == 160
    np.testing.assert_allclose(found.total, kept.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.squares, kept.T @ kept, atol=1e-4)
    np.testing.assert_allclose(found.within, spread, atol=1e-4)
    first, second = labels < 2, labels >= 2
    both = moments(data.vectors[first], labels[first]) + moments(
        data.vectors[second], labels[second]
    )
    np.testing.assert_allclose(both.within, found.within, atol=1e-4)


def test_all_components_give_the_cosines_of_the_formula() -> None:
    """A = D (D W D + r I)^-1/2 of centred vectors, by way of another decomposition."""
    data = kinds(10, 30, 7, np.linspace(0.1, 1, 7))
    sums = moments(data.vectors, data.labels)
    solver = Solver(sums, [4, 3])
    spread = sums.within / sums.rows
    mean = np.repeat([np.trace(spread[:4, :4]) / 4, np.trace(spread[4:, 4:]) / 3], [4, 3])
    inverse = np.linalg.inv(spread + 3 * np.diag(mean))  # A A^T
    apart = data.vectors.astype(float) - sums.total / sums.rows
    products = apart @ inverse @ apart.T
    lengths = np.sqrt(np.diag(products))
    found = project(solver.matrix(3.0, 7), data.vectors)
    np.testing.assert_allclose(found @ found.T, products / np.outer(lengths, lengths), atol=1e-4)
    fewer = solver.matrix(3.0, 2)
    assert fewer.shape == (8, 2)
    # The axes kept are those that most of what is left lies in.
    whitened = np.linalg.cholesky(inverse).T @ apart.T
    share = np.sort(np.linalg.eigvalsh(whitened @ whitened.T))[::-1]
    kept = ((data.vectors @ fewer[:-1] + fewer[-1]) ** 2).sum(axis=0)
    assert kept[0] / kept[1] == pytest.approx(share[0] / share[1], rel=1e-3)


def test_noise_in_few_directions_is_learned_from_some_kinds_and_gone_from_others() -> None:
    noise = np.where(np.arange(24) < 4, 4.0, 0.15)
    data, unseen = kinds(24, 12, 24, noise, 0), kinds(30, 12, 24, noise, 1)
    found = adapt(data, [12, 12])
    assert found.gain.helps
    assert found.matrix.dtype == np.float32
    assert found.matrix.shape == (25, found.components)
    assert (found.images, found.classes) == (288, 24)
    before = plain_precision(unseen.vectors, unseen.labels.tolist(), 10)
    after = plain_precision(project(found.matrix, unseen.vectors), unseen.labels.tolist(), 10)
    assert after - before > 0.3
    assert found.gain.after - found.gain.before == pytest.approx(after - before, abs=0.25)
    again = adapt(data, [12, 12])
    assert np.array_equal(found.matrix, again.matrix)
    assert adapt(data, [12, 12], components=5).matrix.shape == (25, 5)


def test_where_labels_mean_nothing_there_is_no_gain_for_certain() -> None:
    rng = np.random.default_rng(0)
    data = Labelled(unit(rng.standard_normal((300, 10))), rng.permutation(np.arange(300) % 20), 300)
    assert not adapt(data, [10]).gain.helps
    assert not tune(data, [4, 6], [1, 1], "cosine").gain.helps


def test_equal_images_are_nothing_to_learn_from() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((10, 6)))
    data = Labelled(np.repeat(vectors, 4, axis=0), np.repeat(np.arange(10), 4), 40)
    with pytest.raises(RequestError, match="one and the same vector"):
        adapt(data, [6])


def test_a_block_of_zeros_is_left_alone() -> None:
    data = kinds(12, 8, 10, np.full(10, 0.3))
    vectors = np.concatenate([data.vectors, np.zeros((len(data.vectors), 3), np.float32)], axis=1)
    found = adapt(Labelled(vectors, data.labels, len(vectors)), [10, 3])
    assert np.isfinite(found.matrix).all()


def test_fewer_components_are_taken_where_they_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adapting, "COMPONENTS", (2, 4, 8))
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 10)
    centres = np.concatenate([rng.standard_normal((40, 4)), np.zeros((40, 12))], axis=1)
    vectors = unit(centres[labels] + 0.1 * rng.standard_normal((400, 16)))
    assert adapt(Labelled(vectors, labels, 400), [16]).components in (4, 8)


# --- tune ---------------------------------------------------------------------------------------


def test_the_grid_has_every_weight_above_zero_and_a_sum_of_one() -> None:
    assert len(grid(2)) == 19
    for features in range(2, 9):
        choices = grid(features)
        assert len(choices) == len(set(choices)) < 400
        assert all(min(choice) > 0 for choice in choices)
        np.testing.assert_allclose([sum(choice) for choice in choices], 1)


def hybrid(good: int, weights: list[float]) -> tuple[Labelled, list[npt.NDArray[np.float32]]]:
    """Three blocks, of which one knows the labels."""
    rng = np.random.default_rng(good)
    data = kinds(20, 10, 8, np.full(8, 0.25))
    blocks = [rng.standard_normal((200, dim)).astype("f4") for dim in (5, 7, 6)]
    blocks[good] = 7 * (data.vectors - data.vectors.mean(axis=0))
    return Labelled(fuse(blocks, weights, "cosine")[0], data.labels, 200), blocks


@pytest.mark.parametrize("good", [0, 1, 2])
def test_the_feature_that_knows_the_labels_gets_the_weight(good: int) -> None:
    weights = [1.0, 1.0, 1.0]
    data, blocks = hybrid(good, weights)
    dims = [block.shape[1] for block in blocks]
    found = tune(data, dims, weights, "cosine", 5)
    assert found.gain.helps
    assert int(np.argmax(found.weights)) == good
    assert found.weights[good] >= 0.6
    everything = dict(found.tried)
    assert everything[found.weights] == max(everything.values())


def test_of_weights_that_are_as_good_the_nearest_to_those_there_are_stays() -> None:
    data = kinds(10, 6, 4, np.full(4, 0.01))
    twice = fuse([data.vectors, data.vectors], [0.7, 0.3], "cosine")[0]
    found = tune(Labelled(twice, data.labels, 60), [4, 4], [7, 3], "cosine", 5)
    assert found.weights == pytest.approx((0.7, 0.3))
    assert not found.gain.helps
    with pytest.raises(RequestError, match="single feature"):
        tune(data, [4], [1.0], "cosine")


def test_rescaled_vectors_are_those_that_the_weights_would_have_made() -> None:
    rng = np.random.default_rng(5)
    blocks = [rng.standard_normal((50, dim)).astype("f4") for dim in (3, 6, 4)]
    blocks[0][:5] = 0  # found nothing there
    blocks[1][3:9] = 0
    old, _ = fuse(blocks, [0.5, 0.3, 0.2], "cosine")
    new, _ = fuse(blocks, [0.1, 2.0, 0.4], "cosine")
    found = rescale(old, [3, 6, 4], [0.1, 2.0, 0.4], "cosine")
    np.testing.assert_allclose(found, new, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_the_config_written_is_the_snapshots_but_for_the_weights() -> None:
    asked = [
        {
            "name": "a: b",
            "handle": "builtin:photo",
            "weight": 0.7,
            "signature": None,
            "output": "o",
            "input_size": [32, 64],
        },
        {
            "name": "low",
            "handle": "builtin:color-texture",
            "weight": 0.3,
            "signature": None,
            "output": None,
            "input_size": None,
            "options": {},
        },
        {
            "name": "onnx",
            "handle": "m.onnx",
            "weight": 1.0,
            "signature": None,
            "output": None,
            "input_size": None,
            "options": {"mean": [1, 2, 3], "layout": "NCHW"},
        },
        {
            "name": "own",
            "handle": "python:mine:edges",
            "weight": 1.0,
            "signature": None,
            "output": None,
            "input_size": None,
            "options": {"params": {"bins": 4}},
        },
    ]
    index = {"kind": "exact", "queries": 50}
    request = {
        "models": asked,
        "index": index,
        "dtype": "float16",
        "images": {"max_frames": 7},
        "selection": {"exclude": ["cache/"], "hidden": False},
    }
    manifest = {"name": "20260101T000000Z-abc", "metric": "cosine", "request": request}
    fold = Fold(np.arange(2), np.arange(2), np.array([0, 1]), 10)
    gain = gain_of([fold], [np.zeros(2)], [np.ones(2)])
    weights = (0.25, 0.5, 0.125, 0.125)
    text = config_text(manifest, [], weights, gain)
    config = parse_config(yaml.safe_load(text), [])
    assert tuple(one.weight for one in config.features) == weights
    assert [one.name for one in config.features] == ["a: b", "low", "onnx", "own"]
    assert [one.options for one in config.features[1:]] == [one["options"] for one in asked[1:]]
    assert (config.selection.exclude, config.selection.hidden) == (("cache/",), False)
    assert (config.features[0].output, config.features[0].input_size) == ("o", (32, 64))
    assert (config.index, config.dtype, config.limits.max_frames) == (index, "float16", 7)


# --- without labels -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (60, 40)])
def test_altered_copies_are_pictures_of_their_own_and_the_same_each_time(
    size: tuple[int, int],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = list(copies(pixels, 3))
    assert len(found) == COPIES + 1
    assert found[0] is pixels
    for one, again in zip(found, copies(pixels, 3), strict=True):
        assert one.dtype == np.uint8
        assert one.ndim == 3
        assert min(one.shape) > 0
        assert np.array_equal(one, again)
    if size == (60, 40):
        assert found[1].shape == (48, 32, 3)
        assert np.array_equal(found[3][:, ::-1], pixels)
        assert found[4].mean() < pixels.mean() < found[5].mean()
        assert found[6].std() < pixels.std()
