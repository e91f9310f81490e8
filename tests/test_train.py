"""`lookalike train` as a command: from pictures to a handle, killed in between, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from lookalike.learning import fitting
from lookalike.learning.fitting import LOGS, STATE, Recipe
from lookalike.models.quiet_tf import tf
from lookalike.models.saved_model import load
from pipelines.cli import main
from tests.conftest import picture

ROOT = Path(__file__).resolve().parent.parent
_SHORT = "Recipe(rate=1e-3, kinds=4, each=2, every=2)"
_KILLED = f"""
import sys
from lookalike.learning import fitting
from lookalike.learning.fitting import Recipe
from pipelines.cli import main
fitting.RECIPES["scratch", True] = {_SHORT}
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(rate=1e-3, kinds=4, each=2, every=2)
    assert repr(recipe) == repr(eval(_SHORT))
    monkeypatch.setitem(fitting.RECIPES, ("scratch", True), recipe)
    monkeypatch.setitem(fitting.RECIPES, ("scratch", False), recipe)
    monkeypatch.setitem(fitting.RECIPES, ("builtin:photo", True), recipe)


def folders(root: Path, kinds: int = 8, each: int = 3) -> Path:
    for kind in range(kinds):
        (root / f"kind-{kind}").mkdir(parents=True)
        for number in range(each):
            picture(100 * kind + number).save(root / f"kind-{kind}" / f"{number}.png")
    return root


def train(images: Path, output: Path, *more: str, start: str = "scratch") -> list[str]:
    asked = ["train", "--images", str(images), "--output", str(output), "--from", start]
    return [*asked, "--labels", "folders", *more]


