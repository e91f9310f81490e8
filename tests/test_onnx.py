"""ONNX files as handles: what they are given, what is made of what they give, what is refused."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from lookalike.embed_spec import EmbedSpec
from lookalike.errors import RequestError
from lookalike.models import openvino_engine
from lookalike.models.engines import Engine, open_model
from lookalike.models.features import Feature
from lookalike.models.golden import golden_pictures
from lookalike.models.handles import model_files, resolve
from lookalike.models.onnx_files import external_files
from lookalike.models.onnx_preprocessing import Preprocessing, checked, of_processor, settle
from lookalike.models.resolving import FeatureConfig, install, resolve_features
from lookalike.pipelines.cli import main
from lookalike.pipelines.models import choose_engines
from lookalike.store.objects import open_store
from tests.onnx_files import MEAN, STD, convolutions, node, same_in_tensorflow, save_model

pytestmark = pytest.mark.skipif(
    bool(openvino_engine.missing()), reason="OpenVINO is not installed: an extra"
)
NORMAL = {"mean": [*MEAN], "std": [*STD]}
PROCESSOR = {
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 40},
    "do_resize": True,
    "size": {"shortest_edge": 48},
    "do_normalize": True,
    "image_mean": [*MEAN],
    "image_std": [*STD],
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "resample": 3,
}


def made(work: Path, handle: Path | str, **more: Any) -> tuple[Feature, list[str]]:
    told: list[str] = []
    (feature,) = resolve_features([FeatureConfig("m", str(handle), **more)], work, told.append)
    return feature, told


def vectors(work: Path, feature: Feature, pictures: Any) -> Any:
    folder = work / feature.folder
    return open_model(folder, feature.info, Engine(), feature.prepared, 1)(pictures)


def cosines(a: Any, b: Any) -> Any:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# --- the same weights in both worlds ----------------------------------------------------------


def test_the_same_weights_give_the_same_vectors_by_every_way_in(tmp_path: Path) -> None:
    deep, _ = made(tmp_path / "tf", same_in_tensorflow(tmp_path / "saved"))
    pictures = golden_pictures((32, 40))
    expected = vectors(tmp_path / "tf", deep, pictures)
    assert expected.shape == (16, 16)

    one = convolutions(tmp_path / "plain" / "net.onnx")
    hub = convolutions(tmp_path / "hub" / "onnx" / "model.onnx", external="model.onnx_data")
    (hub.parent.parent / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (hub.parent.parent / "README.md").write_text("a card")
    archive = tmp_path / "hub.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(hub.parent.parent, ".")
    ways: list[tuple[Path, dict[str, Any]]] = [
        (one, {"options": NORMAL}),
        (one.parent, {"options": {**NORMAL, "layout": "NCHW"}, "input_size": (32, 40)}),
        (one, {"options": NORMAL, "output": "map"}),  # averaged here, not by the model
        (hub, {}),
        (hub.parent.parent, {}),
        (archive, {}),
    ]
    prints = []
    for number, (handle, more) in enumerate(ways):
        work = tmp_path / f"work-{number}"
        feature, told = made(work, handle, **more)
        assert not [line for line in told if "range of values" in line or "any size" in line]
        got = vectors(work, feature, pictures)
        assert cosines(got, expected).min() >= 0.9999, handle
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)
        prints.append(feature.fingerprint)
    assert prints[3] == prints[4] == prints[5]  # the same files, found in three ways
    assert prints[0] == prints[2]  # which output is part of another fingerprint
    assert len({prints[0], prints[1], prints[3]}) == 3


def test_what_the_store_keeps_is_all_that_is_needed(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "given" / "model.onnx", external="sub/w.bin")
    feature, _ = made(tmp_path / "work", path, options=NORMAL)
    before = vectors(tmp_path / "work", feature, golden_pictures((32, 40)))
    store = tmp_path / "store"
    store.mkdir()
    install(open_store(store), [feature], tmp_path / "work")
    shutil.rmtree(path.parent)
    shutil.rmtree(tmp_path / "work")
    assert model_files(store / feature.folder) == ["model.onnx", "preprocessing.json", "sub/w.bin"]
    np.testing.assert_array_equal(vectors(store, feature, golden_pictures((32, 40))), before)
    EmbedSpec((feature,), str(store))
    # The store's own copy is a handle as well, and says itself how pictures are prepared.
    again, _ = made(tmp_path / "again", store / feature.folder)
    assert again.fingerprint == feature.fingerprint
    (store / feature.folder / "model.onnx").unlink()
    with pytest.raises(RequestError, match="lacks the model of feature 'm'"):
        EmbedSpec((feature,), str(store))


def test_the_same_model_in_openvinos_format(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "given" / "net.onnx")
    first, _ = made(tmp_path / "first", path, options=NORMAL, output="embedding")
    library, folder = openvino_engine.library(), tmp_path / "converted"
    library.save_model(library.Core().read_model(path), folder / "net.xml", compress_to_fp16=False)
    (folder / "notes.xml").write_text("<notes/>")  # no weights beside it
    store = tmp_path / "store"
    store.mkdir()
    for number, handle in enumerate([folder / "net.xml", folder]):
        work = tmp_path / f"work-{number}"
        second, _ = made(work, handle, options=NORMAL, output="embedding")
        assert second.fingerprint != first.fingerprint
        pictures = golden_pictures((32, 40))
        expected = vectors(tmp_path / "first", first, pictures)
        np.testing.assert_allclose(vectors(work, second, pictures), expected, rtol=1e-5)
        install(open_store(store), [second], work)
    names = ["model.bin", "model.xml", "preprocessing.json"]
    assert model_files(store / second.folder) == names
    (folder / "net.bin").unlink()
    with pytest.raises(RequestError, match=r"keeps weights in a file net.bin beside it, which is"):
        made(tmp_path / "work", folder / "net.xml")
    with pytest.raises(RequestError, match=r"no saved_model.pb and no .onnx file.*an .xml"):
        made(tmp_path / "work", folder)
    (folder / "net.bin").write_bytes(b"")
    (folder / "net.xml").write_text("<net>")
    with pytest.raises(RequestError, match=r"net.xml: OpenVINO cannot read it"):
        made(tmp_path / "work", folder / "net.xml")


# --- what the model is given, written out -----------------------------------------------------

PICTURE = np.zeros((1, 8, 8, 3), np.uint8)
PICTURE[..., 0], PICTURE[..., 1], PICTURE[..., 2] = 51, 102, 255  # .2, .4, 1
PICTURE[:, 2:6, 2:6] = (255, 0, 51)  # the middle: 1, 0, .2
# A quarter of the picture is the middle: .2 * .75 + 1 * .25 and so on.
PLAIN = [0.4, 0.3, 0.8]


def channel_means(path: Path, layout: str = "NCHW", dtype: int = TensorProto.FLOAT) -> Path:
    """A model whose vector is the mean of each channel of what it is given, by its input."""
    shape = ["n", 3, 8, 8] if layout == "NCHW" else ["n", 8, 8, 3]
    axes = [2, 3] if layout == "NCHW" else [1, 2]
    nodes = [
        node("Cast", "x", "f", to=TensorProto.FLOAT),
        node("ReduceMean", "f", "y", axes=axes, keepdims=0),
    ]
    return save_model(path, nodes, {"x": shape}, {"y": ["n", 3]}, dtype=dtype)


@pytest.mark.parametrize(
    ("layout", "dtype", "options", "expected"),
    [
        ("NCHW", TensorProto.FLOAT, {}, PLAIN),
        ("NHWC", TensorProto.FLOAT, {}, PLAIN),
        ("NCHW", TensorProto.FLOAT16, {}, PLAIN),
        ("NCHW", TensorProto.DOUBLE, {"mean": 0.5, "std": 0.5}, [-0.2, -0.4, 0.6]),
        ("NCHW", TensorProto.UINT8, {}, [102, 76.5, 204]),
        ("NHWC", TensorProto.UINT8, {"channels": "bgr"}, [204, 76.5, 102]),
        ("NCHW", TensorProto.FLOAT, {"rescale": 1}, [102, 76.5, 204]),
        ("NCHW", TensorProto.FLOAT, {"rescale": 1, "mean": [2, 0.5, 4]}, [100, 76, 200]),
        ("NCHW", TensorProto.FLOAT, {"mean": [0.4, 0.2, 0], "std": [1, 0.5, 2]}, [0, 0.2, 0.4]),
        # The mean is of the channels in the order of the model: the first is blue.
        ("NCHW", TensorProto.FLOAT, {"channels": "bgr", "mean": [0.8, 0, 0]}, [0, 0.3, 0.4]),
    ],
)
def test_what_a_model_is_given(
    tmp_path: Path, layout: str, dtype: int, options: dict[str, Any], expected: list[float]
) -> None:
    path = channel_means(tmp_path / "m.onnx", layout, dtype)
    feature, _ = made(tmp_path / "work", path, options=options)
    (got,) = vectors(tmp_path / "work", feature, PICTURE)
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_crop_takes_the_middle(tmp_path: Path) -> None:
    path = channel_means(tmp_path / "m.onnx")
    feature, _ = made(tmp_path / "work", path, options={"crop": 0.5})
    assert feature.info.input_size == (16, 16)  # of the picture, of which the model gets 8 by 8
    twice = PICTURE.repeat(2, axis=1).repeat(2, axis=2)
    (got,) = vectors(tmp_path / "work", feature, twice)
    np.testing.assert_allclose(got, [1, 0, 0.2], atol=1e-6)


@pytest.mark.slow
def test_pooling_of_maps_and_tokens(tmp_path: Path) -> None:
    """Tokens are the four rows of a picture of 4 by 1: (batch, 4 tokens, 3 channels)."""
    tokens = save_model(
        tmp_path / "tokens.onnx",
        [node("Reshape", "x s", "last_hidden_state")],
        {"x": ["n", 4, 8, 3]},
        {"last_hidden_state": ["n", 4, 24]},
        {"s": np.array([0, 4, 24])},
    )
    rows = np.zeros((1, 4, 8, 3), np.uint8)
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = 51, 102, 255, 0
    for pooling, value in {"cls": 0.2, "mean": 0.4, "max": 1.0}.items():
        work = tmp_path / pooling
        feature, _ = made(work, tokens, options={"pooling": pooling})
        np.testing.assert_allclose(vectors(work, feature, rows), [[value] * 24], atol=1e-6)
    feature, _ = made(tmp_path / "none", tokens, options={"pooling": "none"})
    expected = np.repeat([0.2, 0.4, 1, 0], 24)
    np.testing.assert_allclose(vectors(tmp_path / "none", feature, rows)[0], expected, atol=1e-6)
    with pytest.raises(RequestError, match=r"\(batch, 4, 24\), a vector for each of 4 tokens; set"):
        made(tmp_path / "a", tokens)

    nodes = [node("Identity", "x", "y")]
    maps = save_model(tmp_path / "maps.onnx", nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 3, 8, 8]})
    for pooling, wanted in {"": PLAIN, "mean": PLAIN, "max": [1, 0.4, 1]}.items():
        options = {"pooling": pooling} if pooling else {}
        feature, _ = made(tmp_path / f"m{pooling}", maps, options=options)
        got = vectors(tmp_path / f"m{pooling}", feature, PICTURE)
        np.testing.assert_allclose(got, [wanted], atol=1e-6)
    with pytest.raises(RequestError, match="a feature map, which has no first token"):
        made(tmp_path / "b", maps, options={"pooling": "cls"})
    with pytest.raises(RequestError, match="nothing to pool; leave pooling: mean out"):
        made(tmp_path / "c", channel_means(tmp_path / "v.onnx"), options={"pooling": "mean"})


def test_open_sizes_and_ranges_are_told(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x", "y", axes=[2, 3], keepdims=0)]
    path = save_model(tmp_path / "m.onnx", nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 3]})
    feature, told = made(tmp_path / "a", path)
    assert feature.info.input_size == (224, 224)
    assert any("takes pictures of any size; 224x224 is used" in line for line in told)
    assert any("nothing says what range of values it takes" in line for line in told)
    feature, told = made(tmp_path / "b", path, input_size=(8, 8), options={"mean": 0})
    assert feature.info.input_size == (8, 8)
    assert not [line for line in told if "range of values" in line or "any size" in line]
    np.testing.assert_allclose(vectors(tmp_path / "b", feature, PICTURE), [PLAIN], atol=1e-6)


def test_a_batch_of_one_is_opened(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "one.onnx", batch=1)
    feature, _ = made(tmp_path / "a", path, options=NORMAL)
    pictures = golden_pictures((32, 40))
    got = vectors(tmp_path / "a", feature, pictures)
    single = [vectors(tmp_path / "a", feature, picture[None])[0] for picture in pictures]
    np.testing.assert_allclose(got, single, rtol=1e-4, atol=1e-5)


# --- what is refused --------------------------------------------------------------------------


def identity(path: Path, inputs: dict[str, list[int | str]], **more: Any) -> Path:
    first = next(iter(inputs))
    shape = inputs[first]
    return save_model(path, [node("Identity", first, "y")], inputs, {"y": shape}, **more)


def refused(tmp_path: Path) -> dict[str, tuple[Path, dict[str, Any], str]]:
    image: list[int | str] = ["n", 3, 8, 8]
    flat = [node("Reshape", "x s", "y")]
    noise = [node("RandomUniformLike", "x", "r"), node("Add", "x r", "y")]
    batch = [node("ReduceMean", "x", "m", axes=[0], keepdims=1), node("Sub", "x m", "y")]
    return {
        "text": (
            identity(
                tmp_path / "a.onnx",
                {"ids": ["n", 77]},
                dtype=TensorProto.INT64,
                gives=TensorProto.INT64,
            ),
            {},
            r"takes ids i64 \[.*77\], which are no images",
        ),
        "two inputs": (
            save_model(
                tmp_path / "b.onnx",
                [node("Add", "x z", "y")],
                {"x": image, "z": image},
                {"y": image},
            ),
            {},
            r"takes 2 inputs \(x f32 .*, z f32 .*\), expected one, the images",
        ),
        "gray": (
            identity(tmp_path / "c.onnx", {"x": ["n", 1, 8, 8]}),
            {},
            "none of its axes are the three channels of a picture",
        ),
        "either": (
            identity(tmp_path / "d.onnx", {"x": ["n", 3, 8, 3]}),
            {},
            "set layout to NCHW or NHWC, as both may be meant",
        ),
        "wrong layout": (
            identity(tmp_path / "e.onnx", {"x": image}),
            {"options": {"layout": "NHWC"}},
            "no three channels where layout: NHWC has them",
        ),
        "other size": (
            identity(tmp_path / "f.onnx", {"x": image}),
            {"input_size": (16, 16)},
            "height x width 8x8, not 16x16 as configured",
        ),
        "no such output": (
            identity(tmp_path / "g.onnx", {"x": image}),
            {"output": "z"},
            "has no output 'z'; it has: y f32",
        ),
        "outputs": (
            save_model(
                tmp_path / "h.onnx",
                [node("Identity", "x", "one"), node("Identity", "x", "two")],
                {"x": image},
                {"one": image, "two": image},
            ),
            {},
            "several outputs, none with a usual name; set output to one of: one f32",
        ),
        "fixed batch": (
            save_model(
                tmp_path / "i.onnx",
                flat,
                {"x": [1, 3, 8, 8]},
                {"y": [1, 192]},
                {"s": np.array([1, 192])},
            ),
            {},
            "fails on two images.*; export it with an open batch axis",
        ),
        "whole numbers": (
            save_model(
                tmp_path / "j.onnx",
                [node("Cast", "x", "y", to=TensorProto.INT64)],
                {"x": image},
                {"y": image},
                gives=TensorProto.INT64,
            ),
            {},
            r"gives y i64 \(2, 3, 8, 8\) for 2 images, expected floats",
        ),
        "not finite": (
            save_model(tmp_path / "k.onnx", [node("Log", "x", "y")], {"x": image}, {"y": image}),
            {},
            "values that are not finite for a plain picture",
        ),
        "noise": (
            save_model(tmp_path / "l.onnx", noise, {"x": image}, {"y": image}),
            {},
            "gives another vector each time it is called",
        ),
        "batch": (
            save_model(tmp_path / "m.onnx", batch, {"x": image}, {"y": image}),
            {},
            "another vector when other pictures share its batch",
        ),
        "bytes": (
            identity(
                tmp_path / "o.onnx", {"x": image}, dtype=TensorProto.UINT8, gives=TensorProto.UINT8
            ),
            {"options": {"mean": 0.5}},
            "values of 0 to 255, and so no mean and std",
        ),
        "signature": (
            identity(tmp_path / "p.onnx", {"x": image}),
            {"signature": "s"},
            "only SavedModels have signatures; remove 's'",
        ),
    }


def test_models_that_are_refused(tmp_path: Path) -> None:
    for name, (path, more, message) in refused(tmp_path).items():
        with pytest.raises(RequestError, match=message) as caught:
            made(tmp_path / name, path, **more)
        assert "\n" not in str(caught.value), name


def test_options_belong_to_onnx_models(tmp_path: Path) -> None:
    saved = same_in_tensorflow(tmp_path / "saved")
    for handle in (saved, "builtin:photo"):
        with pytest.raises(
            RequestError, match="takes no mean; params are for functions, the others for ONNX"
        ):
            resolve(handle, tmp_path / "work", {"mean": 0.5})


def test_without_openvino_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = convolutions(tmp_path / "net.onnx")
    feature, _ = made(tmp_path / "work", path, options=NORMAL)
    monkeypatch.setattr(openvino_engine, "missing", lambda: "No module named 'openvino'")
    with pytest.raises(RequestError, match=r"pip install 'lookalike\[openvino\]'"):
        vectors(tmp_path / "work", feature, golden_pictures((32, 40)))


def test_the_reference_of_onnx_models_is_openvino(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "net.onnx")
    feature, _ = made(tmp_path / "work", path, options=NORMAL)
    for asked in ("auto", "tensorflow", "openvino"):
        told: list[str] = []
        (chosen,) = choose_engines([feature], asked, "cosine", tmp_path / "work", told.append)
        assert chosen.engine.name == "openvino"
        assert not chosen.engine.deviates
    assert told == ["model m: engine openvino"]


# --- files ------------------------------------------------------------------------------------


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = convolutions(tmp_path / "net.onnx").read_bytes()
    cases = {"empty": b"", "text": b"<html>not a model</html>" * 20, "zip": b"PK\x03\x04" * 50}
    cases |= {f"cut-{part}": whole[: len(whole) * part // 10] for part in (1, 5, 9)}
    for name, data in cases.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(RequestError, match="is no ONNX file, or is cut short or damaged"):
            external_files(path)
    random = np.random.default_rng(0)
    for number in range(300):  # whatever the bytes are: an answer or that error
        data = bytearray(whole)
        for place in random.integers(0, len(whole), 1 + number % 20):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            external_files(path)
        except RequestError:
            continue


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "model.onnx"])
def test_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    path = convolutions(tmp_path / "net.onnx")
    model = onnx.load(str(path))
    one = model.graph.initializer[0]
    one.ClearField("raw_data")
    one.data_location = TensorProto.EXTERNAL
    one.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RequestError, match="may only name files below its own folder"):
        made(tmp_path / "work", path)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "m" / "net.onnx", external="net.onnx.data")
    (path.parent / "net.onnx.data").unlink()
    with pytest.raises(RequestError, match=r"weights in a file net.onnx.data beside it, which is"):
        made(tmp_path / "work", path)


def test_a_folder_of_several_models(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    convolutions(folder / "vision.onnx")
    convolutions(folder / "text.onnx")
    with pytest.raises(RequestError, match=r"several models \(text.onnx, vision.onnx\); give one"):
        resolve(str(folder), tmp_path / "work")
    convolutions(folder / "model.onnx")  # goes before its variants
    assert resolve(str(folder), tmp_path / "work").folder.is_dir()


# --- preprocessor_config.json -----------------------------------------------------------------

HALF = ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            PROCESSOR,
            {"rescale": 0.00392156862745098, "mean": MEAN, "std": STD, "input_size": (32, 40)},
        ),
        # DINOv2: made 256 on the shorter side, the middle 224 taken
        (
            {
                "crop_size": {"height": 224, "width": 224},
                "size": {"shortest_edge": 256},
                "image_mean": MEAN,
                "image_std": STD,
                "do_normalize": True,
            },
            {"rescale": 1 / 255, "mean": MEAN, "std": STD, "input_size": (224, 224)},
        ),
        # SigLIP, and ViT
        (
            {
                "size": {"height": 384, "width": 256},
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
                "rescale_factor": 0.5,
            },
            {"rescale": 0.5, "mean": HALF[0], "std": HALF[1], "input_size": (384, 256)},
        ),
        # CLIP of 2021: plain numbers
        (
            {
                "crop_size": 224,
                "do_center_crop": True,
                "size": 224,
                "image_mean": MEAN,
                "image_std": STD,
            },
            {"rescale": 1 / 255, "mean": MEAN, "std": STD, "input_size": (224, 224)},
        ),
        # ConvNeXt: no crop of its own
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875},
            {"rescale": 1 / 255, "input_size": (224, 224)},
        ),
        (
            {"do_center_crop": False, "crop_size": 224, "size": 256},
            {"rescale": 1 / 255, "input_size": (256, 256)},
        ),
        ({"do_rescale": False, "do_normalize": False, "image_mean": MEAN}, {"rescale": 1.0}),
        (
            {"do_flip_channel_order": True, "size": {"longest_edge": 512}},
            {"rescale": 1 / 255, "channels": "bgr"},
        ),
        ({"do_resize": False, "size": 99}, {"rescale": 1 / 255}),
        ({}, {"rescale": 1 / 255}),
    ],
)
def test_processors(tmp_path: Path, raw: dict[str, Any], expected: dict[str, Any]) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(raw))
    assert of_processor(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read .*preprocessor_config.json"),
        ("[1]", "must hold a JSON object, not list"),
        ('{"rescale_offset": true}', "rescale_offset is not understood"),
        ('{"do_normalize": true, "image_std": [1,1,1]}', "do_normalize and no image_mean"),
        ('{"image_mean": [1, 2], "image_std": 1}', r"mean needs a number, or three .*\[1, 2\]"),
        ('{"image_mean": 0, "image_std": [1, 0, 1]}', "std needs .*above 0"),
        ('{"size": "big"}', "its size is not understood: 'big'"),
        ('{"size": {"height": -4, "width": 4}}', "its size is not understood"),
        ('{"rescale_factor": NaN}', "rescale needs a number above 0, got nan"),
        ('{"rescale_factor": "a"}', "rescale needs a number above 0"),
    ],
)
def test_processors_that_are_not_understood(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "preprocessor_config.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=message):
        of_processor(path)


def test_the_configuration_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    settled, known = settle(tmp_path, {"mean": 0.25, "crop": 1, "pooling": "cls"}, (64, 64))
    assert known
    assert settled == Preprocessing(
        0.00392156862745098, (0.25,) * 3, STD, pooling="cls", input_size=(64, 64)
    )
    assert settle(tmp_path / "nothing", {}, None) == (Preprocessing(), False)
    assert Preprocessing(**checked(json.loads(settled.to_json()), "file")) == settled


# --- through the commands, and a real model ---------------------------------------------------


@pytest.mark.slow
def test_index_query_and_the_next_night(
    tmp_path: Path, pictures: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, store = pictures(12), tmp_path / "store"
    convolutions(tmp_path / "net" / "net.onnx", batch=1)
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    config = tmp_path / "config.yaml"
    config.write_text("features:\n- {name: net, handle: net/net.onnx, output: embedding}\n")
    index = ["index", "--config", str(config), "--images", str(folder), "--store", str(store)]
    assert main(index) == 0
    capfd.readouterr()
    assert main(index) == 0
    assert "nothing changed" in capfd.readouterr().err
    query = ["query", "--store", str(store), "--images", str(folder / "003.jpg"), "--json"]
    assert main(query) == 0
    first = json.loads(capfd.readouterr().out.splitlines()[0])
    assert first["uri"].endswith("003.jpg")
    assert first["score"] == pytest.approx(1, abs=1e-5)


RAPIDOCR = find_spec("rapidocr_onnxruntime")


@pytest.mark.skipif(RAPIDOCR is None, reason="pip install --no-deps rapidocr-onnxruntime")
def test_a_real_network(tmp_path: Path) -> None:
    """PaddleOCR's MobileNetV3 that tells which way up text is."""
    assert RAPIDOCR is not None
    (root,) = RAPIDOCR.submodule_search_locations or []
    path = Path(root) / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    options = {"mean": 0.5, "std": 0.5}
    feature, _ = made(tmp_path / "work", path, input_size=(48, 192), options=options)
    got = vectors(tmp_path / "work", feature, golden_pictures((48, 192)))
    assert got.shape == (16, 2)
    # What ONNX Runtime 1.31 gives for the first three, prepared by hand.
    expected = [[0.523457, 0.476543], [0.067672, 0.932328], [0.472674, 0.527326]]
    np.testing.assert_allclose(got[:3], expected, atol=1e-4)
