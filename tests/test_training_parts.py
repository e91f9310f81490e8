"""The parts of a training: samples, splits, changed pictures, objectives, the state on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookalike.errors import RequestError
from lookalike.images.limits import ImageLimits
from lookalike.learning import fitting, gathering
from lookalike.learning.altered import COPIES
from lookalike.learning.gathering import Pictures, draw, gather
from lookalike.learning.networks import PhotoNetwork, ScratchNetwork
from lookalike.learning.objectives import Contrast, Proxies, augment
from lookalike.learning.splitting import split
from lookalike.learning.state import State
from lookalike.models import photo
from lookalike.models.golden import golden_pictures
from lookalike.models.quiet_tf import tf
from lookalike.records import SourceFile
from lookalike.sources.kinds import open_source


def listed(count: int) -> list[SourceFile]:
    return [SourceFile(f"/p/{number % 5}/{number}.png", 9, "1") for number in range(count)]


def test_a_sample_is_bounded_and_does_not_hang_on_the_order_of_the_listing() -> None:
    files = listed(200)
    label_of: Callable[[str], str | None] = lambda uri: None if "/0/" in uri else uri[3]  # noqa: E731
    some = draw(files, label_of, 30, 7)
    assert (len(some.files), some.listed) == (30, 160)
    assert [file.uri[3] for file in some.files] == list(some.labels)
    assert draw(reversed(files), label_of, 30, 7) == some
    more = {file.uri for file in draw(files, label_of, 60, 7).files}
    assert more > {file.uri for file in some.files}
    assert draw(files, label_of, 30, 8).files != some.files
    assert draw(files, None, 300, 7).labels == ("",) * 200
    again = draw(files, lambda uri: "x" if label_of(uri) else None, 30, 7)
    assert again.files == some.files
    assert again.fingerprint != some.fingerprint


def test_pictures_are_decoded_once_and_what_is_none_is_counted(
    tmp_path: Path, pictures: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "_PART", 3)
    folder = pictures(7)
    (folder / "again.jpg").write_bytes((folder / "003.jpg").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (folder / "notes.json").write_text("{}")
    sample = draw(open_source(str(folder)).files(print), lambda uri: Path(uri).name, 100, 0)
    told: list[int] = []
    found = gather(sample, 16, tmp_path / "work", ImageLimits(), told.append)
    assert len(found.labels) == 7
    assert found.failed == {"duplicate": 1, "rejected truncated": 1, "ignored no_image": 1}
    assert told == [3, 6, 9, 10]
    every = np.arange(7)
    for row, name in enumerate(found.labels):
        source = "003.jpg" if name == "again.jpg" else name
        right = np.asarray(Image.open(folder / source).resize((16, 16), Image.Resampling.HAMMING))
        assert np.abs(found.take(every)[row].astype(int) - right).mean() < 3
    backward = found.take(every[::-1])
    assert np.array_equal(backward, found.take(every)[::-1])
    assert not isinstance(found.parts[0].base, np.ndarray)  # mapped, and not a copy
    for path in folder.iterdir():  # nothing is read again, and a lost part is
        path.unlink()
    again = gather(sample, 16, tmp_path / "work", ImageLimits())
    assert again.labels == found.labels
    assert again.failed == found.failed
    (tmp_path / "work" / "pictures" / "00000.json").unlink()
    fewer = gather(sample, 16, tmp_path / "work", ImageLimits())
    assert fewer.failed["rejected unreadable"] == 3


def test_labels_held_out_are_not_learned() -> None:
    labels = [str(number % 12) for number in range(120)] + ["alone"]
    found = split(labels, 121, 10, 3)
    learned = {labels[row] for row in found.rows.tolist()}
    held = {labels[row] for row in found.held.rows.tolist()}
    assert (found.kinds, len(learned), len(held)) == (8, 8, 4)
    assert not learned & held
    assert "alone" not in learned | held
    one, other = found.held.halves
    assert set(one.labels[one.queries].tolist()).isdisjoint(other.labels[other.queries].tolist())
    assert len(one.queries) + len(other.queries) == len(found.held.rows) == 40
    for kind in range(found.kinds):
        rows = found.rows[found.starts[kind] : found.starts[kind + 1]]
        assert len({labels[row] for row in rows.tolist()}) == 1
    with pytest.raises(RequestError, match="7 labels have two pictures or more, and it takes 8"):
        split([str(number % 7) for number in range(50)] + ["alone"], 51, 10, 0)
    with pytest.raises(RequestError, match="k must be at least 1, got 0"):
        split(labels, 121, 0, 0)


def test_without_labels_pictures_are_held_out_and_copies_ask() -> None:
    found = split(None, 60, COPIES, 0)
    assert (len(found.rows), len(found.held.rows), found.kinds) == (45, 15, 45)
    assert not set(found.rows.tolist()) & set(found.held.rows.tolist())
    assert len(found.held.halves[0].rows) == 15 * (COPIES + 1)
    pictures = Pictures(
        (np.random.default_rng(0).integers(0, 256, (60, 20, 20, 3), np.uint8),),
        ("",) * 60,
        gathering.Counter(),
    )
    batches = list(found.held.batches(pictures, (16, 16)))
    assert [len(one) for one in batches] == [70, 35]  # whole pictures with their copies
    assert batches[0].dtype == np.uint8
    assert batches[0].shape[1:] == (16, 16, 3)
    with pytest.raises(RequestError, match="19 pictures can be read, and it takes 20"):
        split(None, 19, COPIES, 0)


def test_a_batch_is_that_of_its_seed_and_of_whole_kinds() -> None:
    labels = [str(number // 5) for number in range(50)] + ["few"] * 2
    found = split(labels, 52, 10, 0)
    rows, kinds = found.batch(4, 4, (0, 1))
    assert len(np.unique(kinds)) == 4
    assert all(
        len({labels[row] for row in rows[kinds == kind].tolist()}) == 1 for kind in np.unique(kinds)
    )
    assert len(set(rows.tolist())) >= 14  # none twice, but of a kind with two
    again, other = found.batch(4, 4, (0, 1)), found.batch(4, 4, (0, 2))
    assert np.array_equal(rows, again[0])
    assert not np.array_equal(rows, other[0])
    assert len(found.batch(99, 2, (0, 1))[0]) == 2 * found.kinds


def test_changed_pictures_are_those_of_their_seed_and_stay_pictures() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), np.uint8)
    first = augment(tf.constant(pixels), (16, 12), 0.4, tf.constant([0, 1])).numpy()
    assert first.shape == (6, 16, 12, 3)
    assert 0 <= first.min() <= first.max() <= 255
    assert np.array_equal(first, augment(tf.constant(pixels), (16, 12), 0.4, tf.constant([0, 1])))
    assert not np.array_equal(
        first, augment(tf.constant(pixels), (16, 12), 0.4, tf.constant([0, 2]))
    )
    # a ramp stays one, rising or, mirrored, falling
    ramp = np.broadcast_to(np.arange(40, 200, 4, dtype=np.uint8)[None, None, :, None], pixels.shape)
    found = augment(tf.constant(ramp), (16, 16), 0.4, tf.constant([0, 3])).numpy().mean(axis=(1, 3))
    steps = np.sign(np.diff(found, axis=1))
    assert {tuple(set(row.tolist())) for row in steps} == {(1.0,), (-1.0,)}


def test_objectives_are_those_of_the_papers() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((8, 5)).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kinds = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    directions = rng.standard_normal((4, 5)).astype("f4")
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    scores = np.exp(10.0 * vectors @ unit.T)
    right = -np.log(scores[np.arange(8), kinds] / scores.sum(axis=1)).mean()
    given = tf.constant(vectors), tf.constant(kinds), tf.constant(vectors[:, ::-1])
    found = Proxies(directions).loss(*given)
    assert float(found) == pytest.approx(right, rel=1e-4)
    each = np.exp(10.0 * vectors @ vectors.T)
    np.fill_diagonal(each, 0)
    partner = np.arange(8) ^ 1
    right = -np.log(each[np.arange(8), partner] / each.sum(axis=1)).mean()
    assert float(Contrast().loss(*given)) == pytest.approx(right, rel=1e-4)
    # what the teacher sees alike shall stay so
    assert float(Contrast(lambda views: views).loss(*given)) == pytest.approx(right, rel=1e-4)
    other = np.random.default_rng(1).standard_normal((8, 5))
    unit = other / np.linalg.norm(other, axis=1, keepdims=True)
    kept = 10 * ((vectors @ vectors.T - unit @ unit.T) ** 2).mean()
    taught = Contrast(lambda _: tf.constant(other, tf.float32)).loss(*given)
    assert float(taught) == pytest.approx(right + kept, rel=1e-4)


def test_proxies_begin_where_a_network_that_knows_something_sees_their_kind() -> None:
    network, rng = ScratchNetwork(0), np.random.default_rng(0)
    size = network.size
    pictures = Pictures(
        (rng.integers(0, 256, (40, *size, 3), np.uint8),), ("",) * 40, gathering.Counter()
    )
    found = split([str(row % 8) for row in range(40)], 40, 10, 0)
    begun = fitting._directions(network, network.dim, pictures, found, 0)
    assert begun.shape == (4, 256)
    seen = network.vectors(iter([pictures.take(found.rows)]))
    np.testing.assert_allclose(begun, seen.reshape(4, 5, 256).mean(axis=1), atol=1e-4)
    drawn = fitting._directions(None, network.dim, pictures, found, 0)
    assert np.array_equal(drawn, fitting._directions(None, 256, pictures, found, 0))


def test_each_half_is_measured_at_the_moment_that_the_other_finds_best() -> None:
    judged = [[np.array([a]), np.array([b])] for a, b in ((0.1, 0.2), (0.9, 0.3), (0.4, 0.8))]
    one, other = fitting._crossed(judged)
    assert (one.tolist(), other.tolist()) == ([0.4], [0.3])


def test_the_state_on_disk_is_all_of_it(tmp_path: Path) -> None:
    assert State.load(tmp_path) is None
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype("f4") for shape in ((3,), (), (2, 2))]
    state = State(
        7,
        1.5,
        [0, 7],
        [[np.zeros(2), np.ones(3)], [np.ones(2), np.ones(3)]],
        [*arrays, np.int64(4)],
        arrays[:2],
        arrays[1:],
    )
    state.save(tmp_path)
    found = State.load(tmp_path)
    assert found is not None
    assert (found.step, found.seconds, found.steps) == (7, 1.5, [0, 7])
    assert found.scores == state.scores == [0.6, 1.0]
    for name in ("current", "mean", "best"):
        pairs = zip(getattr(found, name), getattr(state, name), strict=True)
        assert all(np.array_equal(one, other) and one.dtype == other.dtype for one, other in pairs)


def test_the_network_to_be_trained_is_the_shipped_one() -> None:
    network = PhotoNetwork()
    pixels = golden_pictures(network.size)[:4]
    modules = {name: module(tf.constant(pixels)).numpy() for name, module in network.modules()}
    right = photo.build()(tf.constant(pixels)).numpy()  # from weights in float64, not float32
    cosines = (modules["8 bits"] * right).sum(axis=1)
    cosines /= np.linalg.norm(modules["8 bits"], axis=1) * np.linalg.norm(right, axis=1)
    assert cosines.min() > 0.999
    np.testing.assert_allclose(network.vectors(iter([pixels])), modules["float32"], atol=1e-3)
    learned = {one.path.split("/")[-2] for one in network.model.trainable_variables}
    assert "head" in learned
    assert "stem" not in learned
