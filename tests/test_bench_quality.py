"""The quality benchmark: its numbers against ones counted by hand, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.changes import CHANGES, changed
from benchmarks.quality import main, precision_and_map, robustness
from lookalike.models.handles import BUILTINS


def test_precision_and_map_of_a_ranking_counted_by_hand() -> None:
    angles = np.array([0.0, 0.1, 0.25, 1.5])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    # a asks: b(x) c(a) d(x) -> 1/2; c asks: b a d -> 1/2; b and d are alone.
    assert precision_and_map(vectors, ["a", "b", "a", "d"]) == (0.1, 0.5)
    assert precision_and_map(vectors, ["a", "b", "c", "d"]) is None
    assert precision_and_map(vectors, ["a"] * 4) is None
    assert precision_and_map(vectors, ["a", "a", "b", "b"]) == (0.1, pytest.approx(5 / 6))


def test_robustness_counts_equal_pictures_as_found() -> None:
    originals = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    assert robustness(originals, [0, 2], originals[[0, 2]]) == (1.0, 1.0)
    assert robustness(originals, [0, 2], originals[[2, 2]]) == (0.5, 0.5)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("size", [(40, 30), (1, 1)])
def test_changes_give_pictures(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    (tmp_path / "p.png").write_bytes(changed(pixels.tobytes(), size, CHANGES[name]))
    with Image.open(tmp_path / "p.png") as picture:
        after = np.asarray(picture)
    assert after.ndim == 3
    if name == "flip":
        np.testing.assert_array_equal(after, pixels[:, ::-1])
    if size != (1, 1):
        same = after.shape == pixels.shape and bool((after == pixels).all())
        assert not same
    expected = {"crop to 50 %": (28, 21), "half the size": (20, 15), "border": (46, 36)}
    if size == (40, 30) and name in expected:
        assert after.shape[1::-1] == expected[name]


@pytest.mark.slow
def test_a_run_prints_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label, hue in (("red", (200, 30, 30)), ("blue", (30, 40, 200))):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng(number).integers(0, 40, (48, 64, 3))
            pixels = np.clip(np.array(hue) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "in" / label / f"{number}.png")
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    out = tmp_path / "found.json"
    arguments = ["--images", str(tmp_path / "in"), "--changed", "2", "--json", str(out)]
    assert main(arguments) == 0
    found = {line["feature"]: line for line in json.loads(out.read_text())}
    assert len(found) == len(BUILTINS) + 1
    assert found["builtin:color"]["mean_average_precision"] == 1
    assert found["builtin:color"]["precision"] == pytest.approx(0.2)  # two others in ten
    assert [*found["builtin:shape"]["robustness"]] == [*CHANGES]
    assert all(line["rate"] > 0 for line in found.values())
    printed = capsys.readouterr().out
    assert "| builtin:photo | 1,280 |" in printed
    assert "| rotation 90° |" in printed


def test_a_folder_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    assert main(["--images", str(tmp_path)]) == 2
    assert "two pictures at least are needed, 0 found" in capsys.readouterr().err
