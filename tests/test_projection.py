"""A projection in a folder, behind features, and stored vectors converted by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lookalike.errors import RequestError
from lookalike.models.features import Feature, model_fingerprint, preprocessing_fingerprint
from lookalike.models.fusing import fuse
from lookalike.models.projection import ABOUT, MATRIX, open_folder, project, save
from lookalike.models.saved_model import ModelInfo
from lookalike.pipelines.cli import main
from lookalike.pipelines.config import load_config
from lookalike.store import shard_format, shards, snapshot
from lookalike.store.converting import convert_shard, convert_tasks
from lookalike.store.objects import open_store
from lookalike.store.shards import iter_blocks, iter_rows
from tests import publishing
from tests.test_evaluation import make_store

FEATURES = "a" * 64


def made(folder: Path, inputs: int = 4, dim: int = 3) -> np.ndarray[Any, Any]:
    matrix = np.random.default_rng(0).standard_normal((inputs + 1, dim)).astype(np.float32)
    save(folder, FEATURES, matrix, "# card\n", {})
    return matrix


def test_projected_rows_are_those_of_the_formula_and_none_is_lost() -> None:
    matrix = np.array([[1, 0], [0, 2], [-1, 0]], np.float32)  # centre (1, 0)
    vectors = np.array([[0, 1], [1, 0], [0, 0], [0.6, 0.8]], np.float32)
    found = project(matrix, vectors)
    right = [
        [-1 / 5**0.5, 2 / 5**0.5],
        [1, 0],  # at the centre: the first axis
        [0, 0],  # no vector, no projection
        [-0.4 / 2.72**0.5, 1.6 / 2.72**0.5],
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, atol=1e-6)
    assert project(matrix, vectors[:0]).shape == (0, 2)


def test_what_is_saved_is_read_again_and_named_by_its_content(tmp_path: Path) -> None:
    matrix = made(tmp_path / "one")
    one, two = (
        open_folder(str(tmp_path / "one")),
        save(tmp_path / "two", FEATURES, matrix, "another card", {"more": 1}),
    )
    assert (one.inputs, one.dim, one.features) == (4, 3, FEATURES)
    assert one.fingerprint == two.fingerprint
    assert one.folder == f"models/{one.fingerprint}"
    other = save(tmp_path / "three", "b" * 64, matrix, "", {})
    assert other.fingerprint != one.fingerprint


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / ABOUT).unlink(), "no such model"),
        (lambda folder: (folder / MATRIX).unlink(), "cannot be read"),
        (lambda folder: (folder / ABOUT).write_text("{"), "cannot be read"),
        (lambda folder: (folder / ABOUT).write_text("[]"), "cannot be read"),
        (lambda folder: (folder / MATRIX).write_bytes(b"PK"), "cannot be read"),
        (lambda folder: np.save(folder / MATRIX, np.ones((5, 3), "f4")), "they were changed"),
        (lambda folder: np.save(folder / MATRIX, np.ones(5, "f4")), "cannot be read"),
        (lambda folder: np.save(folder / MATRIX, np.full((5, 3), np.nan, "f4")), "not finite"),
        (lambda folder: np.save(folder / MATRIX, np.ones((5, 3), "f8")), "cannot be read"),
        (
            lambda folder: (folder / ABOUT).write_text(
                json.dumps({**json.loads((folder / ABOUT).read_text()), "format": 9})
            ),
            "has format 9, this lookalike reads 1",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path: Path, spoil: Any, said: str) -> None:
    made(tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(RequestError, match=said) as raised:
        open_folder(str(tmp_path / "model"))
    assert str(tmp_path / "model") in str(raised.value)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_converted_shards_keep_ids_names_and_metadata(tmp_path: Path, dtype: str) -> None:
    metadata = pa.schema([("label", pa.string())])
    vectors = np.random.default_rng(0).standard_normal((700, 4)).astype("f4")
    schema = shard_format.schema(4, metadata, {"lookalike.model_fingerprint": "old"}, dtype)
    with shards.open_shard(open_store(tmp_path), "embeddings/7.parquet", schema, 7) as (
        writer,
        pending,
    ):
        for row, vector in enumerate(vectors):
            writer.append({"uri": f"/{row}", "label": f"l{row % 5}"}, vector)
    line = shards.shard_record(pending.finished, 7, 700)
    [task] = convert_tasks([line], "run", "runs/run")
    new = {"lookalike.model_fingerprint": "new"}
    done = convert_shard(task, open_store(tmp_path), lambda block: 2 * block[:, :3], 3, new)
    path = tmp_path / done["shard"]["path"]
    assert (done["shard"]["file_no"], done["shard"]["rows"]) == (7, 700)
    assert path.name.startswith("00000007-run-")
    columns = ["id", "uri", "label"]
    assert [*iter_rows(path, columns)] == [*iter_rows(tmp_path / line["path"], columns)]
    found = np.concatenate([block for _, block in iter_blocks(path)])
    stored = vectors.astype(dtype).astype("f4")
    np.testing.assert_allclose(found, 2 * stored[:, :3], atol=1e-6)
    read = shards.pq.read_schema(path)
    assert read.metadata[b"lookalike.model_fingerprint"] == b"new"
    assert read.field("embedding").type == pa.list_(
        pa.float16() if dtype == "float16" else pa.float32(), 3
    )


# --- whole runs ---------------------------------------------------------------------------------


def vectors_of(store: Path) -> dict[bytes, np.ndarray[Any, Any]]:
    """Of each content; deleted rows do not differ from living ones here."""
    manifest, found = snapshot.read_manifest(open_store(store)), {}
    for line in snapshot.files_of(manifest, "embedding"):
        rows = iter_rows(store / line["path"], ["content_sha256"])
        blocks = [block for _, block in iter_blocks(store / line["path"])]
        found |= {
            row["content_sha256"]: vector
            for row, vector in zip(rows, np.concatenate(blocks), strict=True)
        }
    return found


@pytest.mark.slow
def test_weights_and_a_projection_are_applied_without_embedding_again(
    tmp_path: Path, pictures: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pictures(12)
    config = tmp_path / "config.yaml"

    def index(name: str, text: str) -> dict[str, Any]:
        config.write_text(text)
        asked = ["index", "--images", str(folder), "--store", str(tmp_path / name)]
        assert main([*asked, "--config", str(config)]) == 0
        capsys.readouterr()
        return snapshot.read_manifest(open_store(tmp_path / name))

    hybrid = (
        "features:\n  - {{name: a, handle: builtin:color-texture, weight: {}}}\n"
        "  - {{name: b, handle: builtin:photo, weight: 1}}\n"
        "runner: {{workers: 1}}\n"
    )
    first = index("store", hybrid.format(1))
    for path in pictures(3, "more", first_seed=50).iterdir():
        path.rename(folder / f"new-{path.name}")
    (folder / "000.jpg").rename(folder / "renamed.jpg")
    second = index("store", hybrid.format(4))
    anew = index("anew", hybrid.format(4))
    assert second["model_fingerprint"] == anew["model_fingerprint"] != first["model_fingerprint"]
    assert (second["counts"]["embedded"], second["counts"]["unchanged"]) == (3, 12)
    assert anew["counts"]["embedded"] == 15
    assert second["next_file_no"] > first["next_file_no"]
    here, there = vectors_of(tmp_path / "store"), vectors_of(tmp_path / "anew")
    assert here.keys() == there.keys()
    for content, vector in there.items():
        np.testing.assert_allclose(here[content], vector, atol=1e-5)

    matrix = np.random.default_rng(0).standard_normal((second["dim"] + 1, 6)).astype("f4")
    save(tmp_path / "model", second["model_fingerprint"], matrix, "# card\n", {})
    # beside the config, wherever the command is run
    third = index("store", hybrid.format(4) + "projection: model\n")
    assert (third["counts"]["embedded"], third["counts"]["unchanged"]) == (0, 15)
    assert third["dim"] == 6
    kept = vectors_of(tmp_path / "store")
    for content, vector in there.items():
        np.testing.assert_allclose(kept[content], project(matrix, vector[None])[0], atol=1e-5)
    # queries go through it, and so does what is new
    query = ["query", "--store", str(tmp_path / "store"), "--images", str(folder / "renamed.jpg")]
    assert main([*query, "-k", "1", "--config", str(config), "--json"]) == 0
    assert "renamed.jpg" in capsys.readouterr().out
    assert main(["verify", "--store", str(tmp_path / "store")]) == 0
    assert index("store", config.read_text())["name"] == third["name"]  # nothing to do
    # another hybrid is refused, with both fingerprints
    config.write_text(hybrid.format(1) + "projection: model\n")
    asked = ["index", "--images", str(folder), "--store", str(tmp_path / "store")]
    assert main([*asked, "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert second["model_fingerprint"] in said
    assert first["model_fingerprint"] in said
    # and there is nothing to be learned behind a projection
    adapt = ["adapt", "--store", str(tmp_path / "store"), "--labels", "folders"]
    assert main([*adapt, "--output", str(tmp_path / "learned")]) == 2
    said = capsys.readouterr().err
    assert "behind the projection" in said
    assert f"{second['name']} has them: learn from it (--snapshot {second['name']})" in said
    # of too few labels, neither; nothing is left of the try
    older = [*adapt, "--snapshot", second["name"], "--output", str(tmp_path / "learned")]
    assert main(older) == 2
    assert "it takes 8 to hold some out" in capsys.readouterr().err
    assert not (tmp_path / "learned").exists()
    # the way back: nothing is embedded again
    assert main(["rollback", "--store", str(tmp_path / "store")]) == 0
    save(tmp_path / "other", second["model_fingerprint"], matrix[:, :2], "# card\n", {})
    fourth = index("store", hybrid.format(4) + "projection: other\n")
    assert (fourth["counts"]["embedded"], fourth["dim"]) == (0, 2)
    for name in (first["name"], second["name"]):
        shutil.rmtree(tmp_path / "store" / "snapshots" / name)  # as gc does in the end
    assert main([*adapt, "--output", str(tmp_path / "learned")]) == 2
    assert "index without `projection:`" in capsys.readouterr().err


# --- the commands -------------------------------------------------------------------------------


def stored(store: Path, weights: tuple[float, float], informative: bool) -> dict[str, Any]:
    """A published snapshot of a hybrid, whose second feature alone knows the folders."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(16), 10)
    knows = rng.standard_normal((16, 6))[labels] + 0.1 * rng.standard_normal((160, 6))
    blocks = [
        rng.standard_normal((160, 5)),
        knows if informative else rng.standard_normal((160, 6)),
    ]
    vectors, _ = fuse([block.astype("f4") for block in blocks], weights, "cosine")
    uris = [f"/p/{label}/{row}.png" for row, label in enumerate(labels.tolist())]
    features = [
        Feature(name, f"handle-{name}", weight, name * 64, _info(dim), f"models/{name * 64}")
        for name, weight, dim in zip("ab", weights, (5, 6), strict=True)
    ]
    manifest = make_store(store, vectors, uris, "cosine") | {
        "name": "one",
        "dim": 11,
        "features": [one.to_json() for one in features],
        "counts": {},
        "model_fingerprint": model_fingerprint(features, "cosine"),
        "preprocessing_fingerprint": preprocessing_fingerprint(features),
        "index": {},
        "search": {},
        "certificate": {},
    }
    publishing.publish(open_store(store), manifest)
    return manifest


