from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import lookalike
from lookalike.errors import RequestError
from lookalike.ivf import trained_index as index
from lookalike.models.embedder import Embedder
from lookalike.models.features import model_fingerprint, preprocessing_fingerprint
from lookalike.models.resolving import FeatureConfig, install, resolve_features
from lookalike.search.searcher import Searcher
from lookalike.store.objects import open_store
from tests.vector_stores import make_store


@pytest.fixture(autouse=True)
def _one_thread():
    index.set_threads(1)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """(store, manifest, folder of twelve pictures, features): embedded by the shipped model."""
    store, folder = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("pictures")
    work = tmp_path_factory.mktemp("work")
    (feature,) = resolve_features([FeatureConfig("low", "builtin:color-texture")], work)
    install(open_store(store), [feature], work)
    embedder = Embedder([feature], store, "cosine")
    prepared = []
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        pixels = np.array(Image.fromarray(noise).resize((90, 70), Image.Resampling.BICUBIC))
        Image.fromarray(pixels).save(folder / f"{number}.png")
        prepared.append(embedder.prepare(pixels))
    vectors, usable = embedder.embed(prepared)
    assert usable.all()
    extra = {
        "features": [feature.to_json()],
        "model_fingerprint": model_fingerprint([feature], "cosine"),
        "preprocessing_fingerprint": preprocessing_fingerprint([feature]),
    }
    _, _, manifest = make_store(store, vectors, extra=extra)
    return store, manifest, folder, [feature]


def test_pictures_are_found_by_path_bytes_and_array(gallery):
    store, _, folder, features = gallery
    searcher = lookalike.open(store, features=features)
    path = folder / "7.png"
    array = np.array(Image.open(path))
    answers = searcher.search([path, str(path), path.read_bytes(), array], k=3)
    assert [found[0].uri for found in answers] == ["/pictures/7.png"] * 4
    assert [found[0].score for found in answers] == pytest.approx([1] * 4, abs=1e-5)
    names = [found[0].query_uri for found in answers]
    assert names == [str(path), str(path), "image:2", "image:3"]
    assert searcher.search(str(path), k=1)[0][0].uri == "/pictures/7.png"  # one, not a list


def test_pictures_that_cannot_be_read_are_named(gallery, tmp_path):
    store, _, folder, _ = gallery
    searcher = lookalike.open(store)
    (tmp_path / "torn.png").write_bytes((folder / "1.png").read_bytes()[:200])
    (tmp_path / "note.txt").write_text("hello")
    for image, message in [
        (tmp_path / "absent.png", "absent.png: unreadable: No such file"),
        (tmp_path / "torn.png", "torn.png: truncated"),
        (tmp_path / "note.txt", "note.txt: not an image"),
        (np.zeros((3, 4, 2), np.uint8), r"image:0: an array must be uint8 or floats from 0 to 1"),
    ]:
        with pytest.raises(RequestError, match=message):
            searcher.search([image])


def test_another_preprocessing_is_refused_naming_both(gallery):
    store, manifest, folder, features = gallery
    here, there = preprocessing_fingerprint(features), "0" * 64
    searcher = Searcher(open_store(store), {**manifest, "preprocessing_fingerprint": there})
    with pytest.raises(RequestError, match=f"preprocessing {there}, .* with {here}"):
        searcher.search([folder / "1.png"])


def test_other_features_are_refused_naming_both(gallery):
    store, manifest, _, features = gallery
    other = [replace(features[0], fingerprint="f" * 64)]
    there, given = manifest["model_fingerprint"], model_fingerprint(other, "cosine")
    with pytest.raises(RequestError, match=f"model {there}, the features given are {given}"):
        lookalike.open(store, features=other)
