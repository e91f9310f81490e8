"""What is exported, opened by the software that it is meant for."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.exact_neighbours import ExactNeighbours, recall_at_k
from lookalike.ivf.fast_scan import pack_blocks, unpack_blocks
from lookalike.pipelines.cli import main
from lookalike.pipelines.outputs import new_folder
from lookalike.sources.sample_shards import write_samples
from lookalike.store import snapshot
from lookalike.store.exporting import LivingRows
from lookalike.store.lance_dataset import write_dataset
from lookalike.store.objects import open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.file_limits import files_of_at_most
from tests.vector_stores import build_index, clustered, make_store

ROWS, DIM, QUERIES, K, NPROBE = 6000, 32, 300, 10, 6
VECTORS = clustered(ROWS + QUERIES, DIM, seed=3)
ASKED = VECTORS[ROWS:]


def made(
    folder: Path,
    metric: str,
    options: dict[str, Any],
    forget: bool = True,
    dtype: str = "float32",
) -> np.ndarray:
    """A store, of which every seventh row and one whole shard are deleted; ids of the living."""
    extra = {"search": {"nprobe": NPROBE, "rerank": 100}}
    ids, _, manifest = make_store(
        folder, VECTORS[:ROWS].astype(dtype), metric, files=5, options=options, extra=extra
    )
    if not forget:
        return ids
    gone = np.concatenate([ids[::7], ids[(ids >> 32) == 6]])
    record = write_tombstones(open_store(folder), "snapshots/one/tombstones.npy", gone)
    line = {**record.to_json(), "kind": "tombstones"}
    publishing.publish(open_store(folder), {**manifest, "files": [*manifest["files"], line]})
    return np.setdiff1d(ids, gone)


def exported(store: Path, kind: str, out: Path) -> Path:
    assert main(["export", "--store", str(store), "--format", kind, str(out)]) == 0
    return out


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize(
    "options",
    [
        {"kind": "ivf_pq", "nlist": 48, "nbits": 4, "shards": 3},
        {"kind": "ivf_pq", "nlist": 48, "nbits": 8, "code_bytes": 8},
        {"kind": "ivf_sq", "nlist": 48},
    ],
    ids=["pq4", "pq8", "sq8"],
)
def test_faiss_finds_the_same_candidates(
    metric: str, options: dict[str, Any], tmp_path: Path
) -> None:
    living = made(tmp_path / "store", metric, options)
    index = faiss.read_index(str(exported(tmp_path / "store", "faiss", tmp_path / "a.faiss")))
    assert (index.ntotal, index.d) == (len(living), DIM)
    ivf = faiss.extract_index_ivf(index)
    assert ivf.nprobe == NPROBE
    lists = ivf.invlists
    held = [
        faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)).copy() for i in range(lists.nlist)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.sort(living))

    searcher = lookalike.open(tmp_path / "store")
    order = {row: i for i, row in enumerate(living.tolist())}
    truth = ExactNeighbours(ASKED, np.full(QUERIES, -1), K, metric)
    truth.update(
        living,
        searcher.rows(living, ["embedding"])["embedding"]
        .combine_chunks()
        .flatten()
        .to_numpy()
        .reshape(-1, DIM),
    )

    def recall(ids: np.ndarray) -> float:
        assert all(row in order for row in ids.ravel().tolist())
        scores = searcher.index.exact_scores(ASKED, ids)
        return float(recall_at_k(ids, scores, truth.ids, truth.scores, K, metric).mean())

    ours, _ = searcher.index.candidates(ASKED, NPROBE, K)
    _, theirs = index.search(ASKED, K)
    assert recall(theirs) >= recall(ours) - 0.005
    if options["kind"] == "ivf_pq":  # scalar codes go by distance there, which keeps more of them
        assert recall(theirs) <= recall(ours) + 0.005
    same = np.mean([len(set(a) & set(b)) / K for a, b in zip(ours, theirs, strict=True)])
    assert same > 0.95


@pytest.mark.parametrize("kind", ["exact", "ivf_pq"])
def test_lists_that_lie_in_several_files_are_put_together(kind: str, tmp_path: Path) -> None:
    """As nights leave them, each of which adds a shard for the rows that are new."""
    store = tmp_path / "store"
    options = {"kind": kind, **({"nlist": 16} if kind == "ivf_pq" else {})}
    ids, _, manifest = make_store(store, VECTORS[:900], files=5, options=options)
    opened = lookalike.open(store)
    whole = faiss.read_index(str(exported(store, "faiss", tmp_path / "whole.faiss")))
    paths = [line["path"] for line in snapshot.files_of(manifest, "embedding")]
    lines = [line for line in manifest["files"] if line["kind"] != "index"]
    for part in (paths[:1], paths[1:3], paths[3:]):
        shutil.rmtree(store / "runs")  # where it says that this is done
        lines += build_index(store, part, opened.index.trained)
    publishing.publish(open_store(store), {**manifest, "files": lines})
    assert len(lookalike.open(store).index.files) == 3
    parts = faiss.read_index(str(exported(store, "faiss", tmp_path / "parts.faiss")))
    assert parts.ntotal == len(ids)
    for one, other in zip(parts.search(ASKED, K), whole.search(ASKED, K), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "l2"])
def test_an_exact_store_becomes_a_flat_index(metric: str, tmp_path: Path) -> None:
    living = made(tmp_path / "store", metric, {"kind": "exact"})
    index = faiss.read_index(str(exported(tmp_path / "store", "faiss", tmp_path / "a.faiss")))
    scores, ids = index.search(ASKED, K)
    searcher = lookalike.open(tmp_path / "store")
    expected, exact = searcher.search_vectors(ASKED, K)
    np.testing.assert_array_equal(ids, expected)
    scores = np.sqrt(scores) if metric == "l2" else scores
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-5)
    assert index.ntotal == len(living)


def test_a_store_of_nothing_but_deleted_rows(tmp_path: Path) -> None:
    ids = made(tmp_path / "store", "cosine", {"kind": "exact"}, forget=False)
    manifest = snapshot.read_manifest(open_store(tmp_path / "store"))
    record = write_tombstones(open_store(tmp_path / "store"), "snapshots/one/tombs.npy", ids)
    line = {**record.to_json(), "kind": "tombstones"}
    files = [*manifest["files"], line]
    publishing.publish(open_store(tmp_path / "store"), {**manifest, "files": files})
    index = faiss.read_index(str(exported(tmp_path / "store", "faiss", tmp_path / "a.faiss")))
    assert index.ntotal == 0
    folder = exported(tmp_path / "store", "npy", tmp_path / "arrays")
    assert len(np.load(folder / "vectors.npy")) == 0
    assert (
        pq.read_table(exported(tmp_path / "store", "parquet", tmp_path / "a.parquet")).num_rows == 0
    )
    out = exported(tmp_path / "store", "lance", tmp_path / "a.lance")
    assert lance.dataset(out).count_rows() == 0


def test_arrays_and_names_are_in_the_same_order(tmp_path: Path) -> None:
    living = made(tmp_path / "store", "l2", {"kind": "exact"})
    folder = exported(tmp_path / "store", "npy", tmp_path / "arrays")
    assert sorted(path.name for path in folder.iterdir()) == ["uris.parquet", "vectors.npy"]
    vectors, names = (
        np.load(folder / "vectors.npy", mmap_mode="r"),
        pq.read_table(folder / "uris.parquet"),
    )
    np.testing.assert_array_equal(names["id"].to_numpy(), living)
    rows = [int(Path(uri).stem) for uri in names["uri"].to_pylist()]
    np.testing.assert_array_equal(vectors, VECTORS[rows])


def test_one_table_of_the_living_rows(tmp_path: Path) -> None:
    living = made(tmp_path / "store", "cosine", {"kind": "exact"})
    out = exported(tmp_path / "store", "parquet", tmp_path / "a.parquet")
    table = pq.read_table(out)
    assert table.column_names == ["id", "uri", "label", "embedding"]
    np.testing.assert_array_equal(table["id"].to_numpy(), living)
    rows = [int(Path(uri).stem) for uri in table["uri"].to_pylist()]
    assert table["label"].to_pylist() == [f"group {row % 3}" for row in rows]
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, DIM), VECTORS[rows])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_lance_dataset_is_the_table_and_searches(dtype: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    made(store, "l2", {"kind": "exact"}, dtype=dtype)
    dataset = lance.dataset(exported(store, "lance", tmp_path / "a.lance"))
    expected = pq.read_table(exported(store, "parquet", tmp_path / "a.parquet"))
    assert expected.schema.field("embedding").type.value_type == pa.type_for_alias(dtype)
    assert dataset.schema.field("embedding").type == pa.list_(pa.float32(), DIM)
    table = dataset.to_table()
    assert table.column_names == ["id", "uri", "label", "embedding"]
    assert table.to_pylist() == expected.to_pylist()

    found, scores = lookalike.open(store).search_vectors(ASKED[:20], K)
    for query, ids, distances in zip(ASKED[:20], found, scores, strict=True):
        nearest = {"column": "embedding", "q": query, "k": K, "metric": "l2"}
        answer = dataset.to_table(columns=["id", "_distance"], nearest=nearest)
        assert answer["id"].to_pylist() == ids.tolist()
        np.testing.assert_allclose(np.sqrt(answer["_distance"]), distances, rtol=1e-4)


def test_a_lance_dataset_is_on_the_disk_before_all_rows_are_read(tmp_path: Path) -> None:
    schema = pa.schema(
        [("id", pa.int64()), ("uri", pa.string()), ("embedding", pa.list_(pa.float32(), 64))]
    )
    out, written = tmp_path / "a.lance", []

    def size() -> int:
        return sum(path.stat().st_size for path in out.rglob("*"))

    class Rows(LivingRows):
        def __init__(self) -> None:
            self.schema = schema

        def batches(self, schema: pa.Schema) -> Iterator[pa.Table]:
            vectors = pa.array(np.zeros(4096 * 64, np.float32))
            columns = [range(4096), map(str, range(4096))]
            table = [*map(pa.array, columns), pa.FixedSizeListArray.from_arrays(vectors, 64)]
            for _ in range(48):
                yield pa.table(table, schema=schema)
                written.append(size())

    write_dataset(Rows(), out)
    assert written[-1] > size() / 2 > 20 << 20


def test_a_column_that_lance_cannot_hold_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[:8].ravel()), DIM)
    named = {"uri": [f"{row}.jpg" for row in range(8)], "embedding": vectors, "exif.iso": range(8)}
    pq.write_table(pa.table(named), tmp_path / "v.parquet")
    store, out = str(tmp_path / "store"), str(tmp_path / "a.lance")
    given = ["--embeddings", str(tmp_path / "v.parquet")]
    assert main(["index", *given, "--store", store]) == 0
    before = sorted(path.name for path in tmp_path.iterdir())
    capsys.readouterr()
    assert main(["export", "--store", store, "--format", "lance", out]) == 2
    err = capsys.readouterr().err
    assert "Lance takes no column 'exif.iso' of type int64" in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_fault_of_the_store_is_told_as_its_own(tmp_path: Path) -> None:
    _, _, manifest = make_store(tmp_path / "store", VECTORS[:50])
    with lookalike.open(tmp_path / "store") as opened:
        rows = LivingRows(opened.store, opened.manifest)
    path = tmp_path / "store" / snapshot.files_of(manifest, "embedding")[-1]["path"]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        write_dataset(rows, tmp_path / "a.lance")


@pytest.mark.parametrize("kind", ["npy", "lance"])
def test_no_room_for_a_folder_may_pass(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "store", VECTORS[:600])
    before, out = sorted(tmp_path.iterdir()), tmp_path / "out"
    with files_of_at_most(20_000):
        status = main(["export", "--store", str(tmp_path / "store"), "--format", kind, str(out)])
    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1), said
    assert said.startswith(f"lookalike: OUT {out}: cannot be written: ")
    assert "file too large" in said
    assert sorted(tmp_path.iterdir()) == before


def test_what_cannot_be_read_is_not_said_of_what_is_written(tmp_path: Path) -> None:
    gone = tmp_path / "store" / "embeddings" / "000000.parquet"

    def copy() -> None:
        with new_folder("OUT", tmp_path / "out") as folder:
            folder.mkdir()
            (folder / "copy").write_bytes(gone.read_bytes())

    with pytest.raises(FileNotFoundError) as told:
        copy()
    assert told.value.filename == str(gone)
    assert not list(tmp_path.iterdir())


def test_without_pylance_what_to_install_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "store", VECTORS[:50])
    monkeypatch.setattr("lookalike.pipelines.export.find_spec", lambda name: None)
    given = ["--store", str(tmp_path / "store"), "--format", "lance", str(tmp_path / "a.lance")]
    assert main(["export", *given]) == 2
    assert "pip install 'lookalike[lance]'" in capsys.readouterr().err


def test_an_index_of_other_rows_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, manifest = make_store(tmp_path / "store", VECTORS[:50])
    twice = [*manifest["files"], *snapshot.files_of(manifest, "index")]
    publishing.publish(open_store(tmp_path / "store"), {**manifest, "files": twice})
    out = tmp_path / "a.faiss"
    arguments = ["export", "--store", str(tmp_path / "store"), "--format", "faiss", str(out)]
    assert main(arguments) == 2
    assert "the index holds 100 living rows, the snapshot 50" in capsys.readouterr().err
    assert not out.exists()


def test_blocks_are_unpacked_to_what_was_packed() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (96, 7), dtype=np.uint8)
    np.testing.assert_array_equal(unpack_blocks(pack_blocks(codes)), codes)


@pytest.mark.parametrize(
    ("metric", "kind", "out", "message"),
    [
        ("cosine", "faiss", "there.faiss", "is there already; name another, or remove it"),
        ("cosine", "npy", "no/such", "no such folder"),
        ("cosine", "lance", "there.faiss", "is there already; name another, or remove it"),
        ("cosine", "parquet", "table.txt", "must end in .parquet"),
        ("jaccard", "faiss", "a.faiss", "Faiss searches by no such metric as jaccard"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    metric: str,
    kind: str,
    out: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_store(tmp_path / "store", VECTORS[:50], metric)
    (tmp_path / "there.faiss").write_text("mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    arguments = [
        "export",
        "--store",
        str(tmp_path / "store"),
        "--format",
        kind,
        str(tmp_path / out),
    ]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / "there.faiss").read_text() == "mine"


def test_the_result_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_store(tmp_path / "store", VECTORS[:50])
    out = tmp_path / "a.faiss"
    arguments = [
        "export",
        "--store",
        str(tmp_path / "store"),
        "--format",
        "faiss",
        str(out),
        "--json",
    ]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == {
        "format": "faiss",
        "path": str(out),
        "snapshot": "one",
        "metric": "cosine",
        "dim": DIM,
        "rows": 50,
        "nprobe": 1,
    }


# --- pictures ---------------------------------------------------------------------------------


@pytest.fixture
def photographed(tmp_path: Path, pictures: Callable[..., Path]) -> tuple[Path, Path]:
    """A store of twelve JPEGs with two columns, and the folder that they are in."""
    folder = pictures(12)
    lines = [f"{path},{number},{number % 2 or ''}" for number, path in enumerate(jpegs(folder))]
    (tmp_path / "m.csv").write_text("\n".join(["uri,number,odd", *lines]) + "\n")
    (tmp_path / "c.yaml").write_text(
        "features: [{name: low, handle: 'builtin:color'}]\nrunner: {workers: 1}\n"
    )
    given = ["--config", str(tmp_path / "c.yaml"), "--images", str(tmp_path / "m.csv")]
    assert main(["index", *given, "--store", str(tmp_path / "store")]) == 0
    return tmp_path / "store", folder


def jpegs(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def samples(folder: Path) -> list[dict[str, Any]]:
    """The samples of all shards, in order: suffixes and contents, the key as ""."""
    found: list[dict[str, Any]] = []
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                if not found or found[-1][""] != key:
                    found.append({"": key})
                file = tar.extractfile(member)
                assert file is not None
                found[-1][suffix] = file.read()
    return found


def test_samples_are_files_columns_and_vectors(photographed: tuple[Path, Path]) -> None:
    store, _ = photographed
    out = exported(store, "webdataset", store.parent / "samples")
    assert [path.name for path in out.iterdir()] == ["000000.tar"]
    found = samples(out)
    table = lookalike.dataset(store).to_table()
    assert [one[""] for one in found] == [f"{row:012d}" for row in range(12)]
    for one, row in zip(found, table.to_pylist(), strict=True):
        assert set(one) == {"", "jpg", "json", "npy"}
        assert one["jpg"] == Path(row["uri"]).read_bytes()
        vector = np.load(io.BytesIO(one["npy"]))
        np.testing.assert_array_equal(vector, np.array(row.pop("embedding"), vector.dtype))
        assert vector.dtype == np.float32
        row["content_sha256"] = row["content_sha256"].hex()
        assert json.loads(one["json"]) == row
    again = exported(store, "webdataset", store.parent / "again")
    assert (again / "000000.tar").read_bytes() == (out / "000000.tar").read_bytes()


def test_shards_end_where_they_are_large(photographed: tuple[Path, Path]) -> None:
    store, _ = photographed
    with lookalike.open(store) as searcher:
        rows = LivingRows(searcher.store, searcher.manifest)
        (store.parent / "small").mkdir()
        told = write_samples(rows, store.parent / "small", shard_bytes=1)
    assert (told.samples, told.missing, told.shards) == (12, 0, 12)
    exported(store, "webdataset", store.parent / "large")
    assert samples(store.parent / "small") == samples(store.parent / "large")


def test_what_is_exported_can_be_indexed_again(photographed: tuple[Path, Path]) -> None:
    store, _ = photographed
    out = exported(store, "webdataset", store.parent / "samples")
    given = ["--config", str(store.parent / "c.yaml"), "--images", str(out / "*.tar")]
    assert main(["index", *given, "--store", str(store.parent / "other")]) == 0
    tables = [lookalike.dataset(one).to_table() for one in (store, store.parent / "other")]
    first, second = (table.sort_by("number") for table in tables)
    assert second["content_sha256"].to_pylist() == first["content_sha256"].to_pylist()
    assert second["embedding"].to_pylist() == first["embedding"].to_pylist()


def test_files_that_are_gone_are_left_out_and_named(
    photographed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder = photographed
    (folder / "003.jpg").unlink()
    shutil.copy(folder / "005.jpg", folder / "004.jpg")  # another one now
    out = store.parent / "samples"
    capsys.readouterr()
    asked = ["export", "--store", str(store), "--format", "webdataset", str(out)]
    assert main([*asked, "--json"]) == 0
    told, err = capsys.readouterr()
    document = json.loads(told)
    assert (document["rows"], document["missing"], document["shards"]) == (10, 2, 1)
    assert err == f"2 rows left out, whose files cannot be had: {out / 'missing.jsonl'}\n"
    lines = [json.loads(line) for line in (out / "missing.jsonl").read_text().splitlines()]
    why = {line["uri"]: line["reason"] for line in lines}
    assert set(why) == {str(folder / "003.jpg"), str(folder / "004.jpg")}
    assert "another one now" in why[str(folder / "004.jpg")]
    found = [json.loads(one["json"])["number"] for one in samples(out)]
    rows = lookalike.dataset(store).to_table(columns=["number"])["number"].to_pylist()
    assert found == [number for number in rows if number not in (3, 4)]


def test_without_any_picture_nothing_is_written(
    photographed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder = photographed
    shutil.rmtree(folder)
    before = sorted(path.name for path in store.parent.iterdir())
    capsys.readouterr()
    out = str(store.parent / "samples")
    assert main(["export", "--store", str(store), "--format", "webdataset", out]) == 2
    err = capsys.readouterr().err
    assert "none of the 12 files can be had; the first: " in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in store.parent.iterdir()) == before
