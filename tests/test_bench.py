from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from lookalike.models.quiet_tf import tf


def test_every_comparison_is_measured(
    pictures: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Blocks(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, images: Any) -> Any:
            return tf.reshape(images, [-1, 192])

    tf.saved_model.save(Blocks(), str(tmp_path / "model"))
    config = tmp_path / "config.yaml"
    config.write_text("features: [{name: low, handle: model}]\nrunner: {workers: 1}\n")
    output = tmp_path / "bench.json"
    arguments = ["--images", str(pictures(30)), "--config", str(config), "--json", str(output)]
    assert main([*arguments, "--files", "100", "--rounds", "2"]) == 0
    found = json.loads(output.read_text())
    assert (found["files"], found["rounds"]) == (100, 2)
    assert [row["stage"] for row in found["rows"]] == ["decode", *["embed"] * 2, *["search"] * 2]
    for row in found["rows"]:
        assert min(row["rates"] + row["baseline_rates"]) > 0
        assert row["ratio"] == pytest.approx(row["rate"] / row["baseline_rate"])
    assert found["rows"][1]["notes"]["start_up_s"] >= 0
    assert found["rows"][3]["notes"]["recall@10"] == 1  # exact
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(found["rows"])


def test_a_folder_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    assert main(["--images", str(tmp_path)]) == 2
    assert "no picture there" in capsys.readouterr().err
