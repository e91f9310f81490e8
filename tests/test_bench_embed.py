"""Every way of embedding really runs; how fast is for quiet machines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.embed import main, table
from benchmarks.launch import WAYS, least_files
from benchmarks.pictures import gather
from benchmarks.task import timing_of
from lookalike.errors import RequestError
from lookalike.models.quiet_tf import tf


class Thumbnail(tf.Module):  # type: ignore[misc]
    """A tiny image, so that even other ways to resize give much the same vector."""

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.float32)])
    def __call__(self, images: Any) -> Any:
        return tf.reshape(tf.nn.avg_pool2d(images, 8, 8, "VALID"), [-1, 48])


@pytest.mark.slow
def test_all_ways_are_measured_and_agree(
    pictures: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tf.saved_model.save(Thumbnail(), str(tmp_path / "model"))
    output, files = tmp_path / "bench.json", least_files(2) + 1
    arguments = ["--images", str(pictures(30)), "--model", str(tmp_path / "model")]
    arguments += ["--files", str(files), "--rounds", "1", "--workers", "2", "--json", str(output)]
    assert main(arguments) == 0
    found = json.loads(output.read_text())
    assert (found["files"], found["rounds"], found["processes"]) == (files, 1, 2)
    assert found["input_sizes"] == [[32, 32]]
    assert list(found["ways"]) == list(WAYS)
    for name, way in found["ways"].items():
        (run,) = way["rounds"]
        assert run["images"] == files, name
        assert way["rate"] == run["rate"] > 0
        assert way["pipeline_ratio"] == pytest.approx(
            found["ways"]["pipeline"]["rate"] / way["rate"]
        )
        assert way["start_up_s"] > 0
        assert run["peak_bytes"] is None or run["peak_bytes"] > 10 << 20
        if name in ("decode", "pillow", "model"):
            assert run["cosine"] is None
        else:  # the least of all rows: none is missing, each is in its place
            assert run["cosine"][1] > (0.999 if "hub" in name or name == "runinference" else 0.9999)
    rates = {name: way["rate"] for name, way in found["ways"].items()}
    assert 1 / found["bound"] == pytest.approx(1 / rates["decode"] + 1 / rates["model"])
    shown = capsys.readouterr().out
    assert table(found) in shown
    assert all(title in shown for title, _ in WAYS.values())


def test_too_few_pictures(
    pictures: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--images", str(pictures(2)), "--files", "630", "--workers", "2"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("bench-embed: too few pictures to time: 630 files for 2 processes")
    assert "at least 640 with --files" in told


def test_a_model_that_is_not_there(
    pictures: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", str(pictures(2)), "--files", "320", "--workers", "1"]
    assert main([*arguments, "--model", "/nowhere/model"]) == 2
    assert "/nowhere/model" in capsys.readouterr().err


def test_an_unknown_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--ways", "bare,none"])
    assert ended.value.code == 2
    assert "not none" in capsys.readouterr().err


def test_a_rate_is_of_the_time_in_which_all_are_warm_and_busy() -> None:
    early = [(10.0, 20), (12.0, 20), (14.0, 20), (16.0, 20)]
    late = [(13.0, 30), (16.0, 30), (19.0, 30)]
    timing = timing_of([early, late])  # from 13 to 16: 10 + 20 of the one, 30 of the other
    assert (timing.images, timing.ended, timing.warm_s) == (170, 19.0, 3.0)
    assert timing.rate == pytest.approx(60 / 3)


def test_a_rate_of_processes_that_began_warm() -> None:
    timing = timing_of([[(5.0, 0), (6.0, 10), (9.0, 10)], [(5.0, 0), (10.0, 20)]])
    assert timing.warm_s == 4.0
    assert timing.rate == pytest.approx((20 + 16) / 4)


def test_a_rate_of_processes_that_were_never_busy_at_once() -> None:
    timing = timing_of([[(1.0, 10), (2.0, 10)], [(5.0, 10), (7.0, 10)]])
    assert (timing.rate, timing.warm_s) == (5.0, 2.0)


def test_pictures_are_repeated_with_other_bytes(
    pictures: Callable[..., Path], tmp_path: Path
) -> None:
    folder = pictures(3)
    Image.new("RGB", (20, 10)).save(folder / "x.bmp")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    gathered = gather(str(folder), 10, tmp_path / "many")
    contents = [path.read_bytes() for path in gathered.paths]
    assert len(set(contents)) == 10
    assert dict(gathered.formats) == {"JPEG": 10}
    pixels = [Image.open(path).tobytes() for path in gathered.paths]
    assert pixels[0] == pixels[3]
    assert gathered.describe() == "10 JPEG, 64x48, median 0.0031 megapixels"


def test_no_picture_of_a_common_format(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "x.bmp")
    with pytest.raises(RequestError, match="no picture there that can be decoded and is JPEG or"):
        gather(str(tmp_path), 10, tmp_path / "many")
