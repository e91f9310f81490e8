from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from lookalike import evaluation
from lookalike.errors import RequestError
from lookalike.evaluation import evaluate, file_labels, folder_label
from lookalike.store import shard_format, shards
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones

METRICS = ("cosine", "inner_product", "l2", "jaccard")
Vectors = npt.NDArray[np.float32]


def make_store(store: Path, vectors: Vectors, uris: list[str], metric: str) -> dict[str, Any]:
    """Embedding shards of at most 150 rows, and the manifest as far as it is read here."""
    files = []
    for file_no, start in enumerate(range(0, len(vectors), 150)):
        path = f"embeddings/{file_no}.parquet"
        schema = shard_format.schema(vectors.shape[1], pa.schema([]), {})
        with shards.open_shard(open_store(store), path, schema, file_no) as (writer, pending):
            for row in range(start, min(start + 150, len(vectors))):
                writer.append({"uri": uris[row]}, vectors[row])
        files.append(shards.shard_record(pending.finished, file_no, writer.rows))
    return {"files": files, "metric": metric}


def closeness(a: Vectors, b: Vectors, metric: str) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return {
        "cosine": lambda: x @ y / np.sqrt((x @ x) * (y @ y)),
        "inner_product": lambda: x @ y,
        "l2": lambda: -np.sqrt(((x - y) ** 2).sum()),
        "jaccard": lambda: np.minimum(x, y).sum() / np.maximum(x, y).sum(),
    }[metric]()


def brute_force(
    vectors: Vectors, labels: list[str | None], metric: str, k: int
) -> tuple[int, float, float]:
    """Queries, precision@k and mAP, one query and one neighbour at a time."""
    known = [i for i, label in enumerate(labels) if label is not None]
    precisions, averages = [], []
    for query in known:
        others = [i for i in known if i != query]
        ranked = sorted(others, key=lambda i: -closeness(vectors[query], vectors[i], metric))
        relevant = [labels[i] == labels[query] for i in ranked]
        if not any(relevant):
            continue
        precisions.append(sum(relevant[:k]) / k)
        hits = [sum(relevant[: rank + 1]) / (rank + 1) for rank in np.flatnonzero(relevant)]
        averages.append(float(np.mean(hits)))
    return len(precisions), float(np.mean(precisions)), float(np.mean(averages))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scores_at_once", [1 << 28, 4000])
