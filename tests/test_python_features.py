"""Functions of the user's own as features: with OpenCV, scikit-image, and ones that fail."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.embedding import embed_files
from lookalike.errors import RequestError
from lookalike.images.decoding import Decoder
from lookalike.images.functions import Function, FunctionFailedError, load, vector_of
from lookalike.images.limits import ImageLimits
from lookalike.models import python_files
from lookalike.models.embedder import Embedder
from lookalike.models.features import Feature, model_fingerprint
from lookalike.models.resolving import FeatureConfig, install, resolve_features
from lookalike.outcomes import Embedded, Failed
from lookalike.pipelines.cli import main
from lookalike.records import SourceFile
from lookalike.search.asked import asked_images
from lookalike.search.query_images import embed_images
from lookalike.store.objects import open_store

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "features"

MINE = '''
import os, time
import numpy as np
from mine_helper import HALF


def mean(picture, factor=1.0):
    """Three numbers: the mean of each channel."""
    return picture.mean((0, 1)) * HALF * factor


def size(picture):
    return [*picture.shape, 7]


def hostile(picture):
    """Fails in a way that the picture's first pixel says."""
    first = int(picture[0, 0, 0])
    if first > 240:
        os.abort()
    if first > 200:
        time.sleep(60)
    if first > 160:
        raise ValueError("no such luck")
    if first > 120:
        return np.ones(first)
    if first > 80:
        return np.zeros(2)
    if first > 60:
        return np.ones(1 << 28), np.ones(1 << 28)
    picture[:] = 0
    return np.array([1, 2])


def noise(picture):
    return np.random.rand(4)


def nothing(picture):
    return None


def table(picture):
    return np.ones((2, 2))


def unusable(picture):
    return np.full(3, np.nan)


def broken(picture):
    return picture.no_such_thing


LENGTHS = iter(range(1, 99))


def lengths(picture):
    return np.ones(next(LENGTHS))


NOT_CALLABLE = 3
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module `mine`, and one that it imports; the current one."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "mine.py").write_text(MINE)
    (folder / "mine_helper.py").write_text("HALF = 0.5\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name in ("mine", "mine_helper"):
        sys.modules.pop(name, None)


def made(work: Path, handle: str, **more: Any) -> Feature:
    (feature,) = resolve_features([FeatureConfig("m", handle, **more)], work, lambda _: None)
    return feature


def asked(images: list[Any], embedder: Embedder) -> Any:
    return embed_images(asked_images(images), lambda: embedder, embedder.dim).vectors


def picture_of(path: Path, value: int, size: tuple[int, int] = (64, 64)) -> Path:
    Image.new("RGB", size, (value, 10, 200)).save(path)
    return path


def listed(path: Path) -> SourceFile:
    return SourceFile(str(path), path.stat().st_size, "1")


# --- handles ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handle", "options", "size", "expected"),
    [
        ("python:a:f", {}, None, ("a", "f", {}, (256, 256))),
        ("python:a.b:f?size=64", {}, None, ("a.b", "f", {}, (64, 64))),
        (
            "python:a:f?size=64x48&n=3&word=x&l=[1,2]",
            {},
            None,
            ("a", "f", {"n": 3, "word": "x", "l": [1, 2]}, (64, 48)),
        ),
        ("python:a:f?size=64&n=3", {"params": {"n": 4}}, (32, 40), ("a", "f", {"n": 4}, (32, 40))),
    ],
)
def test_handles(
    handle: str, options: dict[str, Any], size: tuple[int, int] | None, expected: Any
) -> None:
    found = python_files.parse(handle, options, size)
    assert (found.module, found.name, json.loads(found.params), found.size) == expected


