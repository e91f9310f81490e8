from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.models import golden as golden_module
from lookalike.models import openvino_engine, prepared
from lookalike.models.embedder import Embedder
from lookalike.models.engines import Engine, check_available, choose, open_model
from lookalike.models.features import Feature, model_fingerprint
from lookalike.models.golden import BOUND, agreement, golden_pictures
from lookalike.models.inspection import inspect
from lookalike.models.openvino_engine import OpenVINOModel
from lookalike.models.prepare_process import compare
from lookalike.models.prepared import Agreement, Prepared
from lookalike.models.quiet_tf import tf
from lookalike.models.resolving import install
from lookalike.models.saved_model import FrozenModel, ModelInfo
from lookalike.pipelines.models import choose_engines
from lookalike.store.objects import open_store

needs_openvino = pytest.mark.skipif(
    bool(openvino_engine.missing()), reason="OpenVINO is not installed: an extra"
)
needs_bf16 = pytest.mark.skipif(
    bool(openvino_engine.missing()) or not openvino_engine.has_bf16(),
    reason="this processor does not calculate in bfloat16",
)
SIZE = (24, 32)
KEY = prepared.key_of(None, None, None)
Saved = Callable[..., tuple[Path, Prepared]]


@pytest.fixture
def without_openvino(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where it is not installed: importing it fails."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    cached = (openvino_engine.missing, openvino_engine.library)
    for function in cached:
        function.cache_clear()
    yield
    for function in cached:
        function.cache_clear()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Saves `call`, from images to vectors, as a model made ready; gives its folder too."""
    made: dict[Any, tuple[Path, Prepared]] = {}

    def save(call: Callable[[Any], Any], dtype: Any = tf.float32) -> tuple[Path, Prepared]:
        if call not in made:
            folder = tmp_path_factory.mktemp("model") / "m"
            spec = tf.TensorSpec([None, *SIZE, 3], dtype)
            function = tf.function(call, [spec], autograph=False)
            kind = type("M", (tf.Module,), {"__call__": staticmethod(function)})
            tf.saved_model.save(kind(), str(folder))
            (folder / prepared.FOLDER).mkdir()
            # `inspect` would not freeze `chaotic`, and on some processors refuse it: there a
            # batch's size changes last bits. It takes and gives what `network` does.
            info = save(network)[1].info if call is chaotic else inspect(folder)
            info = replace(info, frozen=True)
            made[call] = folder, compare(folder, info, folder / prepared.FOLDER / KEY)
        return made[call]

    return save


KERNEL = tf.random.stateless_normal([3, 3, 3, 16], [1, 2])
WEIGHTS = tf.random.stateless_normal([16, 40], [3, 4])


def network(images: Any) -> Any:
    """Small, and of the kind that engines are good at."""
    maps = tf.nn.relu(tf.nn.conv2d(images, KERNEL, 2, "SAME"))
    return tf.matmul(tf.reduce_mean(maps, [1, 2]), WEIGHTS)


def feature_maps(images: Any) -> Any:
    return tf.nn.relu(tf.nn.conv2d(images, KERNEL, 2, "SAME"))


def feature_maps_once(images: Any) -> Any:
    return feature_maps(images)


def of_bytes(images: Any) -> Any:
    return network(tf.cast(images, tf.float32) / 127.5 - 1)


def chaotic(images: Any) -> Any:
    """Blows up the last bits, which no two engines have in common."""
    return tf.sin(1e6 * network(images))


def uncommon(images: Any) -> Any:
    """Uses an operation that OpenVINO does not know."""
    return tf.math.igamma(1 + tf.abs(network(images)), 2.0)


def pictures(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, 3), np.uint8)


def by_name(name: str, found: Prepared) -> Engine:
    return choose(name, "m", found, say=lambda line: None)


# --- agreement --------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_agreement_is_the_lowest_cosine(seed: int, length: float) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 4, 6)).astype(np.float32)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert agreement(a, b) == pytest.approx(cosines.min(), abs=1e-5)
    assert agreement(a * np.float32(length), a) == pytest.approx(1)
    ratio = min(length, 1 / length)
    assert agreement(a * np.float32(length), a, lengths=True) == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize(
    ("row", "reference", "expected"),
    [
        ([0, 0], [0, 0], 1),
        ([0, 0], [1, 0], 0),
        ([1, 0], [0, 0], 0),
        ([np.nan, 1], [1, 1], 0),
        ([np.inf, 1], [1, 1], 0),
        ([1, 1], [np.nan, 1], 0),
        ([2, 0], [-1, 0], -1),
    ],
)
def test_agreement_of_odd_rows(row: list[float], reference: list[float], expected: float) -> None:
    sound = [1.0, 1.0]
    a, b = np.array([sound, row], np.float32), np.array([sound, reference], np.float32)
    for lengths in (False, True):
        assert agreement(a, b, lengths) == pytest.approx(expected)


def test_golden_pictures_differ_in_kind() -> None:
    shown = golden_pictures((64, 48))
    assert shown.shape == (16, 64, 48, 3)
    assert shown.dtype == np.uint8
    levels, contrasts = shown.mean((1, 2, 3)), shown.std((1, 2)).max(1)
    assert levels.min() < 10
    assert levels.max() > 200
    assert contrasts.min() == 0
    assert contrasts.max() > 120
    assert len({hashlib.sha256(one.tobytes()).digest() for one in shown}) == 16
    folder = Path(golden_module.__file__).with_name("golden")
    assert sum(file.stat().st_size for file in folder.iterdir()) < 300_000


# --- the value --------------------------------------------------------------------------------


def test_an_engine_survives_json_and_pickle() -> None:
    engine = Engine("openvino", 0.9995)
    assert Engine.from_json(json.loads(json.dumps(engine.to_json()))) == engine
    assert pickle.loads(pickle.dumps(engine)) == engine
    assert Engine().to_json() == {"name": "tensorflow"}
    assert Engine.from_json({"name": "tensorflow"}) == Engine()
    raced = {"name": "openvino", "cosine": 0.9995, "images_per_s": {"openvino": 9.0}}
    assert Engine.from_json(raced) == engine  # as older versions wrote it
    assert str(engine) == "openvino (cosine 0.99950 to tensorflow)"
    assert str(Engine()) == "tensorflow"


@pytest.mark.parametrize(("cosine", "deviates"), [(1.0, False), (BOUND, False), (0.9989, True)])
def test_only_a_deviating_engine_is_in_the_fingerprint(cosine: float, deviates: bool) -> None:
    feature = Feature("f", "h", 1, "ab" * 32, ModelInfo(SIZE, 4), "models/m")
    other = replace(feature, engine=Engine("openvino-bf16", cosine), prepared="x")
    assert other.engine.deviates == deviates
    prints = {model_fingerprint([each], "cosine") for each in (feature, other)}
    assert len(prints) == 1 + deviates
    there = Feature.from_json(json.loads(json.dumps(other.to_json())))
    assert model_fingerprint([there], "cosine") == model_fingerprint([other], "cosine")


def test_manifests_from_before_engines_mean_tensorflow() -> None:
    feature = Feature("f", "h", 1, "ab" * 32, ModelInfo(SIZE, 4), "models/m")
    line = feature.to_json()
    del line["engine"], line["prepared"]
    assert Feature.from_json(line) == feature


# --- without OpenVINO -------------------------------------------------------------------------


@pytest.mark.usefixtures("without_openvino")
def test_without_openvino_tensorflow_is_chosen(tmp_path: Path) -> None:
    info = ModelInfo(SIZE, 4)
    lines: list[str] = []
    found = Prepared(info, "2026", {"openvino": Agreement(1, 1)})
    assert choose("auto", "m", found, say=lines.append) == Engine()
    assert not lines
    feature = Feature("f", "h", 1, "m", info, "models/m")
    features = choose_engines([feature], "auto", "cosine", tmp_path, lines.append)
    assert features == [feature]
    assert lines == [
        "engine: tensorflow (another may be faster on this machine: pip install "
        "'lookalike[openvino]')"
    ]
    assert choose("tensorflow", "m", found) == Engine()
    for name in ("openvino", "openvino-bf16"):
        with pytest.raises(RequestError, match=rf"engine {name} needs OpenVINO .*pip install 'l"):
            choose(name, "m", found)
    check_available("tensorflow")


@pytest.mark.usefixtures("without_openvino")
def test_without_openvino_a_model_is_made_ready_for_tensorflow(saved: Saved) -> None:
    folder, found = saved(feature_maps_once)
    assert (found.openvino, found.agreements) == ("", {})
    assert found.trouble
    assert prepared.files(folder, KEY) == [f"{prepared.FOLDER}/{KEY}.npy"]
    np.testing.assert_allclose(
        FrozenModel(folder, found.info)(golden_pictures(SIZE)),
        prepared.golden_vectors(folder, KEY),
        rtol=1e-5,
        atol=1e-6,
    )


def test_without_openvino_only_its_own_vectors_are_out_of_reach(
    saved: Saved, request: pytest.FixtureRequest
) -> None:
    folder, found = saved(network)
    request.getfixturevalue("without_openvino")
    near = open_model(folder, found.info, Engine("openvino", 0.9999), KEY)
    assert isinstance(near, FrozenModel)
    for key in ("", KEY):
        with pytest.raises(RequestError, match=r"engine openvino needs OpenVINO .*pip install"):
            open_model(folder, found.info, Engine("openvino", 0.9), key)


# --- with OpenVINO ----------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize(
    ("call", "dtype"),
    [(network, tf.float32), (feature_maps, tf.float32), (of_bytes, tf.uint8)],
    ids=["network", "feature maps", "bytes"],
)
def test_openvino_gives_the_vectors_of_tensorflow(saved: Saved, call: Any, dtype: Any) -> None:
    folder, found = saved(call, dtype)
    engine = by_name("auto", found)
    assert engine.name == "openvino"
    assert engine.cosine == pytest.approx(1, abs=1e-6)
    assert not engine.deviates
    model = open_model(folder, found.info, engine, KEY, 1)
    reference = FrozenModel(folder, found.info)
    assert isinstance(model, openvino_engine.OpenVINOModel)
    for n in (0, 1, 5, 17, 5):
        vectors = model(pictures(n))
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(vectors, reference(pictures(n)), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"images must be uint8 \(n, 24, 32, 3\)"):
        model(pictures(2)[:, :5])


@needs_openvino
def test_a_vector_is_the_same_in_any_batch_and_thread(saved: Saved) -> None:
    folder, found = saved(network)
    model = open_model(folder, found.info, by_name("openvino", found), KEY, 1)
    shown = pictures(64)
    together = model(shown)
    kept = together.copy()
    starts = [0, 1, 4, 9, 16, 25, 36, 49, 64]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda i: model(shown[starts[i] : starts[i + 1]]), range(8)))
    assert np.array_equal(np.concatenate(parts), together)
    assert np.array_equal(together, kept)  # not a buffer that a later call writes to


@needs_openvino
@pytest.mark.parametrize(("counts", "sizes"), [((1, 6), {1, 4}), ((6, 1, 5), {4})])
def test_where_it_is_compiled_for_batches_it_is_not_for_one_picture_again(
    saved: Saved, counts: tuple[int, ...], sizes: set[int]
) -> None:
    folder, found = saved(network)
    model = open_model(folder, found.info, by_name("openvino", found), KEY, 1)
    assert isinstance(model, OpenVINOModel)
    shown = pictures(6)
    first = [model(shown[:count])[0] for count in counts]
    assert model.sizes == sizes
    assert all(np.array_equal(vector, first[0]) for vector in first)


@needs_openvino
def test_vectors_too_far_off_are_not_used_by_auto(saved: Saved) -> None:
    _, found = saved(chaotic)
    lines: list[str] = []
    assert choose("auto", "model m", found, say=lines.append) == Engine()
    (line,) = lines
    assert line.startswith("warning: engine openvino gives model m vectors with a cosine of ")
    assert "(bound 0.999); engine tensorflow is used" in line


@needs_openvino
def test_lengths_count_where_vectors_keep_them() -> None:
    found = Prepared(ModelInfo(SIZE, 4), "2026", {"openvino": Agreement(0.9999, 0.9)})
    assert choose("auto", "m", found, say=lambda _: None) == Engine("openvino", 0.9999)
    assert choose("auto", "m", found, lengths=True, say=lambda _: None) == Engine()


@needs_openvino
def test_an_engine_by_name_may_deviate_and_is_then_needed(
    tmp_path: Path, saved: Saved, request: pytest.FixtureRequest
) -> None:
    folder, found = saved(chaotic)
    lines: list[str] = []
    engine = choose("openvino", "m", found, say=lines.append)
    assert engine.deviates
    (line,) = lines
    assert f"a cosine of {engine.cosine:.5f} to those of tensorflow (bound 0.999)" in line

    feature = Feature("f", "h", 1, "m", found.info, str(folder), engine, KEY)
    shown = [(one,) for one in pictures(5)]
    indexed, _ = Embedder([feature], tmp_path, "cosine", threads=1).embed(shown)
    there = Feature.from_json(feature.to_json())  # a query knows the manifest alone
    queried, _ = Embedder([there], tmp_path, "cosine").embed(shown)
    assert np.array_equal(queried, indexed)
    reference, _ = Embedder([replace(feature, engine=Engine())], tmp_path, "cosine").embed(shown)
    assert agreement(indexed, reference) < BOUND
    with pytest.raises(RequestError, match="has no model for engine openvino"):
        Embedder([replace(there, prepared="")], tmp_path, "cosine")
    request.getfixturevalue("without_openvino")
    with pytest.raises(RequestError, match="needs OpenVINO"):
        Embedder([there], tmp_path, "cosine")


@needs_openvino
def test_a_damaged_conversion_leaves_the_model_to_tensorflow(tmp_path: Path, saved: Saved) -> None:
    folder = Path(shutil.copytree(saved(network)[0], tmp_path / "m"))
    (folder / prepared.FOLDER / f"{KEY}.xml").write_text("<net version='99'/>")
    info = saved(network)[1].info
    assert isinstance(open_model(folder, info, Engine("openvino", 1.0), KEY), FrozenModel)
    with pytest.raises(RequestError, match=r"engine openvino cannot run .*; use the version"):
        open_model(folder, info, Engine("openvino", 0.9), KEY)


@needs_bf16
def test_bfloat16_is_an_engine_of_its_own(saved: Saved) -> None:
    folder, found = saved(network)
    engine = by_name("openvino-bf16", found)
    assert 0.9 < engine.cosine < 1
    model = open_model(folder, found.info, engine, KEY, 1)
    distance = np.abs(model(pictures(4)) - FrozenModel(folder, found.info)(pictures(4))).max()
    assert 1e-4 < distance < 1


@needs_openvino
def test_a_model_that_openvino_cannot_run(tmp_path: Path, saved: Saved) -> None:
    folder, found = saved(uncommon)
    unfit = compare(folder, replace(found.info, frozen=False), tmp_path / "unfit")
    assert not (tmp_path / "unfit.xml").exists()
    for each, words in ((found, "OpenVINO cannot run model m: "), (unfit, "tables")):
        lines: list[str] = []
        assert choose("auto", "model m", each, say=lines.append) == Engine()
        (line,) = lines
        assert line.startswith("warning: ")
        assert words in line
        assert line.endswith("; engine tensorflow is used")
        assert "\n" not in line
        with pytest.raises(RequestError, match=r"^engine openvino: .*; use engine: tensorflow$"):
            choose("openvino", "model m", each)


@needs_openvino
def test_workers_need_no_tensorflow(tmp_path: Path, saved: Saved) -> None:
    """In a fresh process, with the same vectors to the last bit, and with nothing reported."""
    store, work, home = (tmp_path / name for name in ("store", "work", "home"))
    for each in (store, work, home):
        each.mkdir()
    folder, found = saved(network)
    (work / "models").mkdir()
    (work / "models" / "m").symlink_to(folder)
    one = Feature("one", "h", 1, "ab" * 32, found.info, "models/m", prepared=KEY)
    (folder / prepared.FOLDER / f"{KEY}.json").write_text(json.dumps(found.to_json()))
    lines: list[str] = []
    features = [one, replace(one, name="two")]
    features = choose_engines(features, "openvino", "cosine", work, lines.append)
    assert [line.split(" (")[0] for line in lines] == [
        "model one: engine openvino",
        "model two: engine openvino",
    ]
    install(open_store(store), features, work)
    install(open_store(store), features, work)  # leaves alone what is there

    (tmp_path / "features").write_bytes(pickle.dumps(features))
    np.save(tmp_path / "pictures.npy", pictures(7))
    code = (
        "import pickle, sys, numpy as np; from pathlib import Path;"
        "from lookalike.models.embedder import Embedder;"
        "root = Path(sys.argv[1]);"
        "features = pickle.loads((root / 'features').read_bytes());"
        "embedder = Embedder(features, root / 'store', 'cosine', threads=1);"
        "pictures = np.load(root / 'pictures.npy');"
        "vectors = [embedder.embed([(one,)])[0] for one in pictures];"
        "np.save(root / 'vectors.npy', np.concatenate(vectors));"
        "print(embedder.batch, *sorted({'tensorflow', 'openvino_telemetry'} & set(sys.modules)))"
    )
    environment = {**os.environ, "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.split() == ["4"]
    assert list(home.iterdir()) == []
    here, _ = Embedder(features, store, "cosine").embed([(one,) for one in pictures(7)])
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), here)