def test_as_brute_force_does(
    tmp_path: Path, metric: str, scores_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_BLOCK_BYTES", scores_at_once)
    random = np.random.default_rng(3)
    labels: list[str | None] = [*random.choice(["a", "b", "c"], 170).tolist(), "alone"]
    labels += [None] * 20
    random.shuffle(labels)
    centres = {label: random.random(6) for label in ("a", "b", "c", "alone", None)}
    vectors = np.array([centres[label] + random.random(6) for label in labels], dtype=np.float32)
    uris = [f"/{i}.jpg" for i in range(len(labels))]
    manifest = make_store(tmp_path, vectors, uris, metric)
    named = dict(zip(uris, labels, strict=True))
    found = evaluate(open_store(tmp_path), manifest, named.get, k=7)
    queries, precision, average = brute_force(vectors, labels, metric, 7)
    assert (found.images, found.labels, found.queries, found.k) == (171, 4, queries, 7)
    assert queries == 170
    assert found.precision_at_k == pytest.approx(precision, abs=1e-9)
    assert found.mean_average_precision == pytest.approx(average, abs=1e-9)


def two_groups(store: Path, uris: list[str]) -> dict[str, Any]:
    """Vectors in two tight groups: the first half and the second half of `uris`."""
    vectors = np.eye(2, dtype=np.float32)[np.arange(len(uris)) * 2 // len(uris)]
    noise = np.random.default_rng(0).random(vectors.shape, dtype=np.float32)
    return make_store(store, vectors + noise / 10, uris, "cosine")


URIS = [*(f"/x/cats/{i}.jpg" for i in range(5)), *(f"/y/caf%C3%A9 dogs/{i}.jpg" for i in range(5))]


def test_labels_from_folders(tmp_path: Path) -> None:
    found = evaluate(open_store(tmp_path), two_groups(tmp_path, URIS), folder_label, k=4)
    assert found == evaluation.Evaluation(10, 2, 10, 4, 1.0, 1.0)
    assert json.loads(json.dumps(found.to_json()))["mean_average_precision"] == 1.0
    # folders of the same name are one label
    assert folder_label("/a/x.jpg") == folder_label("s3://bucket/b/a/y.jpg") == "a"


def test_fewer_neighbours_than_k_count_as_misses(tmp_path: Path) -> None:
    found = evaluate(open_store(tmp_path), two_groups(tmp_path, URIS), folder_label, k=20)
    assert found.precision_at_k == 4 / 20
    assert found.mean_average_precision == 1.0


def test_dead_rows_are_no_images(tmp_path: Path) -> None:
    uris = [f"/x/{'cats' if i % 2 else 'dogs'}/{i}.jpg" for i in range(300)]
    vectors = np.random.default_rng(1).random((300, 6), dtype=np.float32)
    manifest = make_store(tmp_path / "all", vectors, uris, "cosine")
    deleted = [3, 4, 140, 1 << 32 | 7]  # the second shard begins with row 150
    record = write_tombstones(open_store(tmp_path / "all"), "dead.npy", deleted)
    manifest["files"].append({**record.to_json(), "kind": "tombstones"})
    rows = np.delete(np.arange(300), [3, 4, 140, 157])
    living = make_store(
        tmp_path / "living", vectors[rows], [uris[row] for row in rows.tolist()], "cosine"
    )
    found = evaluate(open_store(tmp_path / "all"), manifest, folder_label)
    assert found == evaluate(open_store(tmp_path / "living"), living, folder_label)
    assert found.images == 296


def label_file(folder: Path, text: str) -> Callable[[str], str | None]:
    (folder / "labels.csv").write_text(text)
    return file_labels(str(folder / "labels.csv"))


def test_labels_from_a_file(tmp_path: Path) -> None:
    uris = [str(tmp_path / f"{i}.jpg") for i in range(8)]
    manifest = two_groups(tmp_path, uris)
    rows = [f"{i}.jpg,{1 if i < 4 else 2}" for i in range(7)]  # numbers are labels too
    text = "\n".join(["uri,label", *rows, "7.jpg,", ",1", "elsewhere.jpg,1", ""])
    found = evaluate(open_store(tmp_path), manifest, label_file(tmp_path, text), k=2)
    assert (found.images, found.labels, found.queries) == (7, 2, 7)
    assert (found.precision_at_k, found.mean_average_precision) == (1.0, 1.0)


def test_labels_that_are_the_wrong_way_round_score_low(tmp_path: Path) -> None:
    uris = [str(tmp_path / f"{i}.jpg") for i in range(8)]
    manifest = two_groups(tmp_path, uris)
    labels = {uri: str(i % 2) for i, uri in enumerate(uris)}
    found = evaluate(open_store(tmp_path), manifest, labels.get, k=3)
    assert found.precision_at_k == pytest.approx(1 / 3)  # one of the three that are near
    assert found.mean_average_precision < 0.7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,label\nelsewhere.jpg,a\n", "0 of 10 images have a label and no two share one; check"),
        ("uri,label\n/x/cats/0.jpg,a\n/x/cats/1.jpg,b\n", "2 of 10 images have a label and no two"),
        ("uri,class\n/x/cats/0.jpg,a\n", r"labels.csv: a file of labels needs .* uri and label$"),
        ("file,label\n/x/cats/0.jpg,a\n", r"labels.csv: a manifest needs a column `uri`"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    manifest = two_groups(tmp_path, URIS)
    with pytest.raises(RequestError, match=message):
        evaluate(open_store(tmp_path), manifest, label_file(tmp_path, text))


def test_k_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="k: needs a whole number from 1, got 0"):
        evaluate(open_store(tmp_path), two_groups(tmp_path, URIS), folder_label, k=0)
