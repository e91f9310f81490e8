"""docs/format.md: its code reads stores without lookalike, its tables name what there is."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.ivf.fast_scan import pack_blocks
from lookalike.ivf.shard_files import map_shard
from lookalike.ivf.trained_index import load_trained_index
from lookalike.pipelines.cli import main
from lookalike.store import shard_format, snapshot
from lookalike.store.index_header import ShardHeader
from lookalike.store.ledger import SCHEMA, read_ledger
from lookalike.store.living import deleted_ids
from lookalike.store.objects import open_store
from tests.documented import ROOT, script
from tests.vector_stores import clustered

PAGE = ROOT / "docs" / "format.md"
VECTORS = clustered(3100, 24)
NIGHTS = {"first": {0: 1500, 1: 1300, 2: 200}, "second": {0: 1500, 1: 1300, 3: 100}}
STARTS = {0: 0, 1: 1500, 2: 2800, 3: 3000}


def night(folder: Path, rows: dict[int, int]) -> None:
    """Index some tables of vectors, of which rows that stay have not changed."""
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    for path in tables.iterdir():
        if int(path.stem) not in rows:
            path.unlink()
    for number, count in rows.items():
        path, which = tables / f"{number}.parquet", range(STARTS[number], STARTS[number] + count)
        if not path.exists():
            vectors = pa.array(VECTORS[which].reshape(-1))
            columns = {
                "uri": [f"v/{row}" for row in which],
                "label": [f"group {row % 3}" for row in which],
                "embedding": pa.FixedSizeListArray.from_arrays(vectors, 24),
            }
            pq.write_table(pa.table(columns), path)
    config = folder / "config.yaml"
    config.write_text("index: {kind: ivf_pq}\npublish: {min_recall: 0.5}\nrunner: {workers: 1}\n")
    store = str(folder / "vectors.store")
    arguments = ["--config", str(config), "--embeddings", str(tables), "--store", store]
    assert main(["index", *arguments]) == 0


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders with a store: as first made, and as it was gone on from, with deleted rows."""
    folder = tmp_path_factory.mktemp("format")
    night(folder, NIGHTS["first"])
    first = shutil.copytree(folder, tmp_path_factory.mktemp("first") / "night")
    night(folder, NIGHTS["second"])
    return {"first": Path(first), "second": folder}