@pytest.mark.parametrize(
    ("handle", "options", "message"),
    [
        ("python:a", {}, "written python:module:function"),
        ("python:a:", {}, "written python:module:function"),
        ("python:a/b.py:f", {}, "written python:module:function"),
        ("python:a:f?size=4", {}, "size needs HEIGHTxWIDTH or one number, got 4"),
        ("python:a:f?size=4x4x4", {}, "size needs HEIGHTxWIDTH"),
        ("python:a:f", {"mean": 1}, "takes no mean, which are for ONNX models"),
        ("python:a:f", {"params": [1]}, r"params needs names and values, got \[1\]"),
        ("python:a:f", {"params": {"a b": 1}}, "params needs names and values"),
        ("python:a:f", {"params": {"a": float("nan")}}, "must be plain numbers"),
        ("python:a:f", {"params": {"a": {1, 2}}}, "must be plain numbers"),
    ],
)
def test_handles_that_are_not_understood(
    handle: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        python_files.parse(handle, options, None)


# --- what a function is made of ---------------------------------------------------------------


def test_the_fingerprint_is_of_sources_versions_and_parameters(mine: Path, tmp_path: Path) -> None:
    function = python_files.parse("python:mine:mean", {}, None)
    described, sources = python_files.describe(function)
    assert described["sources"].keys() == {"mine", "mine_helper"}
    assert described["packages"] == {"numpy": np.__version__}
    assert sources["mine"].decode() == MINE

    def print_of(handle: str, **more: Any) -> str:
        feature = made(tmp_path / f"w{len(list(tmp_path.iterdir()))}", handle, **more)
        return feature.fingerprint

    first = print_of("python:mine:mean")
    assert print_of("python:mine:mean") == first
    assert print_of("python:mine:mean", input_size=(256, 256)) == first
    others = [
        print_of("python:mine:size"),
        print_of("python:mine:mean?factor=2"),
        print_of("python:mine:mean?size=64"),
    ]
    assert print_of("python:mine:mean", options={"params": {"factor": 2}}) == others[1]
    (mine / "mine_helper.py").write_text("HALF = 0.25\n")
    sys.modules.pop("mine_helper")
    others.append(print_of("python:mine:mean"))
    assert len({first, *others}) == 5


def test_a_store_refuses_a_function_that_has_changed(mine: Path, tmp_path: Path) -> None:
    work, store = tmp_path / "work", tmp_path / "store"
    store.mkdir()
    feature = made(work, "python:mine:mean?size=32")
    install(open_store(store), [feature], work)
    assert (store / feature.folder / "source" / "mine.py").read_text() == MINE
    picture = picture_of(tmp_path / "a.png", 80)
    embedder = Embedder([feature], store, "l2")
    np.testing.assert_allclose(asked([str(picture)], embedder), [[40, 5, 100]])
    pixels = np.asarray(Image.open(picture))
    np.testing.assert_allclose(asked([pixels], embedder), [[40, 5, 100]])

    (mine / "mine_helper.py").write_text("HALF = 0.25\n")
    with pytest.raises(RequestError, match=r"source of mine_helper differs; use the same .*again"):
        Embedder([feature], store, "l2")
    (mine / "mine_helper.py").write_text("HALF = 0.5\n")
    marker = store / feature.folder / "feature.json"
    text = marker.read_text()
    marker.write_text(text.replace(np.__version__, "1.0"))
    with pytest.raises(RequestError, match=f"numpy is {np.__version__} here, 1.0 there"):
        Embedder([feature], store, "l2")
    marker.write_text(text)
    (mine / "mine.py").unlink()
    with pytest.raises(RequestError, match="there is no module mine; install it, start in its"):
        Embedder([feature], store, "l2")


def test_functions_that_are_refused(mine: Path, tmp_path: Path) -> None:
    for number, (name, message) in enumerate(
        {
            "mine:absent": "has no function absent; it has: mean, size, hostile",
            "mine:NOT_CALLABLE": "has no function NOT_CALLABLE",
            "mine:noise": "another vector each time .*; give its random numbers a seed",
            "mine:nothing": "gives nothing, expected one row of numbers",
            "mine:table": r"gives an array of shape \(2, 2\)",
            "mine:unusable": "zero or not finite for each of 16 pictures",
            "mine:broken": "at each: python:mine:broken fails at it: AttributeError",
            "mine:mean?nope=1": "at each: .*TypeError.*nope",
            "mine:lengths": "another vector each time",
            "absent:f": "there is no module absent; install it",
            "mine.absent:f": "the module mine.absent cannot be found",
            "math:sqrt": "has no Python source",
        }.items()
    ):
        with pytest.raises(RequestError, match=message) as caught:
            made(tmp_path / str(number), f"python:{name}")
        assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="no signatures and outputs"):
        made(tmp_path / "signature", "python:mine:mean", output="x")
    (mine / "damaged.py").write_text("def f(:\n")
    with pytest.raises(RequestError, match="damaged is no Python"):
        made(tmp_path / "damaged", "python:damaged:f")
    (mine / "raising.py").write_text("raise OSError('at import')\n")
    with pytest.raises(RequestError, match="raising cannot be imported: at import"):
        made(tmp_path / "raising", "python:raising:f")


# --- in the decoder process -------------------------------------------------------------------


def test_a_function_that_fails_costs_one_picture(mine: Path, tmp_path: Path) -> None:
    values = {
        "fine": 0,
        "zero": 90,
        "length": 130,
        "raises": 170,
        "slow": 210,
        "aborts": 250,
        "last": 1,
        "memory": 70,
    }
    for name, value in values.items():
        picture_of(tmp_path / f"{name}.png", value)
    function = Function("mine", "hostile", "{}", (16, 16), 2)
    other = Function("mine", "mean", '{"factor": 2}', (16, 16), 3)
    limits = replace(ImageLimits(), max_seconds=1.0)
    files = [listed(tmp_path / f"{name}.png") for name in values]
    found: dict[str, Any] = {}
    with Decoder([(8, 8)], limits, [function, other]) as decoder:
        for outcome in decoder.decode(files, once=True):
            found[Path(outcome.file.uri).stem] = outcome
    words = {
        name: f"{one.reason} {one.detail}" for name, one in found.items() if isinstance(one, Failed)
    }
    assert words.keys() == {"length", "raises", "slow", "aborts", "memory"}
    expected = "gives 130 numbers, expected 2 as for other pictures"
    assert words["length"] == f"model_failed python:mine:hostile {expected}"
    assert words["raises"].endswith("hostile fails at it: ValueError: no such luck")
    assert words["slow"].startswith("timed_out decoding took more than 1 s")
    assert words["aborts"].startswith("crashed the decoder was ended by signal 6 (SIGABRT)")
    assert words["memory"].startswith("out_of_memory")
    pixels, vector, means = found["fine"].inputs
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_array_equal(vector, np.array([1, 2], np.float32))
    # What a function does to its picture reaches no other.
    np.testing.assert_allclose(means, [0, 10, 200])
    np.testing.assert_array_equal(found["zero"].inputs[1], [0, 0])


