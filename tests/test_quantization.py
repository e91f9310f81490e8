"""Models in 8 bits: on grids, the same vectors by every way of calculating, with what they cost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lookalike.errors import RequestError
from lookalike.learning.held_out import Gain
from lookalike.learning.quantised import Cost
from lookalike.models import openvino_engine
from lookalike.models.golden import golden_pictures
from lookalike.models.grids import Grid, best_grid
from lookalike.models.openvino_engine import OpenVINOModel
from lookalike.models.quantization import layers_of, quantise
from lookalike.models.resolving import FeatureConfig, resolve_features
from lookalike.models.saved_model import ModelInfo
from lookalike.pipelines.cli import main
from tests.onnx_files import convolutions, node, save_model

needs_openvino = pytest.mark.skipif(
    bool(openvino_engine.missing()), reason="OpenVINO is not installed: an extra"
)
SIZE = (32, 32)
RANDOM = np.random.default_rng(3)


# --- grids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (np.linspace(0, 6, 999), Grid(1 / 32, 0)),  # a ReLU6
        (np.linspace(-1, 1, 999), Grid(1 / 128, -128)),
        (np.linspace(-0.27, 3.6, 999), Grid(1 / 64, -18)),  # a swish: finer than both signs allow
        (np.linspace(3, 4, 999), Grid(1 / 64, 0)),  # up to 3.98
        (np.append(RANDOM.uniform(-1, 1, 99_999), 1.9), Grid(1 / 128, -128)),  # but for one
        (np.zeros(9), Grid(2.0**-40, 0)),
    ],
)
def test_the_grid_that_fits_best(sample: npt.NDArray[np.float64], expected: Grid) -> None:
    grid = best_grid(float(sample.min()), float(sample.max()), sample)
    assert grid == expected
    low, high = grid.ends
    points = np.linspace(low, high, 256)
    np.testing.assert_array_equal(grid.rounded(points), points)
    inside = sample[(sample >= low) & (sample <= high)]
    assert np.abs(grid.rounded(inside) - inside).max() <= grid.step / 2
    np.testing.assert_array_equal(grid.rounded(np.array([-1e9, 1e9])), [low, high])


# --- graphs -----------------------------------------------------------------------------------


def random(*shape: int) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = RANDOM.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    return found.astype(np.float32)


def mixed(path: Path) -> Path:
    """Convolutions with ReLU and swish, a depthwise one, a skip, squeeze-and-excite, a product."""
    nodes = [
        node("Conv", "x w1 b1", "c1", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2 b2", "c2", group=16, pads=[1, 1, 1, 1]),
        node("Sigmoid", "c2", "s2"),
        node("Mul", "c2 s2", "r2"),
        node("GlobalAveragePool", "r2", "p"),
        node("Conv", "p w3", "e"),
        node("Sigmoid", "e", "es"),
        node("Mul", "r2 es", "se"),
        node("Conv", "se w4 b4", "c4"),
        node("Add", "c4 r1", "skip"),
        node("Conv", "skip w5 b5", "c5", strides=[2, 2]),
        node("Reshape", "c5 shape", "flat"),
        node("Transpose", "flat", "tokens", perm=[0, 2, 1]),
        node("MatMul", "tokens w6", "m6"),
        node("Add", "m6 b6", "a6"),
        node("Relu", "a6", "r6"),
        node("ReduceMean", "r6", "y", axes=[1], keepdims=0),
    ]
    constants = {
        "w1": random(16, 3, 3, 3),
        "b1": random(16),
        "w2": random(16, 1, 3, 3),
        "b2": random(16),
        "w3": random(16, 16, 1, 1),
        "w4": random(16, 16, 1, 1),
        "b4": random(16),
        "w5": random(24, 16, 2, 2),
        "b5": random(24),
        "w6": random(24, 40),
        "b6": random(40),
        "shape": np.array([0, 24, 64]),
    }
    return save_model(path, nodes, {"x": ["n", 3, *SIZE]}, {"y": ["n", 40]}, constants)


def graph_of(handle: Path, work: Path) -> tuple[Any, ModelInfo]:
    (one,) = resolve_features([FeatureConfig("m", str(handle))], work, lambda line: None)
    path = work / one.folder / "prepared" / f"{one.prepared}.xml"
    return openvino_engine.read_folded(path.resolve()), one.info


def cosines(a: Any, b: Any) -> Any:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.slow
@needs_openvino
def test_integers_and_floats_give_the_same_vectors_on_every_processor(tmp_path: Path) -> None:
    model, info = graph_of(mixed(tmp_path / "net.onnx"), tmp_path / "work")
    golden = golden_pictures(SIZE)
    openvino_engine.save(model, tmp_path / "float.xml")
    float32 = OpenVINOModel(tmp_path / "float.xml", info)(golden)
    # The first convolution sees pictures, that of squeeze-and-excite one number per channel.
    layers = layers_of(model, "net")
    assert [layer.entrance for layer in layers] == [True, False, False, False, False]
    quantise(model, layers, [golden[:8], golden[8:]])
    with pytest.raises(RequestError, match="net is quantised already"):
        layers_of(model, "net")
    path = tmp_path / "quantised.xml"
    openvino_engine.save(model, path)
    exact = OpenVINOModel(path, info, exact=True)(golden)
    assert cosines(exact, float32).min() > 0.99
    script = (
        "import sys, numpy as np; from pathlib import Path;"
        "from lookalike.models.openvino_engine import OpenVINOModel;"
        "from lookalike.models.golden import golden_pictures;"
        "from lookalike.models.saved_model import ModelInfo;"
        "root = Path(sys.argv[1]);"
        "info = ModelInfo((32, 32), 40, input_dtype='uint8', reference='openvino');"
        "model = OpenVINOModel(root / 'quantised.xml', info, golden=np.load(root / 'exact.npy'));"
        "np.save(root / 'found.npy', model(golden_pictures((32, 32))))"
    )
    np.save(tmp_path / "exact.npy", exact)
    # AVX2 and SSE41 add products in 16 bits, and saturate; the second time it is known already.
    for most in ("", "AVX2", "SSE41", "", "AVX2"):
        environment = {**os.environ, **({"ONEDNN_MAX_CPU_ISA": most} if most else {})}
        command = [sys.executable, "-c", script, str(tmp_path)]
        subprocess.run(command, check=True, env=environment)
        found = np.load(tmp_path / "found.npy")
        assert cosines(found, exact).min() >= 0.999
        if not most:
            np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


@needs_openvino
def test_models_without_layers_to_quantise(tmp_path: Path) -> None:
    one = save_model(
        tmp_path / "one.onnx",
        [node("Conv", "x w", "c"), node("GlobalAveragePool", "c", "p"), node("Flatten", "p", "y")],
        {"x": ["n", 3, *SIZE]},
        {"y": ["n", 8]},
        {"w": random(8, 3, 3, 3)},
    )
    model, _ = graph_of(one, tmp_path / "work")
    with pytest.raises(RequestError, match="one has no layers to quantise"):
        layers_of(model, "one")


# --- what is worth it ---------------------------------------------------------------------------

WORTH = Cost(100, 0.99, 0.95, 0.9, None, (10.0, 20.0), in_integers=True)
LABELLED = Gain(10, 0.5, 0.495, -0.01, 0.0, 100, 9)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"least": 0.1}, []),
        ({"rates": (10.0, 10.5)}, ["1.05 times as fast, below 1.1"]),
        ({"rates": (10.0, 8.0), "in_integers": False}, ["0.80 times as fast.*calculated in float"]),
        ({"cosine": 0.97}, ["a mean cosine of 0.9700 to float32, below 0.98"]),
        ({"recall": 0.79}, ["0.790 of the 10 nearest in float32 found, below 0.8"]),
        ({"recall": 0.79, "precision": LABELLED}, []),
        (
            {"precision": replace(LABELLED, after=0.48), "cosine": 0.5},
            ["a mean cosine of 0.5", "0.020 of precision at 10 lost, more than 0.01"],
        ),
    ],
)
def test_what_is_not_worth_it(changes: dict[str, Any], reasons: list[str]) -> None:
    found = replace(WORTH, **changes).reasons_against()
    assert len(found) == len(reasons)
    for text, expected in zip(found, reasons, strict=True):
        assert re.match(expected, text)


# --- the command --------------------------------------------------------------------------------


def collection(root: Path, per_folder: int = 36) -> Path:
    """Two folders of pictures, of stripes and of checks, and files that cannot be used."""
    folder = root / "pictures"
    y, x = np.mgrid[:40, :40]
    for name in ("stripes", "checks"):
        (folder / name).mkdir(parents=True)
        for number in range(per_folder):
            random = np.random.default_rng([number, name == "checks"])
            wide, colour = random.integers(2, 9), random.integers(60, 256, 3)
            pattern = (x // wide) % 2 ^ ((y // wide) % 2 if name == "checks" else 0)
            pixels = pattern[..., None] * colour + random.integers(0, 40, (40, 40, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / name / f"{number}.png")
    whole = (folder / "checks" / "0.png").read_bytes()
    (folder / "checks" / "copy.png").write_bytes(whole)
    (folder / "checks" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.json").write_text("{}")
    return folder


@pytest.mark.slow
@needs_openvino
def test_a_model_in_8_bits_is_a_feature_of_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = collection(tmp_path)
    convolutions(tmp_path / "net.onnx")
    (tmp_path / "LICENSE").write_text("MIT License\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        "features:\n- {name: net, handle: net.onnx, mean: 0.5, std: 0.25, output: map}\n"
        "- {name: low, handle: 'builtin:color'}\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["models", "--config", "c.yaml", "--quantize", "pictures", "--output", "small"]
    assert main(command) == 2
    assert "--quantize takes one model; name one of its features as HANDLE: net, low" in (
        capfd.readouterr().err
    )
    # How fast it is depends on the machine; --force writes it in any case.
    assert main([*command, "net", "--json", "--force"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["layers"], told["calibrated_on"], told["written"]) == (
        1,
        36,
        str(tmp_path / "small"),
    )
    assert told["failed"] == {"duplicate": 1, "ignored no_image": 1, "rejected truncated": 1}
    compared = told["compared"]
    assert compared["pictures"] == 36
    assert 0.99 < compared["least_cosine"] <= compared["cosine"] <= 1
    assert 0.8 < compared["recall"] <= 1
    assert compared["precision"]["classes"] == 2
    assert abs(compared["precision"]["gain"]) < 0.05
    assert sorted(os.listdir("small")) == ["README.md", "model.bin", "model.xml"]
    card = Path("small/README.md").read_text(encoding="utf-8")
    assert "P@10 by folders" in card
    assert str(tmp_path) not in card
    assert main(["models", "small", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["models"]
    assert (found["kind"], found["licence"], found["dim"]) == ("OpenVINO", "MIT License", 16)
    assert found["fingerprint"] == told["fingerprint"] != told["of"]
    index = ["index", "--images", str(images), "--store", "store", "--config"]
    Path("small.yaml").write_text("features: [{name: s, handle: small}]\nrunner: {workers: 1}\n")
    assert main([*index, "small.yaml"]) == 0
    capfd.readouterr()
    query = ["query", "--store", "store", "--images", str(images / "stripes" / "3.png"), "--json"]
    assert main(query) == 0
    first = json.loads(capfd.readouterr().out.splitlines()[0])
    assert first["uri"].endswith("stripes/3.png")
    assert first["score"] == pytest.approx(1, abs=1e-5)
    # It cannot be made again of itself, nor over what is there.
    assert main(["models", "small", "--quantize", "pictures", "--output", "again"]) == 2
    assert "is quantised already" in capfd.readouterr().err
    assert main([*command, "net"]) == 2
    assert "--output small: is there already" in capfd.readouterr().err


def spoiled(path: Path) -> Path:
    """A network with one channel so large that on its grid all others are nothing."""
    big = random(8, 3, 3, 3)
    big[0] = 1e4
    after = random(16, 8, 3, 3)
    after[:, 0] = 0
    nodes = [
        node("Conv", "x w1", "c1", strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "c2", strides=[2, 2]),
        node("GlobalAveragePool", "c2", "p"),
        node("Flatten", "p", "f"),
        node("Add", "f one", "y"),
    ]
    constants = {"w1": big, "w2": after, "one": np.full(16, 1e-3, np.float32)}
    return save_model(path, nodes, {"x": ["n", 3, *SIZE]}, {"y": ["n", 16]}, constants)


@pytest.mark.slow
@needs_openvino
def test_what_is_not_worth_it_is_not_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collection(tmp_path)
    spoiled(tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    command = ["models", "net.onnx", "--quantize", "pictures/checks", "--quantize"]
    command += ["pictures/stripes", "--output", "small"]
    assert main(command) == 3
    told = capfd.readouterr()
    assert "not worth it: a mean cosine of" in told.out
    assert "in 8 bits it is not worth it" in told.err
    assert "--force writes it" in told.err
    assert not Path("small").exists()
    assert main([*command, "--force"]) == 0
    assert "Not worth it: a mean cosine" in Path("small/README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_requests_that_are_wrong(
    tmp_path: Path,
    pictures: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = str(pictures(5))
    (tmp_path / "mine_q.py").write_text("def f(picture):\n    return picture.mean((0, 1)) + 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    output = ["--output", "small"]
    wrong = {
        "needs --output MODEL": ["builtin:photo", "--quantize", few],
        "go with --quantize": ["builtin:photo", *output],
        "which model? give a HANDLE": ["--quantize", few, *output],
        "is a function of Python, which has no layers": [
            "python:mine_q:f",
            "--quantize",
            few,
            *output,
        ],
        "--output small/er: no such folder": [
            "builtin:photo",
            "--quantize",
            few,
            "--output",
            "small/er",
        ],
    }
    if not openvino_engine.missing():
        convolutions(tmp_path / "net.onnx")
        wrong["5 different pictures of 5 files can be used, and it takes 64"] = [
            "net.onnx",
            "--quantize",
            few,
            *output,
        ]
        wrong["there is no model at 'absent.onnx'"] = ["absent.onnx", "--quantize", few, *output]
    for message, arguments in wrong.items():
        assert main(["models", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
