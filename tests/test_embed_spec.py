"""What a worker embeds with: of a store, of handles, and what is refused where it is made."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.embed_spec import FAILED_SCHEMA, EmbedSpec
from lookalike.embedding import embed_uris
from lookalike.errors import RequestError
from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.models.features import Feature
from lookalike.models.projection import save as save_projection
from lookalike.models.quiet_tf import tf
from lookalike.models.resolving import FeatureConfig
from lookalike.outcomes import Embedded, Failed
from lookalike.pipelines.cli import main
from lookalike.records import SourceFile
from lookalike.sources.locating import Locator
from lookalike.store import bucket, snapshot
from lookalike.store.objects import open_store
from lookalike.store.shards import iter_blocks
from tests.conftest import picture
from tests.s3_server import KEYS, s3_server, store_uri


@pytest.fixture(scope="module")
def spec(indexed: tuple[Path, Path]) -> EmbedSpec:
    return EmbedSpec.from_store(indexed[0])


def embed(spec: EmbedSpec, uris: list[str]) -> dict[str, Embedded | Failed]:
    embedder = spec.load()
    with Decoder(embedder.sizes, spec.limits) as decoder:
        return dict(embed_uris(uris, embedder, decoder, Locator().find))


def save(folder: Path, call: Callable[[Any], Any]) -> str:
    """A model of pictures of 8 by 8."""
    function = tf.function(call, [tf.TensorSpec([None, 8, 8, 3], tf.float32)], autograph=False)
    kind = type("M", (tf.Module,), {"__call__": staticmethod(function)})
    tf.saved_model.save(kind(), str(folder))
    return str(folder)


# --- of a store -------------------------------------------------------------------------------


def test_a_stores_spec_makes_the_vectors_that_it_holds(
    indexed: tuple[Path, Path], spec: EmbedSpec
) -> None:
    store = indexed[0]
    manifest = snapshot.read_manifest(open_store(store))
    assert spec.store == str(store)
    assert spec.metric == manifest["metric"]
    assert spec.dim == manifest["dim"]
    assert spec.properties == {
        f"lookalike.{name}": manifest[name]
        for name in ("model_fingerprint", "preprocessing_fingerprint")
    }
    [line] = snapshot.files_of(manifest, "embedding")
    [(_, vectors)] = iter_blocks(store / line["path"])
    searcher = lookalike.open(store)
    uris = sorted(str(path) for path in (indexed[1] / "second").iterdir())
    found = embed(spec, uris)
    for uri in uris:
        one = found[uri]
        assert isinstance(one, Embedded)
        nearest = searcher.search(vectors=one.vector[None], k=1)[0][0]
        assert nearest.uri == uri
        assert nearest.score == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(vectors[nearest.id & 0xFFFFFFFF], one.vector, atol=1e-6)


def test_limits_and_type_are_those_of_the_run(tmp_path: Path, indexed: tuple[Path, Path]) -> None:
    config, store = tmp_path / "c.yaml", tmp_path / "store"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nmetric: l2\n"
        "runner: {workers: 1}\nimages: {max_pixels: 5000, truncated: accept}\n"
        "embed: {dtype: float16}\n"
    )
    images = ["--images", str(indexed[1] / "first")]
    assert main(["index", "--config", str(config), *images, "--store", str(store)]) == 0
    first = EmbedSpec.from_store(store)
    assert (first.metric, first.dtype) == ("l2", "float16")
    assert first.limits == ImageLimits(max_pixels=5000, truncated="accept")
    large = str(tmp_path / "large.png")
    picture(0, (100, 100)).save(large)
    outcome = embed(first, [large])[large]
    assert isinstance(outcome, Failed)
    assert outcome.reason == "too_many_pixels"
    picture(5000).save(indexed[1].parent / "more.png")
    more = ["--images", str(indexed[1].parent / "more.png"), *images]
    config.write_text(config.read_text().replace("metric: l2", "metric: cosine"))
    assert main(["index", "--config", str(config), *more, "--store", str(store)]) == 0
    earlier = EmbedSpec.from_store(store, snapshot.names(open_store(store))[0])
    assert earlier == first
    assert EmbedSpec.from_store(store).metric == "cosine"


def test_what_is_no_store_or_another_kind_of_it_is_refused(
    tmp_path: Path, indexed: tuple[Path, Path]
) -> None:
    with pytest.raises(RequestError, match="no such store"):
        EmbedSpec.from_store(tmp_path / "nothing")
    with pytest.raises(RequestError, match="nothing is published here"):
        EmbedSpec.from_store(tmp_path)
    with pytest.raises(RequestError, match="no snapshot 'x'"):
        EmbedSpec.from_store(indexed[0], "x")
    manifest = snapshot.read_manifest(open_store(indexed[0]))
    path = tmp_path / "snapshots" / manifest["name"] / "manifest.json"
    path.parent.mkdir(parents=True)
    (tmp_path / "CURRENT").write_text(manifest["name"])
    for change, message in (
        ({"features": []}, "its vectors were made elsewhere, without models"),
        ({"preprocessing_fingerprint": "0" * 64}, "prepared with preprocessing 0000"),
        ({}, r"lacks the model of feature 'low': there is no models/\w+/saved_model.pb"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        with pytest.raises(RequestError, match=message):
            EmbedSpec.from_store(tmp_path)


@pytest.mark.slow
def test_a_store_on_object_storage(
    tmp_path: Path, indexed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every worker fetches the models, and nothing else."""
    pytest.importorskip("obstore")
    for name, value in {**KEYS, "XDG_CACHE_HOME": str(tmp_path / "launcher")}.items():
        monkeypatch.setenv(name, value)
    config = tmp_path / "c.yaml"
    config.write_text("features: [{name: low, handle: 'builtin:color-texture'}]\n")
    uri = str(indexed[1] / "second" / "0.png")
    with s3_server(tmp_path) as port:
        store = store_uri(port, "store")
        images = ["--images", str(indexed[1] / "second"), "--config", str(config)]
        assert main(["index", *images, "--store", store]) == 0
        spec = EmbedSpec.from_store(store)
        assert spec.store == store
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "worker"))
        bucket._own_folder.cache_clear()  # as of another process
        outcome = embed(pickle.loads(pickle.dumps(spec)), [uri])[uri]
    local = embed(EmbedSpec.from_store(indexed[0]), [uri])[uri]
    assert isinstance(outcome, Embedded)
    assert isinstance(local, Embedded)
    np.testing.assert_allclose(outcome.vector, local.vector, atol=1e-6)
    assert list((tmp_path / "worker").rglob("*.xml"))
    assert not list((tmp_path / "worker").rglob("*.parquet"))


