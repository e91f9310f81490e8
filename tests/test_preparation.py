"""Models made ready: once on a machine, for every later process, and whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError
from lookalike.models import color_texture, openvino_engine, prepared
from lookalike.models.descriptors import INPUT_SIZE
from lookalike.models.handles import builtin_fingerprint
from lookalike.models.preparation import models_cache
from lookalike.models.resolving import FeatureConfig, install, installed_files, resolve_features
from lookalike.models.saved_model import ModelInfo
from lookalike.store.objects import open_store

pytestmark = pytest.mark.slow

LOW = FeatureConfig("low", "builtin:color-texture")
MAKING = "making the models ready: once for each, some seconds"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return cache_folder() / "models"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the shipped model is ready, to be copied."""
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "xdg"))
        resolve_features([LOW], work(root, "work"), lambda _: None)
    return root / "xdg"


@pytest.fixture
def filled(cache: Path, made: Path, tmp_path: Path) -> Path:
    """A cache of its own in which the shipped model is ready."""
    shutil.copytree(made, tmp_path / "xdg")
    return cache


def work(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder


def kept(cache: Path) -> dict[str, int]:
    """What is in the cache, and since when."""
    return {str(f.relative_to(cache)): f.stat().st_mtime_ns for f in cache.rglob("*.*")}


def save(folder: Path, shift: float = 1.0) -> str:
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    call = tf.function(lambda images: tf.reduce_mean(images, [1, 2]) + shift, [spec])
    module = tf.Module()
    module.__call__ = call
    tf.saved_model.save(module, str(folder))
    return str(folder)


def test_a_shipped_model_is_made_ready_once(cache: Path, tmp_path: Path) -> None:
    told: list[str] = []
    (first,) = resolve_features([LOW], work(tmp_path, "a"), told.append)
    assert told == [MAKING]
    assert first.info == ModelInfo(INPUT_SIZE, color_texture.DIM, rewritten=False)
    assert first.fingerprint == builtin_fingerprint(LOW.handle)
    before = kept(cache)
    assert f"{first.fingerprint}/saved_model.pb" in before
    assert not [name for name in before if "prepare-" in name or "export-" in name]
    (again,) = resolve_features([LOW], work(tmp_path, "b"), told.append)
    assert (again, told) == (first, [MAKING])
    assert kept(cache) == before
    store = work(tmp_path, "store")
    install(open_store(store), [again], tmp_path / "b")
    names = installed_files(store, again)
    assert names[-1] == "saved_model.pb"
    assert f"prepared/{again.prepared}.json" in names
    if not openvino_engine.missing():
        assert {f"prepared/{again.prepared}{end}" for end in (".xml", ".bin", ".npy")} <= {*names}


def test_a_store_has_what_the_cache_has_lost(filled: Path, tmp_path: Path) -> None:
    store = work(tmp_path, "store")
    features = resolve_features([LOW], work(tmp_path, "a"), lambda _: None)
    install(open_store(store), features, tmp_path / "a")
    shutil.rmtree(filled)
    told: list[str] = []
    assert resolve_features([LOW], work(tmp_path, "b"), told.append, open_store(store)) == features
    assert (told, os.listdir(filled)) == ([], [])


def test_what_was_cut_short_is_made_again(filled: Path, tmp_path: Path) -> None:
    (first,) = resolve_features([LOW], work(tmp_path, "a"), lambda _: None)
    folder = filled / first.fingerprint
    for number, name in enumerate((f"prepared/{first.prepared}.json", "saved_model.pb")):
        (folder / name).unlink()
        told: list[str] = []
        resolve_features([LOW], work(tmp_path, f"again-{number}"), told.append)
        assert told == [MAKING]
        assert (folder / name).is_file()


def test_openvino_that_came_later_is_found(filled: Path, tmp_path: Path) -> None:
    if openvino_engine.missing():
        pytest.skip("OpenVINO is not installed")
    (first,) = resolve_features([LOW], work(tmp_path, "a"), lambda _: None)
    note = filled / first.fingerprint / "prepared" / f"{first.prepared}.json"
    found = json.loads(note.read_text())
    note.write_text(json.dumps(found | {"openvino": "", "agreements": {}, "trouble": "none here"}))
    told: list[str] = []
    resolve_features([LOW], work(tmp_path, "b"), told.append)
    assert told == [MAKING]
    assert json.loads(note.read_text()) == found


def test_models_of_users_stay_where_they_are(cache: Path, tmp_path: Path) -> None:
    deep = save(tmp_path / "deep")
    before = sorted(str(file) for file in Path(deep).rglob("*"))
    configured = [
        FeatureConfig("one", deep),
        FeatureConfig("two", deep, 3.0),
        FeatureConfig("small", deep, input_size=(32, 48)),
    ]
    told: list[str] = []
    one, two, small = resolve_features(configured, work(tmp_path, "a"), told.append)
    assert sorted(str(file) for file in Path(deep).rglob("*")) == before
    assert (one.fingerprint, one.prepared) == (two.fingerprint, two.prepared)
    assert (small.fingerprint, small.info.input_size) == (one.fingerprint, (32, 48))
    assert small.prepared != one.prepared
    assert told[:4] == [*(f"model {each.name}: {deep}" for each in configured), MAKING]
    assert "model one: takes pictures of any size; 224x224 is used" in told[4]
    assert not (cache / one.fingerprint / "saved_model.pb").exists()
    store = work(tmp_path, "store")
    install(open_store(store), [one, two, small], tmp_path / "a")
    golden = prepared.golden_vectors(store / one.folder, one.prepared)
    assert golden.shape == (16, 3)
    assert np.isfinite(golden).all()


def test_a_model_that_cannot_be_used_says_why(cache: Path, tmp_path: Path) -> None:
    deep = FeatureConfig("deep", save(tmp_path / "deep"), output="logits")
    with pytest.raises(RequestError, match=r"the model in .*deep has no output 'logits'; it has"):
        resolve_features([deep], work(tmp_path, "a"), lambda _: None)
    assert not list(cache.rglob("*.json"))


def test_without_a_cache_models_are_made_ready_for_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert models_cache(tmp_path) == tmp_path / "cache"
    (feature,) = resolve_features([LOW], work(tmp_path, "a"), lambda _: None)
    assert (tmp_path / "a" / feature.folder / "saved_model.pb").is_file()


@pytest.mark.usefixtures("cache")
def test_several_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path;"
        "from lookalike.models.resolving import *;"
        "Path(sys.argv[1]).mkdir();"
        "print(resolve_features([FeatureConfig('low', 'builtin:color-texture')],"
        " Path(sys.argv[1]), lambda _: None))"
    )
    at_once = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)], stdout=subprocess.PIPE, text=True
        )
        for name in ("a", "b")
    ]
    one, two = (process.communicate()[0] for process in at_once)
    assert one
    assert one == two
    assert [process.returncode for process in at_once] == [0, 0]
