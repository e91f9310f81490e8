"""Compiled models that are kept: used by those who come later, never trusted, never too many."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lookalike.models import compiled, openvino_engine
from lookalike.models.compiled import Compiled
from lookalike.models.saved_model import ModelInfo

pytestmark = pytest.mark.skipif(
    bool(openvino_engine.missing()), reason="OpenVINO is not installed: an extra"
)
SIZE = (8, 8)
INFO = ModelInfo(SIZE, 3, input_dtype="uint8")
PICTURES = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled models are kept, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lookalike" / "compiled"


def means(path: Path, factor: float) -> Path:
    """A model whose vectors are the mean colours times a factor."""
    ops = openvino_engine.operations()
    images = ops.parameter([-1, *SIZE, 3], np.uint8)
    mean = ops.reduce_mean(ops.convert(images, np.float32), np.array([1, 2]), False)
    library = openvino_engine.library()
    result = ops.multiply(mean, np.float32(factor))
    openvino_engine.save(library.Model([result], [images]), path)
    return path


def vectors(path: Path, pictures: np.ndarray = PICTURES) -> np.ndarray:
    return openvino_engine.OpenVINOModel(path, INFO, threads=1)(pictures)


def expected(factor: float) -> np.ndarray:
    return PICTURES.mean(axis=(1, 2), dtype=np.float64) * factor


def test_what_one_compiled_the_next_one_loads(tmp_path: Path, folder: Path) -> None:
    one, two = means(tmp_path / "one.xml", 1), means(tmp_path / "two.xml", 2)
    np.testing.assert_allclose(vectors(one), expected(1), rtol=1e-5)
    (kept,) = folder.iterdir()
    np.testing.assert_array_equal(vectors(one), vectors(one))
    assert [*folder.iterdir()] == [kept]
    np.testing.assert_allclose(vectors(two), expected(2), rtol=1e-5)
    (other,) = {*folder.iterdir()} - {kept}
    kept.write_bytes(other.read_bytes())  # were it not loaded, nobody would be misled
    np.testing.assert_allclose(vectors(one), expected(2), rtol=1e-5)


def test_each_number_of_pictures_is_kept(tmp_path: Path, folder: Path) -> None:
    path = means(tmp_path / "one.xml", 1)
    alone = vectors(path, PICTURES[:1])
    assert len([*folder.iterdir()]) == 1
    assert np.array_equal(vectors(path)[:1], alone)
    assert len([*folder.iterdir()]) == 2
    model = openvino_engine.OpenVINOModel(path, INFO, threads=2)  # is a matter of each process
    assert np.array_equal(model(PICTURES[:1]), alone)
    assert np.array_equal(model(PICTURES)[:1], alone)
    assert len([*folder.iterdir()]) == 2
    openvino_engine.OpenVINOModel(path, INFO, exact=True)(PICTURES)
    assert len([*folder.iterdir()]) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:33],
        lambda data: data[:-1],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    ],
    ids=["empty", "only its head", "cut short", "one bit"],
)
def test_a_damaged_file_counts_as_none(
    tmp_path: Path, folder: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = means(tmp_path / "one.xml", 1)
    found = vectors(path)
    (kept,) = folder.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert compiled.read(kept.stem) is None
    assert np.array_equal(vectors(path), found)
    again = compiled.read(kept.stem)
    assert again is not None
    assert len(again.blob) > 200


def test_what_the_engine_does_not_take_is_compiled_anew(tmp_path: Path, folder: Path) -> None:
    path = means(tmp_path / "one.xml", 1)
    found = vectors(path)
    (kept,) = folder.iterdir()
    compiled.write(kept.stem, Compiled(False, b"of another version"))
    assert np.array_equal(vectors(path), found)
    again = compiled.read(kept.stem)
    assert again is not None
    assert again.blob != b"of another version"


def test_a_changed_model_is_another(tmp_path: Path) -> None:
    path = means(tmp_path / "one.xml", 1)
    vectors(path)
    means(path, 3)
    np.testing.assert_allclose(vectors(path), expected(3), rtol=1e-5)


def test_where_nothing_can_be_kept_it_works_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = means(tmp_path / "one.xml", 1)
    for _ in range(2):
        np.testing.assert_allclose(vectors(path), expected(1), rtol=1e-5)


def test_a_model_too_large_is_not_kept(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "LARGEST", 100)
    np.testing.assert_allclose(vectors(means(tmp_path / "m.xml", 1)), expected(1), rtol=1e-5)
    assert not folder.exists()


def test_those_used_longest_ago_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_MOST", 1000)
    for age, key in enumerate("abc"):
        compiled.write(key, Compiled(True, key.encode() * 250))
        os.utime(folder / f"{key}.blob", (1000 + age, 1000 + age))
    assert compiled.read("a") == Compiled(True, b"a" * 250)  # used now
    (folder / ".left.tmp").write_bytes(bytes(100))  # by a process that was killed
    os.utime(folder / ".left.tmp", (10, 10))
    compiled.write("d", Compiled(False, b"d" * 250))
    assert sorted(path.name for path in folder.iterdir()) == ["a.blob", "c.blob", "d.blob"]
    assert compiled.read("d") == Compiled(False, b"d" * 250)
    assert compiled.read("b") is None