# --- of handles -------------------------------------------------------------------------------


def test_handles_end_as_models_in_a_folder(
    tmp_path: Path, indexed: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = save(tmp_path / "deep", lambda images: tf.reduce_mean(images, [1, 2]) + 1)
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    handles = ["builtin:color-texture", deep, FeatureConfig("same", deep, 5.0)]
    spec = EmbedSpec.from_handles(handles, "models here", weights=[1, 2, 3], say=told.append)
    assert [one.name for one in spec.features] == ["color-texture", "deep", "same"]
    assert [one.weight for one in spec.features] == [1, 2, 3]
    assert spec.store == str(tmp_path / "models here")
    assert told[:2] == [f"model deep: {deep}", f"model same: {deep}"]
    assert spec.dim == 1511 + 3 + 3
    uri = str(indexed[1] / "first" / "0.png")
    monkeypatch.chdir("/")  # a worker is elsewhere
    outcome = embed(pickle.loads(pickle.dumps(spec)), [uri])[uri]
    assert isinstance(outcome, Embedded)
    blocks = np.split(outcome.vector, [1511, 1514])
    lengths = [float((block**2).sum()) for block in blocks]
    assert lengths == pytest.approx([1 / 6, 2 / 6, 3 / 6], rel=1e-5)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_projection_is_copied_beside_the_models_and_is_that_of_a_store(
    tmp_path: Path, indexed: tuple[Path, Path], kind: Any
) -> None:
    """What a config says as `projection: learned` is the same from Python."""
    store, folder, learned = tmp_path / "store", str(indexed[1] / "first"), tmp_path / "learned"
    plain = EmbedSpec.from_handles("builtin:color-texture", tmp_path / "models")
    matrix = np.random.default_rng(0).standard_normal((plain.dim + 1, 7)).astype("f4")
    save_projection(learned, plain.properties["lookalike.model_fingerprint"], matrix, "card", {})
    spec = EmbedSpec.from_handles(
        "builtin:color-texture", tmp_path / "models", projection=kind(learned)
    )
    config = tmp_path / "c.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nprojection: learned\n"
        "runner: {workers: 1}\n"
    )
    asked = ["--config", str(config), "--images", folder, "--store", str(store)]
    assert main(["index", *asked]) == 0
    config_way = EmbedSpec.from_store(store)
    assert (spec.dim, spec.properties) == (7, config_way.properties)
    shutil.rmtree(learned)  # a worker has the folder of models alone
    uri = f"{folder}/3.png"
    one, two = (embed(pickle.loads(pickle.dumps(way)), [uri])[uri] for way in (spec, config_way))
    assert isinstance(one, Embedded)
    assert isinstance(two, Embedded)
    np.testing.assert_allclose(one.vector, two.vector, atol=1e-6)


