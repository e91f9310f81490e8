"""`lookalike train` as a command: from pictures to a handle, killed in between, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lookalike.learning import fitting
from lookalike.learning.fitting import LOGS, Recipe
from lookalike.learning.state import STATE, State
from lookalike.models.quiet_tf import tf
from lookalike.models.saved_model import load
from lookalike.pipelines.cli import main
from tests.conftest import picture

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
_RECIPE = Recipe(rate=1e-3, kinds=4, each=2, every=2)
_SHORT = f"""
import sys
from lookalike.learning import fitting
from lookalike.learning.fitting import Recipe
from lookalike.pipelines.cli import main
fitting.RECIPES["scratch", True] = {_RECIPE}
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for way in fitting.RECIPES:
        monkeypatch.setitem(fitting.RECIPES, way, _RECIPE)


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
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    found: np.ndarray = load(model)(tf.constant(pixels)).numpy()
    return found


@dataclass(frozen=True)
class Trained:
    """A training that nothing stopped, and what was said."""

    images: Path
    model: Path
    logged: dict[str, list[tuple[int, float]]]
    ends: tuple[int, int]
    refused: tuple[str, str]
    forced: tuple[str, str]
    left: list[str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    images, model = folders(root / "pictures"), root / "model"
    (images / "kind-0" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    asked = train(images, model, "--steps", "3")
    first, refused = said(asked)
    assert not model.exists()
    logged = scalars(root / "model.work" / LOGS)
    second, forced = said([*asked, "--force", "--json"])
    left = sorted(path.name for path in (root / "model.work").iterdir())
    return Trained(images, model, logged, (first, second), refused, forced, left)


def started(asked: list[str]) -> subprocess.Popen[str]:
    """The command, in a process of its own.

    How many threads add up, and in which order, is the same in all of them, and depends in this one
    on the tests before: Adam makes whole steps of differences in the last bits.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _SHORT, *asked],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def said(asked: list[str]) -> tuple[int, tuple[str, str]]:
    process = started(asked)
    told = process.communicate(timeout=300)
    return process.returncode, told


def test_what_does_not_help_is_not_written(trained: Trained) -> None:
    assert trained.ends[0] == 3
    out, err = trained.refused
    assert "read: 24 of 25 became pictures (1 rejected truncated)" in err
    assert "train: 12 pictures to learn from, 12 held out to judge by" in err
    assert "train: step 2, loss" in err
    assert "train: ended after step 3" in err
    assert "builtin:photo P@10" in out
    assert "builtin:color-texture P@10" in out
    assert "this does not help for certain" in out
    assert f"not written: {trained.model}: the vectors gain" in err
    assert [step for step, _ in trained.logged["precision at 10"]] == [2, 3]
    assert all(loss > 0 for _, loss in trained.logged["loss"])


def test_force_writes_what_was_trained_with_a_card(trained: Trained) -> None:
    assert trained.ends[1] == 0
    out, err = trained.forced
    assert "goes on from step 3" in err
    assert "train: step" not in err  # all was done
    told = json.loads(out)
    assert (told["images"], told["of"], told["failed"]) == (24, 25, {"rejected truncated": 1})
    assert told["written"] == str(trained.model)
    assert (told["found"]["steps"], told["found"]["numbers"]) == (3, "float32")
    assert told["held_out"]["k"] == 10
    assert told["held_out"]["before"] == max(told["found"]["compared"].values())
    card = (trained.model / "README.md").read_text()
    assert "trained from random weights" in card
    assert "kind-0" not in card
    kept = json.loads((trained.model / "training.json").read_text())
    assert kept["held_out"] == told["held_out"]
    assert trained.left == [LOGS]  # no picture is left


def test_the_model_is_a_handle(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, store = tmp_path / "config.yaml", str(tmp_path / "store")
    config.write_text(
        f"features: [{{name: mine, handle: {trained.model}}}]\nrunner: {{workers: 1}}\n"
    )
    images = ["--images", str(trained.images)]
    assert main(["index", "--config", str(config), *images, "--store", store]) == 0
    asked = str(trained.images / "kind-3" / "1.png")
    assert main(["query", "--store", store, "--images", asked, "-k", "1", "--json"]) == 0
    assert "kind-3/1.png" in capsys.readouterr().out
    assert main(train(trained.images, trained.model)) == 2
    assert f"--output {trained.model}: is there already" in capsys.readouterr().err


def test_a_training_that_was_killed_goes_on_to_the_same_end(
    trained: Trained, tmp_path: Path
) -> None:
    model = tmp_path / "killed"
    asked = train(trained.images, model, "--force", "--steps", "3")
    begun = started(asked)
    assert begun.stderr is not None
    for line in begun.stderr:
        if line.startswith("train: step 2,"):
            break
    begun.kill()
    begun.communicate(timeout=60)
    state = State.load(tmp_path / "killed.work")
    assert state is not None  # else it came to its end before the signal
    assert state.step in (2, 3)
    status, (_, err) = said(asked)
    assert status == 0
    assert f"goes on from step {state.step}" in err
    one, other = vectors(model), vectors(trained.model)
    assert np.abs(one).max() > 0
    # A step that was lost or done twice shows in the loss.
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())
    here, there = (
        json.loads((one / "training.json").read_text())["held_out"]
        for one in (model, trained.model)
    )
    assert here == there
    losses, whole = (
        dict(scalars(tmp_path / "killed.work" / LOGS)["loss"]),
        dict(trained.logged["loss"]),
    )
    assert losses == pytest.approx(whole, rel=1e-4)


def test_the_shipped_network_is_trained_further_without_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folders(tmp_path / "pictures", kinds=10, each=2)
    model = tmp_path / "model"
    asked = train(images, model, "--steps", "1", "--force", "--json", start="builtin:photo")
    asked.remove("--labels")
    asked.remove("folders")
    assert main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    found = told["found"]
    assert (found["dim"], found["input_size"]) == (1280, [224, 224])
    assert found["compared"].keys() == {"builtin:photo"}
    assert (found["labels"], found["kinds"]) == ("self", 15)
    assert (told["held_out"]["k"], told["held_out"]["queries"]) == (6, 5 * 7)
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
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