@pytest.fixture(scope="module", params=["first", "second"])
def read(
    request: pytest.FixtureRequest, nights: dict[str, Path]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A store, and what the page's code made of it, in the folder that it runs in."""
    folder, names = nights[request.param], dict[str, Any]()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with redirect_stdout(io.StringIO()) as out:
            exec(compile(script(PAGE), str(PAGE), "exec"), names)
        names["printed"] = out.getvalue()
        yield folder / "vectors.store", names


def test_the_page_needs_nothing_of_lookalike() -> None:
    imported = {
        (node.names[0].name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
        for node in ast.walk(ast.parse(script(PAGE)))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported == {"hashlib", "json", "struct", "zlib", "pathlib", "numpy", "pyarrow"}


def test_the_page_reads_rows_as_lookalike_does(read: tuple[Path, dict[str, Any]]) -> None:
    folder, found = read
    store = open_store(folder)
    [line] = found["files"]["ledger"]
    wanted = {row.uri: row for row in read_ledger(store.local(line["path"]))}
    for uri in ("v/0", "v/1234", "v/2799", "v/2900", "v/3000"):
        row = found["ledger_row"](uri)
        assert row == (wanted[uri].__dict__ if uri in wanted else None)
    with lookalike.open(folder) as searcher:
        ids = [wanted[f"v/{row}"].id for row in (0, 1499, 1500, 2799)]
        rows = searcher.rows(ids, ["embedding"])["embedding"].to_pylist()
        assert [found["stored_vector"](one).tolist() for one in ids] == rows
        assert found["living"].num_rows == searcher.count
    manifest = snapshot.read_manifest(store)
    assert found["deleted"].tolist() == deleted_ids(store, manifest).tolist()


def test_the_page_decodes_entries_as_the_trained_index_does(
    read: tuple[Path, dict[str, Any]],
) -> None:
    folder, found = read
    store, name = open_store(folder), found["manifest"]["index"]["template"]
    trained = load_trained_index(store.local_folder(f"templates/{name}"), name)
    assert np.array_equal(trained.centroids, found["centroids"])
    entries = 0
    for line in found["files"]["index"]:
        file = map_shard(store.local(line["path"]), name, trained.code_size, trained.spec.nlist)
        assert [ids.tolist() for ids in file.ids() if len(ids)] == [
            ids.tolist() for _, ids, _ in found["entries"](line)
        ]
        for number, ids, codes in found["entries"](line):
            lists = np.full(len(ids), number)
            wanted = trained.decode(codes, lists)
            assert np.allclose(found["decoded"](number, codes), wanted, atol=1e-6)
            entries += len(ids)
    assert found["printed"].startswith(f"{entries:,} entries, mean cosine")
    assert found["likeness"].mean() > 0.95


def test_the_second_night_has_what_the_first_lacks(nights: dict[str, Path]) -> None:
    """So that the page is tried on deleted rows, and on an index of several files."""
    manifests = {
        name: snapshot.read_manifest(open_store(folder / "vectors.store"))
        for name, folder in nights.items()
    }
    assert manifests["first"]["index"]["way"] != manifests["second"]["index"]["way"] == "append"
    assert not snapshot.files_of(manifests["first"], "tombstones")
    assert len(snapshot.files_of(manifests["second"], "tombstones")) == 1
    assert len(snapshot.files_of(manifests["second"], "index")) == 2


def test_the_block_of_the_example_is_what_is_written() -> None:
    block = pack_blocks(np.arange(32, dtype=np.uint8)[:, None]).tobytes().hex(" ")
    lines = re.findall(r"^    ((?:[0-9a-f]{2} ){16}) ", PAGE.read_text(), re.MULTILINE)
    assert " ".join(line.strip() for line in lines) == block


# --- its tables ---------------------------------------------------------------------------------


def tables(heading: str) -> list[set[str]]:
    """The names in the first columns of the tables below a heading."""
    section = re.split(r"^#+ ", PAGE.read_text().split(f"# {heading}\n", 1)[1], flags=re.M)[0]
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        cells = [line.split("|")[1] for line in table.splitlines()[2:]]
        found.append({name for cell in cells for name in re.findall(r"`([^`]+)`", cell)})
    return found


def test_every_key_of_manifests_is_described(
    nights: dict[str, Path], indexed: tuple[Path, Path]
) -> None:
    stores = [indexed[0], *(folder / "vectors.store" for folder in nights.values())]
    manifests = [snapshot.read_manifest(open_store(store)) for store in stores]
    keys, kinds = tables("manifest.json")
    assert {key for one in manifests for key in one} == keys - {"projection"}
    assert {line["kind"] for one in manifests for line in one["files"]} == kinds - {"forgotten"}
    further = {"kind", "path", "bytes", "sha256", "file_no", "rows", "partition", "delta"}
    assert {key for one in manifests for line in one["files"] for key in line} == further


def test_every_column_is_described(nights: dict[str, Path]) -> None:
    assert tables("Ledger") == [set(SCHEMA.names)]
    columns, properties = tables("Embedding files")
    assert columns == set(shard_format.COLUMNS)
    store = nights["first"] / "vectors.store"
    [path, *_] = (store / "embeddings").iterdir()
    stored = {key.decode() for key in pq.read_metadata(path).metadata}
    assert stored - {"ARROW:schema"} == properties
    with np.load(next(store.glob("snapshots/*/truth.npz"))) as truth:
        assert tables("Ground truth") == [set(truth)]


def test_every_key_of_the_plan_and_of_headers_is_described(nights: dict[str, Path]) -> None:
    store = nights["first"] / "vectors.store"
    [path] = store.glob("templates/*/spec.json")
    assert tables("The trained index")[0] == set(json.loads(path.read_text()))
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in ShardHeader.__dataclass_fields__)