def test_a_projection_of_other_features_is_refused(tmp_path: Path) -> None:
    save_projection(tmp_path / "learned", "b" * 64, np.ones((1512, 2), "f4"), "card", {})
    with pytest.raises(RequestError, match=f"learned on vectors of model {'b' * 64}"):
        EmbedSpec.from_handles(
            "builtin:color-texture", tmp_path / "models", projection=tmp_path / "learned"
        )
    assert not list((tmp_path / "models").iterdir())


def test_the_same_folder_serves_again(tmp_path: Path) -> None:
    first = EmbedSpec.from_handles("builtin:color-texture", tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert EmbedSpec.from_handles(["builtin:color-texture"], tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == files


def test_equal_handles_get_names_of_their_own(tmp_path: Path) -> None:
    deep = save(tmp_path / "deep", lambda images: tf.reduce_mean(images, [1, 2]) + 1)
    spec = EmbedSpec.from_handles([deep, deep, f"{deep}/"], tmp_path / "models")
    assert [one.name for one in spec.features] == ["deep", "deep-2", "deep-3"]


@pytest.mark.parametrize(
    ("handles", "more", "message"),
    [
        ([], {}, "no feature; name at least one model"),
        (["builtin:nothing"], {}, "there is no builtin:nothing"),
        (["no such folder"], {}, "there is no model at 'no such folder'"),
        (["builtin:color-texture"], {"weights": [1, 2]}, "2 are given for 1 handles"),
        (["builtin:color-texture"], {"weights": [0]}, "must be a positive number, not 0"),
        (["builtin:color-texture"], {"metric": "cos"}, "cosine, .* not 'cos'"),
        (["builtin:color-texture"], {"dtype": "int8"}, "float32, float16, got 'int8'"),
        (["builtin:color-texture"], {"folder": "s3://b/models"}, "s3://b/models is a URI"),
        (["builtin:color-texture"], {"folder": 5}, "a folder or a URI, got 5"),
        (["builtin:color-texture"], {"folder": "/proc/models"}, "/proc/models cannot be made"),
        ([7], {}, "a handle is a text or a FeatureConfig, got 7"),
        (["builtin:color-texture"], {"projection": "none"}, "projection none: no such model"),
        (["builtin:color-texture"], {"projection": 5}, "needs the name of a folder, got 5"),
    ],
)
def test_wrong_handles(tmp_path: Path, handles: Any, more: dict[str, Any], message: str) -> None:
    arguments = {"folder": tmp_path, **more}
    with pytest.raises(RequestError, match=message):
        EmbedSpec.from_handles(handles, **arguments)


# --- by hand ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": ()}, "no feature; name at least one model"),
        ({"features": "low"}, "features: needs Feature values, got 'l'.*from_handles"),
        ({"features": None}, "features: needs Feature values, got None"),
        ({"features": ["builtin:color-texture"]}, "got 'builtin:color-texture'; for handles there"),
        ({"dtype": "float64"}, "dtype: needs one of float32, float16, got 'float64'"),
        ({"dtype": np.float32}, "dtype: needs one of float32, float16"),
        ({"metric": "euclid"}, "inner_product, l2, jaccard, not 'euclid'"),
        ({"threads": 0}, "threads: needs a whole number from 1, got 0"),
        ({"threads": 1.5}, "threads: needs a whole number from 1, got 1.5"),
        ({"limits": {"max_pixels": 5}}, "limits: needs an ImageLimits"),
        ({"store": ""}, "store: needs the name of a folder or a URI, got ''"),
        ({"store": b"/tmp"}, "store: needs the name of a folder or a URI"),
        ({"store": "/no/such/folder"}, "/no/such/folder is no folder here"),
        ({"store": os.sep}, r"/ lacks the model of feature 'low'"),
    ],
)
def test_wrong_values(spec: EmbedSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(spec, **change)


def test_features_that_do_not_go_together(spec: EmbedSpec) -> None:
    [low] = spec.features
    with pytest.raises(RequestError, match="names must differ"):
        replace(spec, features=[low, low])
    with pytest.raises(RequestError, match="jaccard compares one histogram feature"):
        replace(spec, features=[low, replace(low, name="other")], metric="jaccard")


def test_values_that_mean_the_same(spec: EmbedSpec, indexed: tuple[Path, Path]) -> None:
    same = EmbedSpec(list(spec.features), indexed[0], threads=np.int64(1))  # type: ignore[arg-type]
    assert same == spec
    assert hash(same) == hash(spec)
    assert type(same.threads) is int
    assert isinstance(same.features[0], Feature)


def test_schemas_name_columns_as_a_store_does(spec: EmbedSpec) -> None:
    assert spec.schema.names == [
        "uri",
        "content_sha256",
        "width",
        "height",
        "format",
        "bytes",
        "embedding",
    ]
    assert FAILED_SCHEMA.names == ["uri", "status", "reason", "detail", "content_sha256"]
    file = SourceFile("/a", 3, "")
    vector = np.arange(spec.dim, dtype=np.float32)
    found = spec.record("a", Embedded(file, b"h" * 32, 3, 4, 5, "PNG", vector))
    assert list(found) == spec.schema.names
    assert list(spec.record("a", Failed(file, "rejected", "r", "d"))) == FAILED_SCHEMA.names


# --- models that fail -------------------------------------------------------------------------


def fails_at_white(images: Any) -> Any:
    means = tf.reduce_mean(images, [1, 2])
    row = tf.cast(tf.reduce_min(means, 1) > 0.99, tf.int32)
    return means + tf.gather(tf.ones([1, 3]), row)  # there is no row 1


def test_a_picture_at_which_the_model_fails_costs_no_other(tmp_path: Path) -> None:
    spec = EmbedSpec.from_handles(save(tmp_path / "m", fails_at_white), tmp_path / "models")
    uris = [str(tmp_path / f"{number}.png") for number in range(20)]
    for number, uri in enumerate(uris):
        (picture(number) if number % 7 else picture(0).point(lambda _: 255)).save(uri)
    found = embed(spec, uris)
    for number, uri in enumerate(uris):
        one = found[uri]
        if number % 7:
            assert isinstance(one, Embedded)
            assert np.linalg.norm(one.vector) == pytest.approx(1, abs=1e-6)
        else:
            assert isinstance(one, Failed)
            assert (one.status, one.reason) == ("rejected", "model_failed")
            assert one.detail.startswith("the model fails at it: ")
            assert one.sha256


def test_a_model_that_always_fails_ends_the_run(tmp_path: Path, spec: EmbedSpec) -> None:
    embedder = spec.load()
    embedder._models[0].info = None  # type: ignore[assignment, union-attr]
    picture(1).save(tmp_path / "1.png")
    with Decoder(embedder.sizes, spec.limits) as decoder, pytest.raises(AttributeError):
        list(embed_uris([str(tmp_path / "1.png")], embedder, decoder, Locator().find))