def scalars(logs: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(logs.iterdir()):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name in ("scalars", "")
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def vectors(model: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    found: np.ndarray = load(model)(tf.constant(pixels)).numpy()
    return found


def test_what_does_not_help_is_written_by_force_alone_and_is_a_handle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folders(tmp_path / "pictures")
    (images / "kind-0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    model, work = tmp_path / "model", tmp_path / "model.work"
    asked = train(images, model, "--steps", "3")
    assert main(asked) == 3
    out, err = capsys.readouterr()
    assert "read: 24 of 25 became pictures (1 rejected truncated)" in err
    assert "train: 12 pictures to learn from, 12 held out to judge by" in err
    assert "train: step 2, loss" in err
    assert "train: ended after step 3" in err
    assert "builtin:photo P@10" in out
    assert "builtin:color-texture P@10" in out
    assert "this does not help for certain" in out
    assert f"not written: {model}: the vectors gain" in err
    assert not model.exists()
    logged = scalars(work / LOGS)
    assert [step for step, _ in logged["precision at 10"]] == [2, 3]
    assert all(loss > 0 for _, loss in logged["loss"])

    assert main([*asked, "--force", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "goes on from step 3" in err
    assert "train: step" not in err  # all was done
    said = json.loads(out)
    assert (said["images"], said["of"], said["failed"]) == (24, 25, {"rejected truncated": 1})
    assert said["written"] == str(model)
    assert (said["found"]["steps"], said["found"]["numbers"]) == (3, "float32")
    assert said["held_out"]["k"] == 10
    assert said["held_out"]["before"] == max(said["found"]["compared"].values())
    card = (model / "README.md").read_text()
    assert "trained from random weights" in card
    assert "kind-0" not in card
    assert json.loads((model / "training.json").read_text())["held_out"] == said["held_out"]
    assert [path.name for path in work.iterdir()] == [LOGS]  # no picture is left

    config = tmp_path / "config.yaml"
    config.write_text("features: [{name: mine, handle: model}]\nrunner: {workers: 1}\n")
    store = str(tmp_path / "store")
    shutil.rmtree(work)
    assert main(["index", "--config", str(config), "--images", str(images), "--store", store]) == 0
    assert main(["query", "--store", store, "--images", str(images / "kind-3" / "1.png"), "-k", "1",
                 "--json"]) == 0  # fmt: skip
    assert "kind-3/1.png" in capsys.readouterr().out
    assert main(asked) == 2
    assert f"--output {model}: is there already" in capsys.readouterr().err


def test_a_training_that_was_killed_goes_on_to_the_same_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folders(tmp_path / "pictures")
    asked = train(images, tmp_path / "killed", "--steps", "6", "--force")
    begun = subprocess.Popen(
        [sys.executable, "-c", _KILLED, *asked, "--steps", "1000000"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert begun.stderr is not None
    for line in begun.stderr:
        if line.startswith("train: step 2,"):
            break
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    begun.stderr.close()
    while not (tmp_path / "killed.work" / STATE).is_file():
        sleep(0.01)
    state = fitting.State.load(tmp_path / "killed.work")
    assert state is not None
    assert state.step < 6
    assert main(asked) == 0
    assert f"goes on from step {state.step}" in capsys.readouterr().err
    assert main(train(images, tmp_path / "whole", "--steps", "6", "--force")) == 0
    one, other = vectors(tmp_path / "killed"), vectors(tmp_path / "whole")
    assert np.abs(one).max() > 0
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    told = [
        json.loads((tmp_path / name / "training.json").read_text()) for name in ("killed", "whole")
    ]
    assert told[0]["held_out"] == told[1]["held_out"]


def test_the_shipped_network_is_trained_further(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folders(tmp_path / "pictures", each=2)
    model = tmp_path / "model"
    asked = train(images, model, "--steps", "1", "--force", "--json", start="builtin:photo")
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)["found"]
    assert (found["dim"], found["input_size"]) == (1280, [224, 224])
    assert found["compared"].keys() == {"builtin:photo"}
    assert load(model).signatures["serving_default"] is not None
    assert "EfficientNet-Lite2" in (model / "README.md").read_text()


@pytest.mark.parametrize("what", ["one label", "all bad", "no label", "few pictures"])
def test_too_little_to_learn_from_is_told_and_nothing_is_left(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folders(tmp_path / "pictures", kinds=1 if what == "one label" else 3)
    asked = train(images, tmp_path / "model")
    if what == "all bad":
        for path in images.glob("*/*"):
            path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    if what == "no label":
        (tmp_path / "labels.csv").write_text("uri,label\n/elsewhere/1.png,a\n")
        asked += ["--labels", str(tmp_path / "labels.csv")]
    if what == "few pictures":
        asked.remove("--labels")
        asked.remove("folders")
    assert main(asked) == 2
    said = {
        "one label": "1 labels have two pictures or more, and it takes 8",
        "all bad": "none of 9 files became a picture (9 rejected",
        "no label": "no file has a label",
        "few pictures": "9 pictures can be read, and it takes 20",
    }[what]
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("model*"))


def test_a_work_folder_of_another_request_or_of_others_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: Callable[..., Path]
) -> None:
    images = folders(tmp_path / "pictures")
    model, work = tmp_path / "model", tmp_path / "model.work"
    asked = train(images, model, "--steps", "1", "--minutes", "0")
    assert main(asked) == 3
    kept = (work / STATE).read_bytes()
    capsys.readouterr()
    for more, said in (
        (["--seed", "5"], "--seed had 0, and now 5"),
        (["--from", "builtin:photo"], "--from had 'scratch', and now 'builtin:photo'"),
    ):
        assert main([*asked, *more]) == 2
        assert said in capsys.readouterr().err
    (images / "kind-0" / "0.png").unlink()
    assert main(asked) == 2
    assert "the pictures or their labels had" in capsys.readouterr().err
    assert (work / STATE).read_bytes() == kept
    assert main([*asked, "--work", str(images)]) == 2
    assert "holds other things than a training (kind-0)" in capsys.readouterr().err
    for flag, value in (("--minutes", "-1"), ("--steps", "0"), ("--seed", "-1"), ("-k", "0")):
        assert main([*asked, flag, value]) == 2
        assert f"{flag}: needs a number from" in capsys.readouterr().err
