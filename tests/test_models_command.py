"""`lookalike models`: what ships, and handles that are tried."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lookalike.models import color_texture, openvino_engine, photo
from lookalike.models.handles import BUILTINS, builtin_fingerprint
from lookalike.models.probing import licence_of, probe
from lookalike.models.resolving import FeatureConfig
from lookalike.models.shipped import SHIPPED
from lookalike.pipelines.cli import main
from tests.onnx_files import convolutions, same_in_tensorflow

needs_openvino = pytest.mark.skipif(
    bool(openvino_engine.missing()), reason="OpenVINO is not installed: an extra"
)


def test_what_ships_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert SHIPPED.keys() == BUILTINS.keys()
    for name, module in (("photo", photo), ("color-texture", color_texture)):
        assert (SHIPPED[name].dim, SHIPPED[name].input_size) == (module.DIM, module.INPUT_SIZE)
    assert main(["models", "--json"]) == 0
    listed = {one["handle"]: one for one in json.loads(capsys.readouterr().out)["models"]}
    assert listed.keys() == {f"builtin:{name}" for name in BUILTINS}
    assert listed["builtin:photo"]["dim"] == 1280
    assert listed["builtin:photo"]["fingerprint"] == builtin_fingerprint("builtin:photo")
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "builtin:photo            1,280 dimensions  Apache-2.0  what a photograph" in text


@pytest.mark.slow
@needs_openvino
def test_a_config_of_an_onnx_file_and_a_function(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    convolutions(tmp_path / "net.onnx")
    (tmp_path / "LICENSE.txt").write_text("\n  MIT License\n\nCopyright")
    (tmp_path / "my_probe.py").write_text("def f(picture):\n    return picture.mean((0, 1)) + 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "c.yaml").write_text(
        "features:\n- {name: a, handle: net.onnx, mean: 0.5, std: 0.5, output: map}\n"
        "- {name: b, handle: 'python:my_probe:f?size=16'}\n"
    )
    assert main(["models", "--config", "c.yaml", "--json"]) == 0
    net, function = json.loads(capsys.readouterr().out)["models"]
    assert (net["kind"], net["dim"], net["input_size"]) == ("ONNX", 16, [32, 40])
    assert net["inputs"] == ["pixel_values f32 [?,3,32,40]"]
    assert sorted(net["outputs"]) == ["embedding f32 [?,16]", "map f32 [?,16,7,9]"]
    assert (net["output"], net["licence"]) == ("map", "MIT License")
    assert net["engines"][0]["name"] == "openvino"
    assert all(one["images_per_second"] > 0 for one in net["engines"])
    assert (function["kind"], function["dim"], function["licence"]) == ("Python function", 3, "")
    assert [one["name"] for one in function["engines"]] == ["python"]
    assert len({net["fingerprint"], function["fingerprint"]}) == 2
    assert main(["models", "--config", "c.yaml", "net.onnx"]) == 2
    assert "leave net.onnx out" in capsys.readouterr().err
    assert main(["models", "absent.onnx"]) == 2
    assert "there is no model at 'absent.onnx'" in capsys.readouterr().err
    assert main(["models", "net.onnx"]) == 0
    shown = capsys.readouterr().out
    assert "input       pixel_values f32 [?,3,32,40]" in shown
    assert "licence     MIT License" in shown
    assert "engine      openvino: " in shown


@pytest.mark.slow
def test_a_saved_model(tmp_path: Path) -> None:
    handle = same_in_tensorflow(tmp_path / "saved")
    (tmp_path / "saved" / "README.md").write_text("---\ntags: [a]\nlicense: cc-by-4.0\n---\n# A")
    found = probe(FeatureConfig("m", handle), tmp_path / "work", lambda _: None)
    assert (found["kind"], found["dim"], found["licence"]) == ("SavedModel", 16, "cc-by-4.0")
    assert found["inputs"][0] == "call: float32 [n,32,40,3], 0 to 1"
    names = [one["name"] for one in found["engines"]]
    assert names[0] == "tensorflow"
    assert ("openvino" in names) != bool(openvino_engine.missing())
    assert all(one["cosine"] > 0.99 for one in found["engines"][:2])


def test_licences(tmp_path: Path) -> None:
    assert licence_of("builtin:photo", tmp_path) == "Apache-2.0"
    assert licence_of("python:numpy.fft:fft", tmp_path).startswith("BSD")
    folder = tmp_path / "hub" / "onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"")
    assert licence_of(str(folder), folder) == ""
    (tmp_path / "hub" / "README.md").write_text("no head\nlicense: none\n")
    assert licence_of(str(folder), folder) == ""
    (tmp_path / "hub" / "README.md").write_text('---\nlicense: "apache-2.0"\n---\n')
    assert licence_of(str(folder), folder) == "apache-2.0"
