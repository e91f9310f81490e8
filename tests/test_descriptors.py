"""The low-level features: their contract, what each finds alike, and every engine's vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lookalike.models import descriptors, openvino_engine
from lookalike.models.handles import BUILTINS
from lookalike.models.inspection import inspect
from lookalike.models.prepare_process import compare
from lookalike.models.quiet_tf import tf
from lookalike.models.shipped import SHIPPED

Array = npt.NDArray[Any]
PARTS = {name: value[0].partition(":")[2] for name, value in BUILTINS.items()}
NAMES = [name for name, part in PARTS.items() if part]
SIDE = descriptors.INPUT_SIZE[0]
RED, BLUE = (0.8, 0.15, 0.1), (0.1, 0.2, 0.8)


def of(name: str) -> descriptors.Descriptor:
    found = getattr(descriptors, PARTS[name])
    assert isinstance(found, descriptors.Descriptor)
    return found


@pytest.fixture(scope="module")
def describe() -> Callable[[str, Any], Array]:
    """Unit vectors of pictures by a feature."""
    built = {name: of(name).build() for name in NAMES}

    def vectors(name: str, pictures: Any) -> Array:
        found: Array = built[name](tf.constant(np.asarray(pictures, np.float32))).numpy()
        return found

    return vectors


def flat(colour: tuple[float, float, float]) -> Array:
    return np.broadcast_to(np.array(colour), (SIDE, SIDE, 3))


def stripes(width: int, one: Any = RED, two: Any = BLUE, upright: bool = True) -> Array:
    odd = (np.arange(SIDE) // width % 2).astype(bool)
    rows = np.where(odd[:, None, None], np.array(one), np.array(two))
    picture = np.broadcast_to(rows, (SIDE, SIDE, 3))
    return picture.transpose(1, 0, 2) if upright else picture


PICTURES = [
    *(flat(c) for c in ((0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), RED)),
    stripes(8),
    np.random.default_rng(0).uniform(-1, 2, (SIDE, SIDE, 3)),
]


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_finite_non_negative_and_no_longer_than_one(
    describe: Callable[[str, Any], Array], name: str
) -> None:
    vectors = describe(name, PICTURES)
    assert vectors.shape == (len(PICTURES), of(name).dim)
    assert np.isfinite(vectors).all()
    assert (vectors >= 0).all()
    lengths = np.linalg.norm(vectors, axis=1)
    longest = np.sqrt(3) if name == "shape" else 1
    assert lengths.max() <= longest + 1e-4
    assert lengths[-2:].min() > 0.9
    one_by_one = np.concatenate([describe(name, [picture]) for picture in PICTURES])
    np.testing.assert_allclose(vectors, one_by_one, atol=1e-5)
    assert describe(name, np.zeros((0, SIDE, SIDE, 3))).shape == (0, of(name).dim)


@pytest.mark.parametrize(
    ("name", "picture", "near", "far"),
    [
        ("color", flat(RED), stripes(8, RED, (0.7, 0.15, 0.1)), flat(BLUE)),
        # The same two colours in equal parts: near to each other, or apart.
        ("color-pairs", stripes(4), stripes(4, BLUE, RED), stripes(32)),
        ("color-difference", stripes(8), stripes(10), stripes(8, RED, (0.9, 0.8, 0.1))),
        ("micro-structure", stripes(8), stripes(10), stripes(8, (0.1, 0.6, 0.2), (0.9, 0.8, 0.1))),
        ("texture", stripes(4), stripes(4, (0.1, 0.2, 0.8), RED), stripes(32)),
        ("shape", stripes(32), stripes(32, (0.9, 0.8, 0.1)), stripes(32, upright=False)),
    ],
)
def test_what_a_feature_is_about_decides(
    describe: Callable[[str, Any], Array], name: str, picture: Array, near: Array, far: Array
) -> None:
    vectors = describe(name, [picture, near, far])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.05


@pytest.mark.skipif(bool(openvino_engine.missing()), reason="OpenVINO is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_openvino_gives_the_same_vectors(name: str, tmp_path: Path) -> None:
    of(name).export(tmp_path / "model")
    info = inspect(tmp_path / "model")
    assert (info.input_size, info.dim) == (descriptors.INPUT_SIZE, of(name).dim)
    assert replace(info, rewritten=False) == SHIPPED[name].info
    found = compare(tmp_path / "model", info, tmp_path / "made")
    assert found.trouble == ""
    assert found.agreements["openvino"].with_lengths >= 0.9999