def test_a_hybrid_of_a_function_and_a_model(mine: Path, tmp_path: Path) -> None:
    configured = [
        FeatureConfig("mine", "python:mine:mean?size=32", 1.0),
        FeatureConfig("low", "builtin:color-texture", 3.0),
    ]
    features = resolve_features(configured, tmp_path / "work", lambda _: None)
    embedder = Embedder(features, tmp_path / "work", "cosine")
    path = picture_of(tmp_path / "a.png", 80)
    with Decoder(embedder.sizes, ImageLimits(), embedder.functions) as decoder:
        (found,) = embed_files([listed(path)], embedder, decoder)
    assert isinstance(found, Embedded)
    block = np.array([80, 10, 200]) / np.linalg.norm([80, 10, 200])
    np.testing.assert_allclose(found.vector[:3], block / 2, atol=1e-6)
    assert np.linalg.norm(found.vector) == pytest.approx(1)
    np.testing.assert_array_equal(asked([str(path)], embedder)[0], found.vector)
    assert embedder.embed([embedder.blank()])[0].shape == (1, 1514)
    assert model_fingerprint(features, "cosine") != model_fingerprint(features[1:], "cosine")


# --- the examples, through the commands -------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "features"),
    [
        ("cv2", ["opencv_features:hsv_histogram?size=96", "opencv_features:orb_words"]),
        ("skimage", ["scikit_features:lbp_histogram", "scikit_features:hog_grid?size=64"]),
    ],
)
def test_index_query_and_the_next_night(
    library: str,
    features: list[str],
    tmp_path: Path,
    pictures: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip(library)
    shutil.copytree(EXAMPLES, tmp_path / "code")
    monkeypatch.chdir(tmp_path / "code")
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder, store = pictures(12), tmp_path / "store"
    config = tmp_path / "config.yaml"
    lines = [f'- {{name: f{i}, handle: "python:{one}"}}\n' for i, one in enumerate(features)]
    config.write_text("features:\n" + "".join(lines))
    index = ["index", "--config", str(config), "--images", str(folder), "--store", str(store)]
    assert main([*index, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["counts"]["embedded"] == 12
    pictures(3, "pictures", first_seed=100)  # 000 to 002 are other pictures now
    assert main([*index, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["counts"]["embedded"] == 3
    assert (
        main(["query", "--store", str(store), "--images", str(folder / "005.jpg"), "--json"]) == 0
    )
    first = json.loads(capfd.readouterr().out.splitlines()[0])
    assert first["uri"].endswith("005.jpg")
    assert first["score"] == pytest.approx(1, abs=1e-5)
    for name in ("opencv_features", "scikit_features"):
        sys.modules.pop(name, None)


def test_the_examples_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    pytest.importorskip("cv2")
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    call = load(Function("opencv_features", "hsv_histogram", '{"bins": 4}', (64, 64)))
    vector = vector_of(call, Function("opencv_features", "hsv_histogram", "{}", (64, 64)), red)
    assert vector.shape == (64,)
    assert vector[15] == 1  # hue 0, the highest saturation and value
    assert vector.sum() == 1
    function = Function("opencv_features", "orb_words", "{}", (64, 64), 256)
    assert not vector_of(load(function), function, red).any()
    blocks = np.random.default_rng(0).integers(0, 256, (32, 32, 1))
    board = np.kron(blocks, np.ones((8, 8, 1)))
    found = vector_of(load(function), function, board.repeat(3, 2).astype(np.uint8))
    assert 10 < (found**2).sum() <= 500

    pytest.importorskip("skimage")
    function = Function("scikit_features", "lbp_histogram", "{}", (64, 64), 10)
    flat = vector_of(load(function), function, red)
    assert flat[8] ** 2 > 0.9  # all neighbours as bright: eight ones, but at the border
    function = Function("scikit_features", "hog_grid", "{}", (64, 64), 144)
    assert not vector_of(load(function), function, red).any()
    bars = np.zeros((64, 64, 3), np.uint8)
    bars[:, ::16] = bars[:, 1::16] = 255  # upright bars: gradients lie across
    per_cell = vector_of(load(function), function, bars).reshape(16, 9)
    assert (per_cell.argmax(1) == 0).all()


def test_a_function_gets_a_picture_of_its_own() -> None:
    def spoil(picture: Any) -> Any:
        picture[:] = 0
        return [1.0]

    pixels = np.ones((8, 8, 3), np.uint8)
    function = Function("m", "f", "{}", (8, 8), 2)
    with pytest.raises(FunctionFailedError, match="gives 1 numbers, expected 2"):
        vector_of(spoil, function, pixels)
    assert pixels.all()
