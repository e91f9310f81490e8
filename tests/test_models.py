from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lookalike.errors import RequestError
from lookalike.models import color_texture
from lookalike.models.handles import resolve
from lookalike.models.inspection import inspect
from lookalike.models.quiet_tf import tf
from lookalike.models.saved_model import FrozenModel, ModelInfo

F32 = tf.float32


def spec(*shape: int | None, dtype: Any = F32) -> Any:
    return tf.TensorSpec([None, *shape] if len(shape) == 3 else shape, dtype, name="images")


def save(folder: Path, call: Callable[..., Any], *specs: Any, **attributes: Any) -> Path:
    """Save a module with this call, or with signatures {name: function} if `call` is a dict."""
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    if isinstance(call, dict):
        tf.saved_model.save(module, str(folder), signatures=call)
    else:
        kind = type("Callable", (tf.Module,), {"__call__": staticmethod(tf.function(call))})
        module = kind()
        for name, value in attributes.items():
            setattr(module, name, value)
        for each in specs:
            each = each if isinstance(each, tuple) else (each,)
            module.__call__.get_concrete_function(*each)
        tf.saved_model.save(module, str(folder))
    return folder


def colours(images: Any) -> Any:
    return tf.reduce_mean(images, [1, 2])


def pictures(n: int, h: int, w: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, h, w, 3), np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    return images.mean((1, 2), dtype=np.float64) / 255


# --- what is understood -----------------------------------------------------------------------