def _info(dim: int) -> ModelInfo:
    return ModelInfo((32, 32), dim, "serving_default")


def test_tune_and_adapt_write_what_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = stored(tmp_path / "store", (0.9, 0.1), informative=True)
    of = ["--store", str(tmp_path / "store"), "--labels", "folders", "--json"]
    config, model = tmp_path / "tuned.yaml", tmp_path / "model"
    assert main(["tune", *of, "--write", str(config)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["held_out"]["helps"]
    assert said["found"]["weights"]["b"] > 0.5
    assert said["found"]["before"] == {"a": 0.9, "b": 0.1}
    written = load_config(str(config)).features
    assert {one.name: one.weight for one in written} == said["found"]["weights"]
    assert main(["adapt", *of, "--output", str(model)]) == 0
    said = json.loads(capsys.readouterr().out)
    found = open_folder(str(model))
    assert found.features == manifest["model_fingerprint"]
    assert (found.inputs, found.dim) == (11, said["found"]["components"])
    assert said["held_out"]["after"] > said["held_out"]["before"] + 0.2
    # what is there is not written over
    for again in (["tune", *of, "--write", str(config)], ["adapt", *of, "--output", str(model)]):
        assert main(again) == 2
        assert "is there already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "store", "tuned.yaml"]


def test_tune_and_adapt_write_nothing_that_does_not_help_but_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "store", (0.5, 0.5), informative=False)
    of = ["--store", str(tmp_path / "store"), "--labels", "folders"]
    for command, flag in (("tune", "--write"), ("adapt", "--output")):
        asked = [command, *of, flag, str(tmp_path / command)]
        assert main(asked) == 3
        out, err = capsys.readouterr()
        assert "this does not help for certain" in out
        assert f"not written: {tmp_path / command}" in err
        assert not (tmp_path / command).exists()
        assert main([*asked, "--force"]) == 0
        assert (tmp_path / command).exists()
        capsys.readouterr()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("adapt --labels folders --output m --components 12", "--components 12: needs a number"),
        ("adapt --labels folders --output m -k 0", "-k: needs a whole number from 1, got 0"),
        ("tune --labels folders -k -3", "-k: needs a whole number from 1, got -3"),
        ("tune --labels none.csv", "none.csv: no such file"),
        ("tune --labels folders --sample 30", "--sample: only with --self"),
        ("adapt --self --output m --sample 5", "--sample 5: 20 pictures at least are needed"),
    ],
)
def test_what_cannot_be_asked_is_said_before_work_begins(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    indexed: tuple[Path, Path],
    asked: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *rest = asked.split()
    stored(tmp_path / "store", (0.5, 0.5), informative=True)
    store = str(indexed[0]) if "--self" in rest else "store"  # which has models
    assert main([command, "--store", store, *rest]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_without_labels_altered_copies_are_read_and_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], indexed: tuple[Path, Path]
) -> None:
    folder = Path(shutil.copytree(indexed[1], tmp_path / "pictures"))
    store = tmp_path / "store"
    config = tmp_path / "config.yaml"
    config.write_text(
        "features:\n  - {name: short, handle: 'builtin:micro-structure', weight: 0.5}\n"
        "  - {name: also, handle: 'builtin:color-difference', weight: 0.5}\n"
        "images: {exclude: [notes.json]}\nrunner: {workers: 1}\n"
    )

    def index(config: Path) -> int:
        asked = ["--images", str(folder), "--store", str(store)]
        return main(["index", "--config", str(config), *asked])

    assert index(config) == 0
    asked = ["adapt", "--store", str(store), "--self", "--json", "--force"]
    assert main([*asked, "--output", str(tmp_path / "model")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["labels"], said["images"], said["held_out"]["k"]) == (20, 140, 6)
    assert said["held_out"]["queries"] == 140
    learned = json.loads((tmp_path / "model" / ABOUT).read_text())["learned"]
    assert learned["labels"] == "self"
    config.write_text(config.read_text() + "projection: model\n")
    assert index(config) == 0
    manifest = snapshot.read_manifest(open_store(store))
    assert manifest["dim"] == said["found"]["components"]
    assert manifest["counts"]["embedded"] == 0
    page = tmp_path / "page.html"
    query = ["query", "--store", str(store), "--images", str(folder / "first" / "0.png")]
    assert main([*query, "--html", str(page)]) == 0
    assert f"builtin:color-difference 0.5, projection {tmp_path / 'model'}" in page.read_text()
    report = (store / "snapshots" / manifest["name"] / "report.html").read_text()
    assert f"behind them the projection {tmp_path / 'model'}, 180 to" in report
    assert main(["rollback", "--store", str(store)]) == 0
    # weights are found in the same way, and the config that comes of it is for index
    tuned = tmp_path / "tuned.yaml"
    asked_weights = ["tune", "--store", str(store), "--self", "--force", "--write", str(tuned)]
    assert main(asked_weights) == 0
    assert index(tuned) == 0
    other = snapshot.read_manifest(open_store(store))
    assert (other["counts"]["embedded"], other["counts"]["listed"]) == (0, 22)
    assert [one["weight"] for one in other["features"]] == [
        one.weight for one in load_config(str(tuned)).features
    ]
    capsys.readouterr()
    # a picture that is gone is left out, and with fewer than 20 nothing is learned
    for path in (folder / "first" / "3.png", folder / "second" / "4.png"):
        path.unlink()
    assert main(["rollback", "--store", str(store)]) == 0
    assert main([*asked, "--output", str(tmp_path / "fewer")]) == 2
    assert "2 of 20 pictures cannot be read now" in capsys.readouterr().err
