"""Vectors made elsewhere, from Parquet files to answers, by the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.errors import RequestError
from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.ledger import read_ledger
from lookalike.store.objects import open_store
from lookalike.store.shards import iter_blocks, iter_rows
from lookalike.store.tombstones import read_tombstones
from tests.conftest import picture
from tests.vector_files import write_vectors
from tests.vector_stores import clustered

DIM = 8
ONE_WORKER = "runner: {workers: 1}\n"


def config(tmp_path: Path, text: str = "") -> str:
    path = tmp_path / "config.yaml"
    path.write_text(ONE_WORKER + text)
    return str(path)


def index(store: Path, *sources: Path | str, config: str) -> int:
    return main(
        ["index", "--embeddings", *map(str, sources), "--store", str(store), "--config", config]
    )


def rows_of_ledger(store: Path) -> list[Any]:
    lines = snapshot.files_of(snapshot.read_manifest(open_store(store)), "ledger")
    return [row for line in lines for row in read_ledger(store / line["path"])]


def exact(vectors: npt.NDArray[Any], query: int, k: int) -> list[int]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.argsort(-(unit @ unit[query]), kind="stable")[:k].tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, npt.NDArray[Any]]:
    """(store, folder of its tables, vectors): three tables, 300 vectors."""
    root = tmp_path_factory.mktemp("ingested")
    vectors = clustered(300, DIM)
    for number in range(3):
        own = vectors[number * 100 : number * 100 + 100]
        labels = {"label": [f"{number}-{row % 3}" for row in range(100)]}
        write_vectors(root / "in" / f"{number}.parquet", own, group=40, metadata=labels)
    assert index(root / "store", root / "in", config=config(root)) == 0
    return root / "store", root / "in", vectors


def test_a_store_of_given_vectors_is_whole(
    ingested: tuple[Path, Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, vectors = ingested
    manifest = snapshot.read_manifest(open_store(store))
    assert manifest["features"] == []
    assert manifest["sources"] == [str(folder)]
    assert (manifest["dim"], manifest["metric"]) == (DIM, "cosine")
    assert manifest["counts"]["embedded"] == manifest["counts"]["vectors"] == 300
    assert len(manifest["model_fingerprint"]) == 64
    assert main(["verify", "--store", str(store)]) == 0
    assert main(["status", "--store", str(store)]) == 0
    assert "300" in capsys.readouterr().out
    stored = [
        block
        for line in snapshot.files_of(manifest, "embedding")
        for _, block in iter_blocks(store / line["path"])
    ]
    assert np.array_equal(np.concatenate(stored), vectors)
    assert sorted(row.uri for row in rows_of_ledger(store)) == sorted(
        f"{number}/{row}" for number in range(3) for row in range(100)
    )


def test_the_searcher_opens_it_without_models(ingested: tuple[Path, Path, Any]) -> None:
    store, _, vectors = ingested
    searcher = lookalike.open(store)
    for query in (0, 123, 299):
        [found] = searcher.search(vectors=vectors[query : query + 1], k=5)
        names = [f"{row // 100}/{row % 100}" for row in exact(vectors, query, 5)]
        assert [one.uri for one in found] == names
        assert found[0].metadata == {"label": f"{query // 100}-{query % 100 % 3}"}
    with pytest.raises(RequestError, match="made elsewhere, without models"):
        searcher.search(["a.jpg"])


@pytest.mark.parametrize("name", ["q.npy", "q.parquet"])
def test_the_command_asks_with_vectors(
    ingested: tuple[Path, Path, Any], tmp_path: Path, name: str
) -> None:
    store, _, vectors = ingested
    queries = vectors[[7, 250]]
    if name == "q.npy":
        np.save(tmp_path / name, queries.astype(np.float64))
    else:
        write_vectors(tmp_path / name, queries, ["seven", None], dtype="float64")
    output = tmp_path / "out.parquet"
    asked = ["query", "--store", str(store), "--vectors", str(tmp_path / name), "-k", "4"]
    assert main([*asked, "--output", str(output)]) == 0
    rows = pq.read_table(output).to_pylist()
    names = ["seven" if name == "q.parquet" else "vector:0", "vector:1"]
    assert [(row["query_uri"], row["rank"], row["uri"]) for row in rows] == [
        (label, rank, f"{row // 100}/{row % 100}")
        for label, query in zip(names, (7, 250), strict=True)
        for rank, row in enumerate(exact(vectors, query, 4), start=1)
    ]


def test_pictures_cannot_be_asked_for(
    ingested: tuple[Path, Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(1).save(tmp_path / "a.png")
    assert main(["query", "--store", str(ingested[0]), "--images", str(tmp_path / "a.png")]) == 2
    assert "its vectors were made elsewhere" in (said := capsys.readouterr().err)
    assert "--vectors" in said
    assert said.count("\n") == 1


def test_nothing_changed(
    ingested: tuple[Path, Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, _ = ingested
    before = snapshot.current(open_store(store))
    assert index(store, folder, config=config(store.parent)) == 0
    assert "nothing changed since" in capsys.readouterr().err
    assert snapshot.current(open_store(store)) == before
    assert [path.name for path in (store / "runs").iterdir()] == ["lock"]


# --- what is wrong with rows, and with requests -----------------------------------------------


def test_faults_are_counted_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = clustered(40, 4).tolist()
    rows: list[Any] = [*good, None, None, [1.0] * 3, [np.nan] + [1.0] * 3, [0.0] * 4, good[0]]
    uris: list[str | None] = [*(f"g{i}" for i in range(40)), *"nosze", "g7"]
    uris[3] = None
    path = write_vectors(tmp_path / "in/a.parquet", pa.array(rows, pa.list_(pa.float64())), uris)
    write_vectors(tmp_path / "in/b.parquet", np.ones((2, 4)), ["g1", "new"])
    assert index(tmp_path / "store", tmp_path / "in", config=config(tmp_path)) == 0
    counts = snapshot.read_manifest(open_store(tmp_path / "store"))["counts"]
    assert {name: counts[name] for name in ("listed", "embedded", "rejected", "vectors")} == {
        "listed": 48,
        "embedded": 40,
        "rejected": 8,
        "vectors": 40,
    }
    assert counts["rejected_by_reason"] == {
        "duplicate_uri": 2,
        "not_finite": 1,
        "null_uri": 1,
        "null_vector": 2,
        "wrong_dimension": 1,
        "zero_vector": 1,
    }
    details = {row.uri: row.detail for row in rows_of_ledger(tmp_path / "store") if row.detail}
    assert details[f"{path}#row=3"] == "row 3: its uri is null or empty"
    other = tmp_path / "in/b.parquet"
    said = "row 0: its uri is that of an earlier row, which counts: g1"
    assert details[f"{other}#row=0"] == said
    assert "2 rows repeat the uri" in capsys.readouterr().err


def test_requests_that_are_wrong(
    ingested: tuple[Path, Path, Any],
    indexed: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, folder, _ = ingested
    images_store, images = indexed
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    wide = write_vectors(tmp_path / "wide.parquet", np.ones((3, DIM + 1)))
    empty = write_vectors(tmp_path / "empty.parquet", np.ones((0, DIM)))
    torn = write_vectors(tmp_path / "torn.parquet", np.ones((3, DIM)))
    torn.write_bytes(torn.read_bytes()[:-9])
    pq.write_table(pa.table({"uri": ["a"], "v": [[1.0]]}), tmp_path / "columns.parquet")
    (tmp_path / "features.yaml").write_text(
        "features: [{name: a, handle: 'builtin:color-texture'}]"
    )
    to_new = ["index", "--store", str(tmp_path / "new")]
    for arguments, message in (
        ([*to_new], "one of the arguments --images --embeddings is required"),
        ([*to_new, "--images", "a", "--embeddings", "b"], "not allowed with"),
        ([*to_new, "--embeddings", str(tmp_path / "absent")], "absent: no such file or folder"),
        ([*to_new, "--embeddings", str(empty)], "no vector in the first 0 rows"),
        ([*to_new, "--embeddings", str(torn)], "torn.parquet: not readable as Parquet"),
        (
            [*to_new, "--embeddings", str(tmp_path / "columns.parquet")],
            "columns.parquet: needs the columns uri and embedding, it has uri, v",
        ),
        (
            [*to_new, "--embeddings", str(folder), "--config", str(tmp_path / "features.yaml")],
            "features: vectors made elsewhere (--embeddings) need no models",
        ),
        (
            ["index", "--store", str(store), "--images", str(images)],
            "its vectors were made elsewhere (--embeddings)",
        ),
        (
            ["index", "--store", str(images_store), "--embeddings", str(folder)],
            "its vectors come from models (builtin:color-texture)",
        ),
        (
            ["query", "--store", str(store), "--vectors", str(wide)],
            f"row 0: its embedding has {DIM + 1} components, the store's have {DIM}",
        ),
    ):
        assert main(arguments) == 2, arguments
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_too_many_rejected_do_not_publish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_vectors(tmp_path / "a.parquet", np.zeros((5, 4)))
    assert index(tmp_path / "store", path, config=config(tmp_path)) == 3
    said = capsys.readouterr().err
    assert "zero_vector 5" in said
    assert "a/0: zero_vector: row 0: all 4 components are 0" in said
    assert snapshot.current(open_store(tmp_path / "store")) is None
    write_vectors(path, clustered(5, 4))  # mended, it is read anew
    assert index(tmp_path / "store", path, config=config(tmp_path)) == 0


def test_only_a_setting_that_helps_is_advised_where_files_are_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder := tmp_path / "pictures").mkdir()
    for seed in range(4):
        picture(seed).save(folder / f"{seed}.png")
    text = "features: [{name: low, handle: 'builtin:color-texture'}]\n"
    given = ["--config", config(tmp_path, text), "--images", str(folder)]
    run = ["index", *given, "--store", str(tmp_path / "store")]
    assert main(run) == 0
    for left, advice in ((1, "publish.max_shrink_share: 1\n"), (0, "mounted and readable\n")):
        for path in sorted(folder.iterdir())[left:]:
            path.unlink()
        assert main(run) == 3
        said = capsys.readouterr().err
        assert said.endswith(advice), said  # at 1 an empty listing is not published, either


# --- other stores -----------------------------------------------------------------------------


def test_one_row(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", np.array([[3.0, 4.0]]), ["alone"])
    assert index(tmp_path / "store", path, config=config(tmp_path)) == 0
    [[one]] = lookalike.open(tmp_path / "store").search(vectors=[[6.0, 8.0]], k=10)
    assert (one.uri, one.score) == ("alone", pytest.approx(1.0))


@pytest.mark.parametrize(
    ("text", "given", "kept"),
    [
        ("", "float16", "float16"),
        ("embed: {dtype: float16}", "float64", "float16"),
        ("embed: {dtype: float32}", "float16", "float32"),
        ("", "float64", "float32"),
    ],
)
def test_half_floats(tmp_path: Path, text: str, given: str, kept: str) -> None:
    vectors = clustered(50, DIM)
    path = write_vectors(tmp_path / "a.parquet", vectors, dtype=given)
    assert index(tmp_path / "store", path, config=config(tmp_path, text)) == 0
    manifest = snapshot.read_manifest(open_store(tmp_path / "store"))
    [line] = snapshot.files_of(manifest, "embedding")
    kind = pq.read_schema(tmp_path / "store" / line["path"]).field("embedding").type.value_type
    assert str(kind) == {"float16": "halffloat", "float32": "float"}[kept]
    expected = vectors.astype(given).astype(kept).astype(np.float32)
    [found] = lookalike.open(tmp_path / "store").search(vectors=vectors[:1], k=3)
    assert [one.uri for one in found] == [f"a/{row}" for row in exact(expected, 0, 3)]


def test_another_run_brings_the_changes(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", clustered(20, DIM))
    assert index(tmp_path / "store", path, config=config(tmp_path)) == 0
    first = snapshot.read_manifest(open_store(tmp_path / "store"))
    more = write_vectors(tmp_path / "b.parquet", clustered(30, DIM, seed=1))
    assert index(tmp_path / "store", path, more, config=config(tmp_path)) == 0
    second = snapshot.read_manifest(open_store(tmp_path / "store"))
    assert second["parent"] == first["name"]
    assert second["counts"]["vectors"] == 50
    numbers = [line["file_no"] for line in snapshot.files_of(second, "embedding")]
    assert min(numbers) >= first["next_file_no"]
    assert lookalike.open(tmp_path / "store").count == 50


# --- night after night ------------------------------------------------------------------------


def rows_of(store: Path) -> set[tuple[str, bytes, str | None]]:
    """What lives in a store: uri, vector and label of every row that is no tombstone."""
    manifest = snapshot.read_manifest(open_store(store))
    deleted = {
        *read_tombstones(
            store / line["path"] for line in snapshot.files_of(manifest, "tombstones")
        ).tolist()
    }
    found = set()
    for line in snapshot.files_of(manifest, "embedding"):
        path = store / line["path"]
        names = [
            column for column in ("id", "uri", "label") if column in pq.read_schema(path).names
        ]
        vectors = np.concatenate([block for _, block in iter_blocks(path)])
        for row, vector in zip(iter_rows(path, names), vectors, strict=True):
            if row["id"] not in deleted:
                found.add((row["uri"], vector.tobytes(), row.get("label")))
    return found


@pytest.mark.slow
def test_night_after_night_the_store_is_that_of_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, store, plain = tmp_path / "in", tmp_path / "store", config(tmp_path)
    vectors = clustered(200, DIM)
    uris: list[str | None] = [f"a/{i}" for i in range(100)]
    labels = [f"{i % 3}" for i in range(100)]

    def write() -> None:
        write_vectors(folder / "a.parquet", vectors[:100], uris, metadata={"label": labels})

    def night(day: int, **expected: int) -> None:
        assert index(store, folder, config=plain) == 0
        counts = snapshot.read_manifest(open_store(store))["counts"]
        assert {name: counts[name] for name in expected} == expected, day
        fresh = tmp_path / f"fresh{day}"
        assert index(fresh, folder, config=plain) == 0
        assert rows_of(store) == rows_of(fresh), day
        assert main(["verify", "--store", str(store)]) == 0

    write()
    write_vectors(folder / "b.parquet", vectors[100:], group=30, metadata={"label": ["b"] * 100})
    night(0, embedded=200, unchanged=0)
    shards = {
        line["path"]
        for line in snapshot.files_of(snapshot.read_manifest(open_store(store)), "embedding")
    }
    vectors[3] *= 2  # another vector, another label, another name, a row less, a repeat, a null
    labels[5], uris[7], uris[9], uris[11] = "other", "a/new", "a/8", None
    write()
    night(1, embedded=3, unchanged=195, rejected=2, removed=3)
    assert shards <= {
        line["path"]
        for line in snapshot.files_of(snapshot.read_manifest(open_store(store)), "embedding")
    }
    capsys.readouterr()
    before = snapshot.current(open_store(store))
    assert index(store, folder, config=plain) == 0
    assert "nothing changed since" in capsys.readouterr().err
    assert snapshot.current(open_store(store)) == before
    os.utime(folder / "b.parquet")  # touched, and read again: nothing is new in it
    (folder / "b.parquet").rename(folder / "c.parquet")
    night(2, embedded=0, unchanged=198)
    (folder / "c.parquet").unlink()
    uris[9] = "a/9"
    write()
    night(3, embedded=1, unchanged=98, rejected=1, removed=101)


@pytest.mark.slow
def test_vectors_of_another_kind_are_brought_in_anew(tmp_path: Path) -> None:
    path = write_vectors(tmp_path / "a.parquet", clustered(20, DIM))
    store = tmp_path / "store"
    assert index(store, path, config=config(tmp_path)) == 0
    files = {line["path"] for line in snapshot.read_manifest(open_store(store))["files"]}
    wide = clustered(20, DIM + 1)
    write_vectors(path, wide)
    assert index(store, path, config=config(tmp_path)) == 0
    second = snapshot.read_manifest(open_store(store))
    assert (second["dim"], second["counts"]["embedded"]) == (DIM + 1, 20)
    assert not files & {line["path"] for line in snapshot.files_of(second, "embedding")}
    [found] = lookalike.open(store).search(vectors=wide[:1], k=3)
    assert [one.uri for one in found] == [f"a/{row}" for row in exact(wide, 0, 3)]
    assert main(["verify", "--store", str(store)]) == 0
    assert index(store, path, config=config(tmp_path, "metric: l2")) == 0
    third = snapshot.read_manifest(open_store(store))
    assert (third["metric"], third["counts"]["embedded"]) == ("l2", 20)


# --- stopped and continued --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_a_killed_run_is_continued_to_the_same_result(tmp_path: Path) -> None:
    vectors = clustered(3000, DIM)
    for number in range(6):
        own = vectors[number * 500 : number * 500 + 500]
        write_vectors(tmp_path / "in" / f"{number}.parquet", own, group=50)
    text = "embed: {unit_files: 50}\n"
    arguments = ["index", "--embeddings", str(tmp_path / "in"), "--config", config(tmp_path, text)]
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-m", "lookalike.pipelines.cli", *arguments, "--store", str(store)],
        start_new_session=True,
        stderr=subprocess.PIPE,
    )

    def done() -> dict[str, tuple[int, int]]:
        found = {}
        for path in store.glob("runs/*/*/embedded/*.json"):
            shard = store / json.loads(path.read_text())["shard"]["path"]
            found[shard.name] = (shard.stat().st_ino, shard.stat().st_mtime_ns)
        return found

    for _ in range(6000):
        if len(done()) > 3:
            break
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert snapshot.current(open_store(store)) is None
    before = done()
    assert 3 < len(before) < 60
    assert main([*arguments, "--store", str(store)]) == 0
    for name, state in before.items():
        info = (store / "embeddings" / name).stat()
        assert (info.st_ino, info.st_mtime_ns) == state
    assert main(["verify", "--store", str(store)]) == 0
    assert main([*arguments, "--store", str(tmp_path / "uninterrupted")]) == 0

    def stored(root: Path) -> dict[int, bytes]:
        lines = snapshot.files_of(snapshot.read_manifest(open_store(root)), "embedding")
        blocks = [block for line in lines for block in iter_blocks(root / line["path"])]
        return {int(i): v.tobytes() for ids, rows in blocks for i, v in zip(ids, rows, strict=True)}

    assert stored(store) == stored(tmp_path / "uninterrupted")
    assert len(stored(store)) == 3000
