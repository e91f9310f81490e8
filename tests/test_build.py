"""The index stages of whole runs: a trained index that serves again, and one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lookalike
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from tests.vector_files import write_vectors
from tests.vector_stores import clustered

DIM = 16


def run(tmp_path: Path, settings: str = "") -> tuple[int, dict[str, Any]]:
    """Index what lies in tmp_path / "vectors"; returns the status and the published manifest."""
    config = tmp_path / "config.yaml"
    config.write_text(f"runner: {{workers: 1}}\nindex: {{kind: ivf_pq{settings}}}\n")
    store = tmp_path / "store"
    sources = ["--embeddings", str(tmp_path / "vectors"), "--store", str(store)]
    status = main(["index", *sources, "--config", str(config)])
    return status, snapshot.read_manifest(open_store(store))


def add(tmp_path: Path, name: str, vectors: npt.NDArray[Any]) -> None:
    write_vectors(tmp_path / "vectors" / f"{name}.parquet", vectors)


def test_a_trained_index_serves_again_while_it_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = clustered(5000, DIM)
    add(tmp_path, "a", vectors[:4000])
    _, first = run(tmp_path)
    assert first["index"]["reused"] is False
    assert first["index"]["fitness"]["fits"] is True

    add(tmp_path, "b", vectors[4000:])
    _, second = run(tmp_path)
    assert second["index"]["reused"] is True
    assert second["index"]["template"] == first["index"]["template"]
    assert second["index"]["training"] == first["index"]["training"]
    assert second["index"]["way"] == "append"
    assert "1,000 vectors are added to that of" in capsys.readouterr().err
    answers = lookalike.open(tmp_path / "store").search(vectors=vectors[4000:4010], k=1)
    assert [one[0].uri for one in answers] == [f"b/{i}" for i in range(10)]

    # Vectors of another kind: where the first have directions, these have others.
    for name in ("a", "b"):
        (tmp_path / "vectors" / f"{name}.parquet").unlink()
    other = np.random.default_rng(3).standard_normal((6000, DIM)).astype(np.float32)
    add(tmp_path, "c", other)
    _, third = run(tmp_path)
    assert third["index"]["reused"] is False
    assert third["index"]["template"] != first["index"]["template"]
    assert "no longer fits" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_index_of_other_settings_does_not_serve(tmp_path: Path) -> None:
    vectors = clustered(4000, DIM)
    add(tmp_path, "a", vectors)
    _, first = run(tmp_path, ", nlist: 32")
    add(tmp_path, "b", vectors[:100] + 0.01)
    _, second = run(tmp_path, ", nlist: 64")
    assert (first["index"]["nlist"], second["index"]["nlist"]) == (32, 64)
    assert second["index"]["reused"] is False
    add(tmp_path, "c", vectors[100:200] + 0.01)
    _, third = run(tmp_path, ", nlist: 64, seed: 5")
    assert third["index"]["reused"] is False


def test_a_floor_that_is_missed_names_what_would_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(tmp_path, "a", clustered(4000, DIM))
    config = tmp_path / "config.yaml"
    config.write_text(
        "runner: {workers: 1}\nindex: {kind: ivf_pq, queries: 40, target_recall: 0.5}\n"
        "publish: {min_recall: 0.999}\n"
    )
    sources = ["--embeddings", str(tmp_path / "vectors"), "--store", str(tmp_path / "store")]
    assert main(["index", *sources, "--config", str(config)]) == 3
    line = capsys.readouterr().err.splitlines()[-1]
    assert "lower bound is under publish.min_recall 0.999" in line
    assert "index." in line.partition("0.999")[2]  # a setting to change
    assert snapshot.current(open_store(tmp_path / "store")) is None
