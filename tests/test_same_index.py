"""What must not matter to an index: the number of workers, and the order of its input."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lookalike
from lookalike.ivf import planner as planning
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from tests.conftest import picture
from tests.vector_files import write_vectors
from tests.vector_stores import clustered

ROWS, DIM, GROUPS, QUERIES, K = 12_000, 32, 40, 200, 10
SETTINGS = "index: {kind: ivf_pq, target_recall: 0.9}\nrunner: {workers: %d}\n"


@pytest.fixture(scope="module")
def classes() -> npt.NDArray[np.float32]:
    """Vectors class by class, as folders are listed."""
    vectors = clustered(ROWS, DIM, groups=GROUPS)
    near = np.random.default_rng(1).standard_normal((GROUPS, DIM)) @ vectors.T
    return np.ascontiguousarray(vectors[np.argsort(near.argmax(axis=0), kind="stable")])


def index(tmp_path: Path, name: str, vectors: npt.NDArray[Any], names: Any, workers: int) -> Path:
    """A store of vectors in this order, in tables of 1,500."""
    for start in range(0, ROWS, 1500):
        rows = slice(start, start + 1500)
        uris = [f"picture/{i}" for i in names[rows].tolist()]
        write_vectors(tmp_path / name / f"{start:06d}.parquet", vectors[rows], uris)
    config = tmp_path / f"{name}.yaml"
    config.write_text(SETTINGS % workers)
    store = tmp_path / f"{name}.store"
    arguments = ["--embeddings", str(tmp_path / name), "--store", str(store)]
    assert main(["index", *arguments, "--config", str(config)]) == 0
    return store


def recall(store: Path, vectors: npt.NDArray[Any]) -> float:
    """Of the true ten neighbours of every 60th vector, by name."""
    queries = vectors[:: ROWS // QUERIES]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit[:: ROWS // QUERIES] @ unit.T
    true = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    answers = lookalike.open(store).search(vectors=queries, k=K, nprobe=8, rerank=40)
    found = [
        len({f"picture/{i}" for i in own} & {one.uri for one in answer})
        for own, answer in zip(true.tolist(), answers, strict=True)
    ]
    return sum(found) / (K * len(queries))


@pytest.mark.slow
def test_sorted_input_costs_no_recall(tmp_path: Path, classes: npt.NDArray[np.float32]) -> None:
    order = np.random.default_rng(2).permutation(ROWS)
    in_order = index(tmp_path, "sorted", classes, np.arange(ROWS), 1)
    shuffled = index(tmp_path, "shuffled", classes[order], order, 1)
    assert abs(recall(in_order, classes) - recall(shuffled, classes)) <= 0.01


@pytest.mark.slow
def test_any_number_of_workers_makes_the_same_files(
    tmp_path: Path, classes: npt.NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "MIN_PART_ROWS", 1500)  # several parts, as large stores have
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        manifest = snapshot.read_manifest(
            open_store(index(folder, "same", classes, np.arange(ROWS), workers))
        )
        kinds = ("embedding", "template", "index")
        lines = [line for kind in kinds for line in snapshot.files_of(manifest, kind)]
        # A trained index's spec tells the seconds that its training took.
        found.append([one["sha256"] for one in lines if not one["path"].endswith("spec.json")])
        assert manifest["index"]["part_rows"] == 1500
    assert found[0] == found[1]


def test_any_number_of_workers_makes_the_same_files_of_pictures(
    tmp_path: Path, pictures: Callable[..., Path]
) -> None:
    """Over two nights: units, and so ids, hang on the files alone."""
    found = []
    for workers in (1, 2, 7):
        store, config = tmp_path / f"{workers}.store", tmp_path / f"{workers}.yaml"
        config.write_text(
            f"features: [{{name: low, handle: 'builtin:color'}}]\nrunner: {{workers: {workers}}}\n"
        )
        night = ["index", "--config", str(config), "--store", str(store), "--images"]
        shutil.rmtree(pictures(0))
        folder = pictures(270)
        for file in folder.iterdir():
            os.utime(file, (1, 1))  # or they may have changed after they were listed
        assert main([*night, str(folder)]) == 0
        for number in (3, 60, 269):
            (folder / f"{number:03d}.jpg").unlink()
        for number in range(270, 300):
            picture(number).save(folder / f"{number:03d}.jpg", quality=95)
        assert main([*night, str(folder)]) == 0
        manifest = snapshot.read_manifest(open_store(store))
        kinds = ("embedding", "index", "truth", "tombstones")
        lines = [line for kind in kinds for line in snapshot.files_of(manifest, kind)]
        found.append([line["sha256"] for line in lines])
        assert len(snapshot.files_of(manifest, "embedding")) == 4
    assert found[0] == found[1] == found[2]
