from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lookalike.errors import RequestError
from lookalike.models.features import Feature, model_fingerprint, preprocessing_fingerprint
from lookalike.models.handles import builtin_fingerprint
from lookalike.models.projection import Projection
from lookalike.models.saved_model import ModelInfo
from lookalike.pipelines.checks import check_images, check_store, other_models
from lookalike.sources.kinds import open_source
from lookalike.store.objects import open_store


def test_what_a_killed_run_left_of_the_pointer_does_not_lock_the_store_out(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    (tmp_path / ".CURRENT.0123abcd.tmp").write_text("half a na")
    check_store(open_store(tmp_path), [])


def test_a_folder_of_other_things_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(RequestError, match=r"other things than a store \(thesis\.doc\)"):
        check_store(open_store(tmp_path), [])


def test_a_store_is_made_where_there_is_nothing_yet(tmp_path: Path) -> None:
    store = tmp_path / "a" / "b"
    check_store(open_store(store), [str(tmp_path / "elsewhere")])
    assert not store.exists()


def test_a_store_inside_a_source_is_refused_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    os.symlink(tmp_path / "pictures", tmp_path / "link")
    for source in ("pictures", "link"):
        with pytest.raises(RequestError, match="inside the source"):
            check_store(open_store(tmp_path / "pictures" / "store"), [str(tmp_path / source)])


@pytest.mark.parametrize(
    ("store", "source", "words"),
    [
        ("s3://b/store", "s3://b", "s3://b/store: the store lies inside the source s3://b and"),
        ("s3://b/store", "s3://b/?region=eu-west-1", "inside the source"),
        ("s3://b/store", "s3://k:s@b/", "inside the source"),
        ("s3://b/a/store", "s3://b/*", "inside the source"),
        ("s3://b/a/store", "s3://b/**/*.jpg", ""),
        ("s3://b/a%20b/store", "s3://b/a b", "inside the source"),
        ("s3://b/store", "s3://b/store/", "inside the source"),
        ("s3://b/store", "s3://b/store/embeddings", "embeddings lies inside the store; name one"),
        ("s3://b/store", "s3://b/store-pictures", ""),
        ("s3://b/store", "s3://b/sto", ""),
        ("s3://b/store", "s3://other/", ""),
        ("s3://b/store", "s3://b/?endpoint_override=elsewhere", ""),
        ("s3://b/store", "/", ""),
        ("gs://b/store", "gs://b", "inside the source"),
        ("gs://b/store", "s3://b", ""),
    ],
)
def test_a_store_and_a_source_on_object_storage_lie_apart(
    store: str, source: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    if words:
        with pytest.raises(RequestError, match=words):
            check_store(open_store(store), [source])
    else:
        check_store(open_store(store), [source])


def test_a_source_inside_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store" / "embeddings").mkdir(parents=True)
    with pytest.raises(RequestError, match="lies inside the store"):
        check_store(open_store(tmp_path / "store"), [str(tmp_path / "store" / "embeddings")])


def test_a_picture_is_found_by_its_content_where_no_name_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(RequestError, match="none of the 1 files is an image"):
        check_images([open_source(str(tmp_path))])
    (tmp_path / "scan0001").write_bytes(b"\x89PNG\r\n\x1a\n")
    check_images([open_source(str(tmp_path))])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (
            "a.zip",
            "; {}: such archives are not read; unpack it and name the folder",
        ),
        ("b.JSONL", "; {}: such lists are not read; write it as .csv or .parquet, with a column"),
        ("notes.md", ""),
    ],
)
def test_a_source_of_a_kind_that_is_not_read_is_told_what_to_do(
    name: str, advice: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\3\4 and more")
    with pytest.raises(RequestError) as raised:
        check_images([open_source(str(path))])
    wanted = f"{path}: none of the 1 files is an image, by name or by content{advice.format(path)}"
    assert str(raised.value).startswith(wanted)
    assert bool(advice) == str(raised.value).endswith((" of it", " uri"))


def test_another_choice_of_features_is_named() -> None:
    info = ModelInfo((8, 8), 4)
    deep = Feature("d", "builtin:photo", 0.7, "ab" * 32, info, "models/a")
    low = Feature("l", "builtin:color-texture", 0.3, "cd" * 32, info, "models/c")
    parent = {
        "name": "N",
        "metric": "cosine",
        "features": [low.to_json()],
        "model_fingerprint": model_fingerprint([low], "cosine"),
        "preprocessing_fingerprint": preprocessing_fingerprint([low]),
    }
    assert other_models(parent, [low], "cosine") == []
    assert other_models(None, [low], "cosine") == []
    lines = other_models(parent, [deep, low], "cosine")
    assert lines[0] == (
        "the choice of features is builtin:photo 0.7 + builtin:color-texture 0.3, that of N is "
        "builtin:color-texture"
    )
    assert lines[-1] == "everything is embedded anew; N serves until that is done"


def test_another_version_of_a_shipped_feature_is_named() -> None:
    info = ModelInfo((8, 8), 4)
    old = Feature("l", "builtin:color-texture", 1.0, "cd" * 32, info, "models/c")
    fingerprint = builtin_fingerprint(old.handle)
    new = replace(old, fingerprint=fingerprint, folder="models/new")
    parent = {
        "name": "N",
        "metric": "cosine",
        "features": [old.to_json()],
        "model_fingerprint": model_fingerprint([old], "cosine"),
        "preprocessing_fingerprint": preprocessing_fingerprint([old]),
    }
    assert other_models(parent, [new], "cosine")[1:] == [
        "builtin:color-texture is version 2 here, and another in N, whose vectors do not compare "
        "with it",
        "everything is embedded anew; N serves until that is done",
    ]


def test_another_projection_is_named_with_how_to_keep_the_vectors() -> None:
    info = ModelInfo((8, 8), 4)
    low = Feature("l", "builtin:color-texture", 1.0, "cd" * 32, info, "models/c")
    features = model_fingerprint([low], "cosine")
    old, new = (Projection("mine", one * 32, features, 4, 2, "models/p") for one in ("12", "34"))
    parent = {
        "name": "N",
        "metric": "cosine",
        "features": [low.to_json()],
        "projection": old.to_json(),
        "model_fingerprint": model_fingerprint([low], "cosine", old),
        "preprocessing_fingerprint": preprocessing_fingerprint([low]),
    }
    assert other_models(parent, [low], "cosine", old) == []
    for asked, shown in ((new, "mine (343434343434)"), (None, "none")):
        lines = other_models(parent, [low], "cosine", asked)
        assert lines[0] == f"the projection is {shown}, that of N is mine (121212121212)"
        assert "lookalike rollback to a snapshot without one" in lines[-2]
        assert lines[-1] == "everything is embedded anew; N serves until that is done"
    # with other features nothing that was there before helps
    other = other_models(parent, [replace(low, fingerprint="ef" * 32)], "cosine")
    assert not any("rollback" in line for line in other)