def test_reusable_model_with_variables_and_training(tmp_path: Path) -> None:
    kernel = tf.Variable(tf.random.stateless_normal([3, 3, 3, 16], [1, 2]), name="kernel")

    def call(images: Any, training: bool = False) -> Any:
        maps = tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME"))
        maps = tf.nn.dropout(maps, 0.5) if training else maps
        return tf.reduce_mean(maps, [1, 2])

    image = spec(None, None, 3)
    folder = save(tmp_path / "m", call, (image, True), (image, False), kernel=kernel)
    info = inspect(folder)
    assert info == ModelInfo((224, 224), 16, training=True, size_assumed=True)
    info = inspect(folder, input_size=(10, 12))
    assert info == ModelInfo((10, 12), 16, training=True)

    images = pictures(5, 10, 12)
    frozen, plain = FrozenModel(folder, info), FrozenModel(folder, replace(info, frozen=False))
    vectors = frozen(images)
    assert vectors.dtype == np.float32
    assert vectors.shape == (5, 16)
    np.testing.assert_allclose(vectors, plain(images), rtol=1e-5)
    reference = tf.saved_model.load(str(folder))(images.astype(np.float32) / 255, training=False)
    np.testing.assert_allclose(vectors, reference.numpy(), rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_values_are_scaled_to_one(tmp_path: Path, n: int) -> None:
    folder = save(tmp_path / "m", colours, spec(6, 4, 3))
    model = FrozenModel(folder, inspect(folder))
    assert model.info == ModelInfo((6, 4), 3)
    np.testing.assert_allclose(model(pictures(n, 6, 4)), expected(pictures(n, 6, 4)), atol=1e-6)


def test_uint8_input_gets_the_bytes(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", lambda x: colours(tf.cast(x, F32)), spec(4, 4, 3, dtype=tf.uint8))
    model = FrozenModel(folder, inspect(folder))
    assert model.info.input_dtype == "uint8"
    images = pictures(3, 4, 4)
    np.testing.assert_allclose(model(images), expected(images) * 255, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_any_float_output_becomes_float32(tmp_path: Path, dtype: str) -> None:
    folder = save(tmp_path / "m", lambda x: tf.cast(colours(x), dtype), spec(4, 4, 3))
    vectors = FrozenModel(folder, inspect(folder))(pictures(2, 4, 4))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(pictures(2, 4, 4)), atol=5e-3)


@pytest.mark.parametrize("grid", [1, 2])
def test_feature_maps_are_averaged(tmp_path: Path, grid: int) -> None:
    folder = save(
        tmp_path / "m",
        lambda x: (
            tf.nn.avg_pool2d(x, 8 // grid, 8, "VALID")
            if grid == 1
            else tf.nn.avg_pool2d(x, 4, 4, "VALID")
        ),
        spec(8, 8, 3),
    )
    info = inspect(folder)
    assert info == ModelInfo((8, 8), 3, pooled=True)
    images = pictures(3, 8, 8)
    np.testing.assert_allclose(FrozenModel(folder, info)(images), expected(images), atol=1e-6)


def test_dict_outputs(tmp_path: Path) -> None:
    def call(images: Any) -> Any:
        mean = colours(images)
        return {"block1": images, "feature_vector": mean, "scores": mean * 2, "zz": -mean}

    folder = save(tmp_path / "m", call, spec(4, 4, 3))
    assert inspect(folder).output == "feature_vector"
    info = inspect(folder, output="scores")
    images = pictures(2, 4, 4)
    np.testing.assert_allclose(FrozenModel(folder, info)(images), 2 * expected(images), atol=1e-6)
    with pytest.raises(RequestError, match=r"no output 'pool'; it has: .*scores float32 \(2, 3\)"):
        inspect(folder, output="pool")


def test_outputs_without_a_usual_name_must_be_chosen(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", lambda x: {"a": colours(x), "b": colours(x)}, spec(4, 4, 3))
    with pytest.raises(RequestError, match=r"set output to one of: a float32 \(2, 3\), b"):
        inspect(folder)


def test_named_signatures(tmp_path: Path) -> None:
    def single(images: Any) -> Any:
        return {"x": colours(images)}

    def double(images: Any) -> Any:
        return {"default": 2 * colours(images), "other": images}

    image = spec(4, 4, 3)
    signatures = {
        "serving_default": tf.function(lambda images: {"x": colours(images)}).get_concrete_function(
            image
        ),
        "image_feature_vector": tf.function(double).get_concrete_function(image),
    }
    folder = save(tmp_path / "m", signatures)
    info = inspect(folder)
    assert info == ModelInfo((4, 4), 3, "image_feature_vector", "default")
    images = pictures(2, 4, 4)
    np.testing.assert_allclose(FrozenModel(folder, info)(images), 2 * expected(images), atol=1e-6)
    info = inspect(folder, signature="serving_default")
    assert info.output == "x"
    np.testing.assert_allclose(FrozenModel(folder, info)(images), expected(images), atol=1e-6)
    with pytest.raises(RequestError, match=r"no signature 'serve'; it has: .*serving_default"):
        inspect(folder, signature="serve")


def test_tf1_hub_format(tmp_path: Path) -> None:
    """A module as TF-Hub's first format has it: no tags, `tfhub_module.pb`, a fixed size."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(F32, [None, 6, 8, 3])
        weights = v1.get_variable("weights", initializer=2.0 * np.eye(3, 5, dtype=np.float32))
        vector = tf.matmul(tf.reduce_mean(images, [1, 2]), weights)
        session.run(v1.global_variables_initializer())
        inputs = {"images": v1.saved_model.build_tensor_info(images)}
        outputs = {"default": v1.saved_model.build_tensor_info(vector)}
        definition = v1.saved_model.build_signature_def(inputs, outputs, "m")
        builder = v1.saved_model.Builder(str(tmp_path / "m"))
        for tags in ([], ["train"]):  # the graph for training is there as well
            both = {"default": definition, "image_feature_vector": definition}
            if tags:
                builder.add_meta_graph(tags, signature_def_map=both)
            else:
                builder.add_meta_graph_and_variables(session, tags, signature_def_map=both)
        builder.save()
    (tmp_path / "m" / "tfhub_module.pb").write_bytes(b"\x08\x03")
    info = inspect(tmp_path / "m")
    assert info == ModelInfo((6, 8), 5, "image_feature_vector", "default")
    pixels = pictures(3, 6, 8)
    vectors = FrozenModel(tmp_path / "m", info)(pixels)
    np.testing.assert_allclose(vectors[:, :3], 2 * expected(pixels), atol=1e-6)
    assert not vectors[:, 3:].any()


def test_keras_export(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    inputs = keras.Input((16, 16, 3))
    maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(inputs))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Dropout(0.5)(maps))
    model = keras.Model(inputs, pooled)
    model.export(str(tmp_path / "m"), verbose=False)
    info = inspect(tmp_path / "m")
    assert (info.input_size, info.dim, info.signature) == ((16, 16), 4, "serving_default")
    images = pictures(3, 16, 16)
    vectors = FrozenModel(tmp_path / "m", info)(images)
    np.testing.assert_allclose(vectors, model(images / 255.0, training=False), atol=1e-5)


def test_a_graph_that_is_left_as_it_is_gives_the_same_vectors(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    color_texture.export(folder)
    info = inspect(folder)
    images = np.random.default_rng(5).integers(0, 256, (5, 128, 128, 3), dtype=np.uint8)
    as_it_is = FrozenModel(folder, replace(info, rewritten=False))(images)
    assert as_it_is.dtype == np.float32
    np.testing.assert_allclose(as_it_is, FrozenModel(folder, info)(images), atol=1e-6)
    assert FrozenModel(folder, replace(info, rewritten=False))(images[:0]).shape == (0, info.dim)


def test_a_model_that_cannot_be_frozen_still_runs(tmp_path: Path) -> None:
    values = tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0])
    table = tf.lookup.StaticHashTable(values, 0.0)
    folder = save(
        tmp_path / "m", lambda x: colours(x) * table.lookup(tf.constant(1)), spec(4, 4, 3), t=table
    )
    info = inspect(folder)
    assert not info.frozen
    images = pictures(2, 4, 4)
    np.testing.assert_allclose(FrozenModel(folder, info)(images), 2 * expected(images), atol=1e-6)


def test_vectors_are_those_of_tensorflow_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference for the protocol and for what a reusable SavedModel means."""
    import tensorflow_hub as hub

    kernel = tf.Variable(tf.random.stateless_normal([3, 3, 3, 16], [3, 4]), name="kernel")

    def call(images: Any, training: bool = False) -> Any:
        maps = tf.nn.relu(tf.nn.conv2d(images, kernel, 2, "SAME"))
        return tf.reduce_mean(tf.nn.dropout(maps, 0.5) if training else maps, [1, 2])

    image = spec(20, 24, 3)
    handle = "https://tfhub.invalid/google/model/1"
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
    place = tmp_path / "cache" / hashlib.sha1(handle.encode()).hexdigest()
    save(place, call, (image, True), (image, False), kernel=kernel)
    # Seeded with no network, for both alike: the folder's name is the key.
    assert hub.resolve(handle) == str(place) == str(resolve(handle, tmp_path / "work").folder)

    images = pictures(5, 20, 24)
    vectors = FrozenModel(place, inspect(place))(images)
    reference = hub.load(handle)(tf.constant(images / 255, tf.float32)).numpy()
    np.testing.assert_allclose(vectors, reference, rtol=1e-5)


def test_traces_of_several_sizes(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", colours, spec(4, 4, 3), spec(8, 8, 3))
    with pytest.raises(RequestError, match=r"several image sizes \(4x4, 8x8\); set input_size"):
        inspect(folder)
    assert inspect(folder, input_size=(8, 8)).input_size == (8, 8)


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "image", "message"),
    [
        (colours, spec(3, 4, 4), "takes float32 .*3, 4, 4.*expected float32 or uint8"),
        (lambda x: x, spec(None, 10), r"expected float32 or uint8 \(batch, height, width, 3\)"),
        (colours, spec(4, 4, 1), "takes float32"),
        (lambda x: colours(tf.cast(x, F32)), spec(4, 4, 3, dtype=tf.int32), "takes int32"),
        (colours, spec(2, 4, 4, 3), "takes batches of exactly 2; export it with an open batch"),
        (lambda x: x[:, 0], spec(4, 4, 3), r"gives float32 \(2, 4, 3\) for 2 images as its own"),
        (lambda x: colours(x)[:, 0], spec(4, 4, 3), r"gives float32 \(2,\)"),
        (lambda x: colours(x)[:1], spec(4, 4, 3), r"gives float32 \(1, 3\)"),
        (lambda x: tf.cast(colours(x), tf.int32), spec(4, 4, 3), "gives int32"),
        (lambda x: tf.math.log(colours(x) - 9), spec(4, 4, 3), "not finite"),
        (lambda x: tf.reshape(tf.nn.dropout(x, 0.5), [-1, 48]), spec(4, 4, 3), "another vector"),
        (lambda x: colours(x - tf.reduce_mean(x, 0)), spec(4, 4, 3), "share its batch"),
        (
            lambda x: colours(x) + tf.ensure_shape(x, [None, 4, 4, 3])[:, 0, 0],
            spec(None, None, 3),
            "fails on an image of height 224 and width 224",
        ),
    ],
)
def test_models_that_do_not_fit(tmp_path: Path, call: Any, image: Any, message: str) -> None:
    folder = save(tmp_path / "m", call, image)
    with pytest.raises(RequestError, match=message) as caught:
        inspect(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_configured_size_must_be_the_models(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", colours, spec(4, 6, 3))
    with pytest.raises(RequestError, match=r"height x width 4x6, not 6x6 as configured"):
        inspect(folder, input_size=(6, 6))


def test_models_without_a_way_in(tmp_path: Path) -> None:
    two = tf.function(lambda a, b: {"x": colours(a) + colours(b)}).get_concrete_function(
        tf.TensorSpec([None, 4, 4, 3], name="a"), tf.TensorSpec([None, 4, 4, 3], name="b")
    )
    folder = save(tmp_path / "two", {"serving_default": two})
    with pytest.raises(RequestError, match=r"wants 2 inputs .*\(a, b\), expected one"):
        inspect(folder)
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    with pytest.raises(RequestError, match=r"name one of: .it has none"):
        inspect(tmp_path / "none")


def test_damaged_models(tmp_path: Path) -> None:
    variable = tf.Variable(np.ones(3, np.float32))
    folder = save(tmp_path / "m", lambda x: colours(x) * variable, spec(4, 4, 3), v=variable)
    info = inspect(folder)
    with pytest.raises(RequestError, match=r"not the one described: .other"):
        FrozenModel(folder, replace(info, signature="other"))
    data = folder / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(b"")
    with pytest.raises(RequestError, match="cannot load the model in"):
        inspect(folder)
    (folder / "variables" / "variables.index").unlink()
    with pytest.raises(RequestError, match="a file may be missing or damaged"):
        inspect(folder)
    (folder / "saved_model.pb").write_bytes(b"no protocol buffer")
    with pytest.raises(RequestError, match="cannot load the model in"):
        inspect(folder)
    (folder / "saved_model.pb").unlink()
    with pytest.raises(RequestError, match=r"there is no saved_model.pb in"):
        inspect(folder)


def test_images_of_another_shape_are_a_mistake(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", colours, spec(4, 4, 3))
    model = FrozenModel(folder, inspect(folder))
    for wrong in (pictures(2, 4, 5), pictures(2, 4, 4).astype(np.float32), pictures(2, 4, 4)[0]):
        with pytest.raises(ValueError, match=r"images must be uint8 \(n, 4, 4, 3\), not"):
            model(wrong)
    with pytest.raises(ValueError, match=r"gave \(2, 3\) for 2 images, expected \(2, 4\)"):
        FrozenModel(folder, replace(model.info, dim=4))(pictures(2, 4, 4))


def test_info_json_round_trip() -> None:
    import json

    info = ModelInfo((8, 9), 4, "s", "o", "uint8", True, True, False, True)
    assert ModelInfo.from_json(json.loads(json.dumps(info.to_json()))) == info
