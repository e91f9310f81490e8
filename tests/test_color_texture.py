"""The built-in descriptor: its contract, what it finds alike, and the numbers stores depend on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.models import color_texture, low_level, pixel_ops
from lookalike.models.descriptors import INPUT_SIZE
from lookalike.models.handles import BUILTINS
from lookalike.models.inspection import inspect
from lookalike.models.shipped import SHIPPED

GOLDEN = Path(__file__).parent / "golden" / "color_texture_v2.json"
SIDE = INPUT_SIZE[0]
Y, X = np.meshgrid(np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE), indexing="ij")
COLOURS = {
    "red": (0.8, 0.15, 0.1),
    "green": (0.2, 0.6, 0.15),
    "blue": (0.15, 0.25, 0.75),
    "yellow": (0.9, 0.8, 0.1),
}


@pytest.fixture(scope="module")
def describe():
    """Describe pictures, (B, H, W, 3) -> (B, DIM)."""
    module = color_texture.build()
    return lambda pictures: module(np.asarray(pictures, np.float32)).numpy()


def cosine(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


def disc(colour, center=(0.0, 0.0), radius=0.6, background=0.85):
    """Draw a disc with a shaded rim on a gray background."""
    distance = np.hypot(Y - center[0], X - center[1]) / radius
    inside = np.clip((1.0 - distance) * 10, 0, 1)[..., None]
    shaded = np.array(colour) * (1.0 - 0.4 * np.clip(distance, 0, 1) ** 2)[..., None]
    return inside * shaded + (1 - inside) * background


def square(colour, half=0.55, background=0.85):
    inside = (np.maximum(np.abs(X), np.abs(Y)) < half)[..., None]
    return np.where(inside, np.array(colour), background)


def stripes(cycles, angle, phase=0.0):
    along = X * np.cos(angle) + Y * np.sin(angle)
    wave = 0.5 + 0.35 * np.sin(np.pi * cycles * along + phase)
    return np.repeat(wave[..., None], 3, -1)


def noise(seed, grain=1):
    rough = np.random.default_rng(seed).uniform(0.2, 0.8, (SIDE // grain, SIDE // grain, 1))
    return np.repeat(np.kron(rough, np.ones((grain, grain, 1))), 3, -1)


def golden_picture():
    """Return a picture with every block at work; exact in float32 arithmetic on any machine."""
    rows, columns = np.indices((SIDE, SIDE))
    red = (rows * 2 + columns) % 256
    green = (rows ^ columns) % 128 + 64
    blue = np.where((rows // 16 + columns // 16) % 2, 200, 40)
    return (np.stack([red, green, blue], -1) / 256).astype(np.float32)


EDGE_CASES = {
    "black": np.zeros((SIDE, SIDE, 3)),
    "white": np.ones((SIDE, SIDE, 3)),
    "gray": np.full((SIDE, SIDE, 3), 0.5),
    "red": np.broadcast_to([1.0, 0.0, 0.0], (SIDE, SIDE, 3)),
    "colour noise": np.random.default_rng(1).uniform(size=(SIDE, SIDE, 3)),
    "one bright pixel": np.eye(SIDE)[..., None] * np.eye(SIDE)[:, :1, None] * np.ones(3),
    "outside the range": np.random.default_rng(2).uniform(-1, 2, (SIDE, SIDE, 3)),
}


@pytest.mark.parametrize("name", EDGE_CASES)
def test_every_picture_has_a_finite_non_negative_vector(describe, name):
    vectors = describe([EDGE_CASES[name]])
    assert vectors.shape == (1, color_texture.DIM)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert (vectors >= 0).all()
    assert 0.9 < np.linalg.norm(vectors) < 1.0001


def test_a_picture_with_every_block_has_unit_length(describe):
    assert np.linalg.norm(describe([golden_picture()])) == pytest.approx(1.0, abs=1e-5)
    assert sum(color_texture.WEIGHTS.values()) == pytest.approx(1.0)


def test_flat_pictures_are_told_apart_by_colour(describe):
    flat = [np.broadcast_to(c, (SIDE, SIDE, 3)) for c in COLOURS.values()]
    similar = cosine(describe(flat))
    # Patterns and energies are the same, of nothing; colours have nothing in common.
    weight = color_texture.WEIGHTS
    same = weight["pattern"] + weight["energy"]
    apart = same / (same + weight["pairs"])
    assert similar[~np.eye(len(flat), dtype=bool)].max() == pytest.approx(apart, abs=0.01)


def test_batch_neighbours_do_not_matter(describe):
    pictures = [disc(COLOURS["red"]), noise(3), stripes(8, 0.3), EDGE_CASES["black"]]
    together = describe(pictures)
    alone = np.concatenate([describe([p]) for p in pictures])
    np.testing.assert_allclose(together, alone, atol=2e-6)
    np.testing.assert_array_equal(together, describe(pictures))


def test_empty_batch(describe):
    assert describe(np.zeros((0, SIDE, SIDE, 3))).shape == (0, color_texture.DIM)


def test_mirror_image_stays_close_and_only_shape_moves(describe):
    picture = golden_picture()
    there, back = describe([picture, picture[:, ::-1]])
    before_shape = color_texture.DIM - low_level.SHAPE_GRID**2 * low_level.DIRECTIONS
    np.testing.assert_allclose(there[:before_shape], back[:before_shape], atol=1e-4)
    assert np.abs(there[before_shape:] - back[before_shape:]).max() > 1e-3


def test_a_small_change_of_light_is_a_small_change(describe):
    picture = disc(COLOURS["green"])
    same, darker, other = cosine(describe([picture, picture * 0.97, disc(COLOURS["red"])]))[0]
    assert same == pytest.approx(1.0, abs=1e-5)
    assert darker > 0.99
    assert other < 0.7


def test_colour_groups(describe):
    places = [(0.0, 0.0), (0.15, -0.1), (-0.2, 0.1)]
    pictures = [
        disc(c, p, r)
        for c in COLOURS.values()
        for p, r in zip(places, (0.6, 0.5, 0.7), strict=True)
    ]
    assert_grouped(describe(pictures), 3)


def test_texture_groups(describe):
    groups = [[noise(seed, grain) for seed in range(3)] for grain in (2, 8)]
    groups.append([stripes(12, 0.0, phase) for phase in (0.0, 1.0, 2.0)])
    assert_grouped(describe([picture for group in groups for picture in group]), 3)


def test_orientation_groups(describe):
    angles = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
    pictures = [stripes(9, angle, phase) for angle in angles for phase in (0.0, 1.0, 2.0)]
    assert_grouped(describe(pictures), 3)


def test_shape_decides_among_pictures_of_one_colour(describe):
    red = COLOURS["red"]
    pictures = [disc(red, radius=r) for r in (0.58, 0.62)] + [square(red, h) for h in (0.53, 0.56)]
    assert_grouped(describe(pictures), 2)


def assert_grouped(vectors, size):
    """Check that each picture is closer to all of its group than to any other picture."""
    similar = cosine(vectors)
    for i, row in enumerate(similar):
        own = np.arange(len(row)) // size == i // size
        assert row[own].min() > row[~own].max(), f"picture {i} is closer to another group"


def test_bins_share_each_value_whole():
    values = np.linspace(-1.0, 1.0, 401, dtype=np.float32)[None]
    for shares in (
        pixel_ops.soft_bins(values, -0.5, 0.7, 7),
        pixel_ops.circular_bins(values, 8),
        pixel_ops.knot_bins(np.abs(values), low_level.CHROMA_KNOTS),
    ):
        np.testing.assert_allclose(shares.numpy().sum(1), 1.0, atol=1e-5)
        assert (shares.numpy() > 0).sum(1).max() <= 2
    turned = pixel_ops.circular_bins(values + np.float32(1.0) * (values < 0), 8).numpy()
    np.testing.assert_allclose(turned, pixel_ops.circular_bins(values, 8).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("exponent", "lowest", "roots"),
    [(2.4, 0.055 / 1.055, 1), (1 / 3, pixel_ops.DARK_TOE, 2)],
    ids=["light", "cube root"],
)
def test_powers_by_polynomials(exponent, lowest, roots):
    values = np.linspace(lowest, 1.0 + pixel_ops.DARK_TOE, 10_001, dtype=np.float32)
    found = pixel_ops.power(values, exponent, lowest, roots).numpy()
    np.testing.assert_allclose(found, values.astype(np.float64) ** exponent, atol=5e-7)


def test_angles_are_those_of_atan2():
    sides = [0.0, 1.0, -1.0, 3e-4, -2.5, 1e-20]
    x, y = (axis.ravel().astype(np.float32) for axis in np.meshgrid(sides, sides))
    expected = np.arctan2(y.astype(np.float64), x) / (2 * np.pi)
    found = pixel_ops.turns(y, x).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_oklab_of_known_colours():
    # Reference values of Ottosson's definition for sRGB white, red and blue.
    rgb = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1]], np.float32).T[None]
    expected = [[1.0, 0.0, 0.0], [0.628, 0.225, 0.126], [0.452, -0.032, -0.312]]
    square = np.pad(rgb, [(0, 0), (0, 0), (0, 1)]).reshape(1, 3, 2, 2)
    lab = pixel_ops.oklab(square).numpy().reshape(3, 4)[:, :3].T
    # The dark toe moves saturated colours a little.
    np.testing.assert_allclose(lab, expected, atol=0.02)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), low=st.floats(0, 1), high=st.floats(0, 1))
def test_any_noise_has_a_unit_vector(describe, seed, low, high):
    span = np.random.default_rng(seed).uniform(min(low, high), max(low, high), (1, SIDE, SIDE, 3))
    vector = describe(span)
    assert np.isfinite(vector).all()
    assert (vector >= 0).all()
    assert 0.9 < np.linalg.norm(vector) < 1.0001


def test_export_gives_the_same_vectors(describe, tmp_path):
    from lookalike.models.quiet_tf import tf

    color_texture.export(tmp_path / "model")
    assert replace(inspect(tmp_path / "model"), rewritten=False) == SHIPPED["color-texture"].info
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    assert not color_texture.build().variables
    pictures = np.stack([golden_picture(), noise(5), disc(COLOURS["blue"])]).astype(np.float32)
    expected = describe(pictures)
    np.testing.assert_allclose(loaded(tf.constant(pictures)).numpy(), expected, atol=1e-6)
    (served,) = loaded.signatures["serving_default"](images=tf.constant(pictures)).values()
    np.testing.assert_allclose(served.numpy(), expected, atol=1e-6)


def test_golden_vector(describe):
    """The numbers of this version: a change here needs a new version and a new file."""
    golden = json.loads(GOLDEN.read_text())
    assert golden["version"] == BUILTINS["color-texture"][1]
    vector = describe([golden_picture()])[0]
    assert vector.shape == (golden["dim"],)
    np.testing.assert_allclose(vector, golden["vector"], atol=2e-4)
