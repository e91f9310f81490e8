"""The command line as a user meets it: statuses, the one line on stderr, and results on stdout."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.pipelines.cli import main
from lookalike.store import snapshot
from lookalike.store.locks import hold
from lookalike.store.objects import open_store
from tests.conftest import picture

LOW = "features: [{name: low, handle: 'builtin:color-texture'}]\n"


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every name below a folder with its size and time of change."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        found[str(path.relative_to(folder))] = (info.st_size, info.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, indexed: tuple[Path, Path]
) -> Iterator[dict[str, str]]:
    """Names of all sorts of wrong things, and of right ones to combine them with."""
    root = tmp_path_factory.mktemp("place")
    store, pictures = indexed
    for folder in ("empty", "nested/one/two", "texts", "no-model", "foreign", "mixed"):
        (root / folder).mkdir(parents=True)
    (root / "texts" / "notes.txt").write_text("not a picture")
    (root / "texts" / "more.json").write_text("{}")
    (root / "no-model" / "weights.bin").write_bytes(b"\0" * 10)
    (root / "foreign" / "thesis.tex").write_text("years of work")
    (root / "file").write_text("a file")
    (root / "text.jpg").write_text("only named like a picture")
    picture(5).save(root / "whole.jpg")
    (root / "truncated.jpg").write_bytes((root / "whole.jpg").read_bytes()[:300])
    (root / "damaged.pb").mkdir()
    (root / "damaged.pb" / "saved_model.pb").write_bytes(b"not a model")
    (root / "junk.npy").write_bytes(b"junk")
    (root / "junk.parquet").write_bytes(b"junk")
    np.save(root / "narrow.npy", np.ones((2, 3), np.float32))
    np.save(root / "flat.npy", np.ones(7, np.float32))
    np.save(root / "none.npy", np.ones((0, 288), np.float32))
    pq.write_table(pa.table({"vector": [[1.0, 2.0]]}), root / "column.parquet")
    (root / "labels.csv").write_text("file,class\na,b\n")
    (root / "strangers.csv").write_text("uri,label\n/nowhere/a.jpg,x\n/nowhere/b.jpg,x\n")

    configs = {
        "yaml": "features: [",
        "key": LOW + "metrik: cosine\n",
        "folder": f"features: [{{name: a, handle: '{root}/absent'}}]\n",
        "no-model": f"features: [{{name: a, handle: '{root}/no-model'}}]\n",
        "damaged": f"features: [{{name: a, handle: '{root}/damaged.pb'}}]\n",
        "builtin": "features: [{name: a, handle: 'builtin:nothing'}]\n",
        "refused": "features: [{name: a, handle: 'http://127.0.0.1:9/model'}]\n",
        "other": "features: [{name: a, handle: 'builtin:color-texture'}, "
        "{name: b, handle: 'builtin:color-texture'}]\n",
        "low": LOW + "runner: {workers: 1}\n",
    }

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    configs["404"] = f"features: [{{name: a, handle: 'http://127.0.0.1:{server.server_port}/m'}}]\n"
    for name, text in configs.items():
        (root / f"{name}.yaml").write_text(text)
    yield {"root": str(root), "store": str(store), "pictures": str(pictures)}
    server.shutdown()
    server.server_close()


INDEX = "index --store {root}/new --images {pictures}"
QUERY = "query --store {store}"
ONE = "{pictures}/first/1.png"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        # what to do
        ("", "COMMAND"),
        ("indexx", "indexx"),
        ("index --images {pictures}", "--store"),
        ("index --store {root}/new", "--images"),
        (INDEX + " --colour", "--colour"),
        (QUERY, "--images --vectors"),
        (QUERY + " --images a --vectors b", "not allowed"),
        ("status", "--store"),
        ("evaluate --store {store}", "--labels"),
        ("status --store {store} -- --runner=Flink", "index"),
        # sources
        ("index --store {root}/new --images {root}/absent", "absent"),
        ("index --store {root}/new --images {root}/empty", "no files"),
        ("index --store {root}/new --images {root}/nested", "no files"),
        ("index --store {root}/new/deep --images {root}/texts", "is an image"),
        ("index --store {root}/empty --images {root}/texts", "is an image"),
        ("index --store {root}/new --images {root}/*.tiff", "no files"),
        # configs and models
        (INDEX + " --config {root}/absent.yaml", "absent.yaml"),
        (INDEX + " --config {root}/yaml.yaml", "YAML"),
        (INDEX + " --config {root}/key.yaml", "did you mean metric"),
        (INDEX + " --config {root}/folder.yaml", "no model"),
        (INDEX + " --config {root}/no-model.yaml", "saved_model.pb"),
        (INDEX + " --config {root}/damaged.yaml", "damaged.pb"),
        (INDEX + " --config {root}/builtin.yaml", "builtin:color-texture"),
        (INDEX + " --config {root}/404.yaml", "404"),
        (INDEX + " --config {root}/refused.yaml", "refuses"),
        # stores
        ("index --store {root}/file --images {pictures}", "file"),
        ("index --store {root}/file/below --images {pictures}", "not a folder"),
        ("index --store {root}/foreign --images {pictures}", "thesis.tex"),
        ("index --store {pictures}/store --images {pictures}", "inside"),
        ("index --store ftp://host/store --images {pictures}", "s3, gs, az"),
        (QUERY + " --images " + ONE + " --config {root}/other.yaml", "model"),
        ("query --store {root}/new --images " + ONE, "no such store"),
        ("query --store {root}/empty --images " + ONE, "nothing is published"),
        (QUERY + " --snapshot nope --images " + ONE, "nope"),
        (QUERY + " --snapshot ../.. --images " + ONE, "../.."),
        ("status --store {root}/new", "no such store"),
        ("status --store {root}/empty", "nothing is published"),
        ("verify --store {root}/new", "no such store"),
        ("verify --store {root}/file", "file"),
        ("verify --store {store} --snapshot nope", "nope"),
        ("evaluate --store {root}/foreign --labels folders", "published"),
        ("evaluate --store {store} --labels {root}/labels.csv", "uri"),
        ("evaluate --store {store} --labels {root}/absent.csv", "absent.csv"),
        ("evaluate --store {store} --labels {root}/strangers.csv", "label"),
        ("evaluate --store {store} --labels folders -k 0", "whole number from 1"),
        # queries
        (QUERY + " -k 0 --images " + ONE, "at least 1"),
        (QUERY + " -k -1 --images " + ONE, "at least 1"),
        (QUERY + " -k abc --images " + ONE, "abc"),
        (QUERY + " --images {root}/absent.jpg", "absent.jpg"),
        (QUERY + " --images {root}/text.jpg", "text.jpg"),
        (QUERY + " --images {root}/file", "not an image"),
        (QUERY + " --images {root}/truncated.jpg", "truncated"),
        (QUERY + " --images {root}/empty", "no image"),
        (QUERY + " --vectors {root}/narrow.npy", "(2, 3)"),
        (QUERY + " --vectors {root}/flat.npy", "(7,)"),
        (QUERY + " --vectors {root}/nan.npy", "finite"),
        (QUERY + " --vectors {root}/late.npy", "finite"),
        (QUERY + " --vectors {root}/none.npy", "no query"),
        (QUERY + " --vectors {root}/junk.npy", "junk.npy"),
        (QUERY + " --vectors {root}/junk.parquet", "junk.parquet"),
        (QUERY + " --vectors {root}/column.parquet", "embedding"),
        (QUERY + " --vectors {root}/file", ".npy"),
        (QUERY + " --vectors {root}/absent.npy", "absent.npy"),
        (QUERY + " --vectors {root}/empty.npy/", "npy"),
        (QUERY + " --output {root}/out.csv --images " + ONE, ".jsonl"),
        (QUERY + " --output {root}/absent/out.jsonl --images " + ONE, "no such folder"),
        (QUERY + " --html {root}/absent/page.html --images " + ONE, "no such folder"),
        (QUERY + " --html {root}/empty --images " + ONE, "folder"),
        (QUERY + " --html " + ONE + " --images " + ONE, "is there already, and is no page"),
        (QUERY + " --html {store}/CURRENT --images " + ONE, "is there already, and is no page"),
        (QUERY + " --vectors {root}/junk.parquet --output {root}/junk.parquet", "the queries"),
    ],
)
def test_a_wrong_request_ends_with_one_line_and_leaves_no_trace(
    command: str, words: str, place: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    root, store = Path(place["root"]), Path(place["store"])
    if not (root / "nan.npy").exists():
        import lookalike

        vectors = np.ones((100, lookalike.open(store).dim), np.float32)
        vectors[70, 0] = np.nan
        np.save(root / "late.npy", vectors)
        np.save(root / "nan.npy", vectors[70:])
    before = tree(root), tree(store), tree(Path(place["pictures"]))
    capfd.readouterr()
    status = main([word.format(**place) for word in command.split()])
    out, err = capfd.readouterr()
    assert status == 2, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.endswith("\n")
    assert words in err
    assert "Error:" not in err
    assert before == (tree(root), tree(store), tree(Path(place["pictures"])))


def test_answers_are_the_same_however_they_are_asked_for_and_written(
    indexed: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, pictures = indexed
    query = str(pictures / "first" / "0.png")
    asked = ["query", "--store", str(store), "-k", "4"]
    for name in ("out.parquet", "out.jsonl"):
        assert main([*asked, "--images", query, "--output", str(tmp_path / name)]) == 0
    assert main([*asked, "--images", query, "--json"]) == 0
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    printed = capfd.readouterr().out.splitlines()
    assert printed == lines
    table = pq.read_table(tmp_path / "out.parquet")
    names = ["query_uri", "rank", "uri", "score", "id", "duplicates"]
    assert table.schema.names == names
    rows = [json.loads(line) for line in lines]
    for row, written in zip(rows, table.to_pylist(), strict=True):
        assert list(row) == names
        assert row == written
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert {row["query_uri"] for row in rows} == {query}
    assert rows[0]["score"] == pytest.approx(1, abs=1e-6)
    both = {rows[0]["uri"], *rows[0]["duplicates"]}
    assert both == {query, str(pictures / "copy of zero.png")}

    # the stored vector asks the same question
    [shard] = snapshot.files_of(snapshot.read_manifest(open_store(store)), "embedding")[:1]
    stored = pq.read_table(store / shard["path"])
    row = stored["uri"].to_pylist().index(rows[0]["uri"])
    vector = np.array([stored["embedding"][row].as_py()], np.float32)
    np.save(tmp_path / "one.npy", vector)
    columns = {"uri": [query], "embedding": vector.tolist()}
    pq.write_table(pa.table(columns), tmp_path / "one.parquet")
    for name, asker in (("one.npy", "vector:0"), ("one.parquet", query)):
        assert main([*asked, "--vectors", str(tmp_path / name), "--json"]) == 0
        again = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert [one["id"] for one in again] == [one["id"] for one in rows]
        assert {one["query_uri"] for one in again} == {asker}

    assert main([*asked, "--images", str(pictures), "-k", "1000000000000", "--json"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 21 * 20  # every query, every stored image
    assert "not a query" in err
    assert "broken.jpg" in err


def test_every_command_prints_json(
    indexed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    store, _ = indexed
    found = {}
    for command in ("status", "verify", "evaluate --labels folders"):
        name, *flags = command.split()
        assert main([name, "--store", str(store), "--json", *flags]) == 0
        out, err = capfd.readouterr()
        assert err == ""
        found[name] = json.loads(out)
    assert found["status"]["published"]["counts"]["listed"] == 23
    assert found["verify"]["ok"] is True
    assert found["evaluate"]["images"] == 20


def test_a_lifetime_of_a_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, store = tmp_path / "pictures", tmp_path / "store"
    odd = os.fsencode(folder) + b"/\xff\xfe.png"
    names = ["with space.png", "été.png", "new\nline.png", "<img src=x onerror=alert(1)>.png"]
    folder.mkdir()
    for seed, name in enumerate(names):
        picture(seed).save(folder / name)
    data = (folder / names[0]).read_bytes()
    picture(50).save(folder / "other.png")
    os.rename(folder / "other.png", odd)
    (folder / "link.png").symlink_to(folder / "été.png")
    (folder / "lost.png").symlink_to(tmp_path / "nowhere")
    (folder / "circle").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    (folder / "notes.txt").write_text("hello")
    config = tmp_path / "config.yaml"

    def index(*sources: Path, settings: str = "") -> tuple[int, dict[str, Any], str]:
        config.write_text(LOW + "runner: {workers: 1}\n" + settings)
        flags = [flag for source in sources for flag in ("--images", str(source))]
        capfd.readouterr()
        status = main(["index", "--config", str(config), "--store", str(store), "--json", *flags])
        out, err = capfd.readouterr()
        return status, json.loads(out) if status == 0 else {}, err

    # two sources that overlap: every name once
    status, first, err = index(folder, folder / names[0])
    assert status == 0, err
    counts = first["counts"]
    assert {name: counts[name] for name in ("listed", "embedded", "duplicate", "ignored")} == {
        "listed": 9,
        "embedded": 5,
        "duplicate": 1,
        "ignored": 1,
    }
    assert counts["rejected_by_reason"] == {"unreadable": 2}
    assert "not entered" in err
    assert first["new"] is True

    page = tmp_path / "page.html"
    asked = ["query", "--store", str(store), "--images", str(folder), "--html", str(page), "--json"]
    assert main(asked) == 0
    out, err = capfd.readouterr()
    uris = {json.loads(line)["uri"] for line in out.splitlines()}
    assert str(folder / "new\nline.png") in uris
    assert any("%FF%FE" in uri for uri in uris)
    assert "<img src=x" not in page.read_text()

    # nothing changed: nothing published
    status, second, err = index(folder, folder / names[0])
    assert (status, second["new"], second["snapshot"]) == (0, False, first["snapshot"])
    assert "nothing changed" in err
    assert len(list((store / "snapshots").iterdir())) == 1

    # too many rejects: the old snapshot stands
    for number in range(9):
        (folder / f"broken {number}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes([number]))
    status, _, err = index(folder)
    assert status == 3
    assert err.splitlines()[-1].startswith("lookalike: not published: 11 of 17 images")
    assert (store / "CURRENT").read_text().strip() == first["snapshot"]

    # a floor that a coarse index does not meet; then a lower one, and nothing is embedded again
    for number in range(9):
        (folder / f"broken {number}.jpg").unlink()
    for seed in range(100, 400):
        picture(seed).save(folder / f"{seed}.png")
    coarse = "index: {kind: ivf_pq, nlist: 64, code_bytes: 1, target_recall: 0.01}\n"
    status, _, err = index(folder, settings=coarse + "publish: {min_recall: 1.0}\n")
    assert status == 3, err
    assert "publish.min_recall 1.0" in err.splitlines()[-1]
    assert (store / "CURRENT").read_text().strip() == first["snapshot"]
    before = tree(store / "embeddings")
    status, third, err = index(folder, settings=coarse + "publish: {min_recall: 0.0}\n")
    assert status == 0, err
    assert "embed:" not in err
    assert tree(store / "embeddings").items() <= before.items()  # less what was joined to others
    assert third["parent"] == first["snapshot"]
    assert (store / "CURRENT").read_text().strip() == third["snapshot"]

    # the first one still answers, by name
    one = ["query", "--store", str(store), "--images", str(folder / names[0]), "--json"]
    assert main([*one, "--snapshot", first["snapshot"]]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 5
    assert main(["status", "--store", str(store), "--json"]) == 0
    described = json.loads(capfd.readouterr().out)
    assert described["snapshots"] == [first["snapshot"], third["snapshot"]]
    assert data == (folder / names[0]).read_bytes()


def test_metadata_of_a_manifest_comes_back_with_its_types(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed in range(3):
        picture(seed).save(tmp_path / f"{seed}.png")
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "uri,year,price,title,sold\n"
        "0.png,1999,1.5,A tree,true\n1.png,2001,2,,false\n2.png,,3.25,Ünïcode,true\n"
    )
    store, config = str(tmp_path / "store"), tmp_path / "config.yaml"
    config.write_text(LOW + "runner: {workers: 1}\n")
    flags = ["--config", str(config), "--images", str(manifest), "--store", store]
    assert main(["index", *flags]) == 0
    asked = ["query", "--store", store, "--images", str(tmp_path / "0.png")]
    for name in ("out.parquet", "out.jsonl"):
        assert main([*asked, "--output", str(tmp_path / name)]) == 0
    table = pq.read_table(tmp_path / "out.parquet")
    types = {name: str(table.schema.field(name).type) for name in table.schema.names[6:]}
    assert types == {"year": "int64", "price": "double", "title": "string", "sold": "bool"}
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == table.to_pylist()
    by_name = {Path(row["uri"]).name: row for row in rows}
    assert [by_name[f"{i}.png"]["year"] for i in range(3)] == [1999, 2001, None]
    assert by_name["2.png"]["title"] == "Ünïcode"
    capfd.readouterr()


def test_a_store_that_another_run_holds_is_refused_in_one_line(
    indexed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    store, pictures = indexed
    with hold(store):
        capfd.readouterr()
        assert main(["index", "--store", str(store), "--images", str(pictures)]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"lookalike: {store}: process {os.getpid()} on ")


def test_nothing_else_talks_on_stderr(indexed: tuple[Path, Path]) -> None:
    store, pictures = indexed
    query = ["query", "--store", str(store), "--images", str(pictures / "first" / "0.png")]
    done = subprocess.run(
        [sys.executable, "-m", "lookalike.pipelines.cli", *query],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "1 query answered\n"
    assert len(done.stdout.splitlines()) == 11
