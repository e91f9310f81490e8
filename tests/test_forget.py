"""Forgetting images of a real store: what must go is in no file, and all else is as it was."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.errors import RequestError
from lookalike.ivf.trained_index import TrainedIndex
from lookalike.pipelines import erase
from lookalike.pipelines.cli import main
from lookalike.store import forgetting, retention, snapshot
from lookalike.store.locks import LOCK
from lookalike.store.objects import open_store
from lookalike.store.runs import Run
from tests.conftest import picture
from tests.s3_server import store_uri
from tests.vector_stores import trained

CONFIG = """
features: [{name: low, handle: 'builtin:color-texture'}]
index: {kind: ivf_pq, nlist: 4, code_bytes: 16, target_recall: 0.6}
publish: {min_recall: 0.0}
runner: {workers: 1}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two nights over a folder of pictures with metadata: (root with config, list, store)."""
    root = tmp_path_factory.mktemp("forget")
    (root / "pictures").mkdir()
    (root / "config.yaml").write_text(CONFIG)
    for number in range(90):
        picture(number).save(root / "pictures" / f"picture-{number:03d}.png")
    first = (root / "pictures" / "picture-003.png").read_bytes()
    (root / "pictures" / "a copy of three.png").write_bytes(first)
    (root / "pictures" / "picture-003.png.orig.png").write_bytes(
        (root / "pictures" / "picture-050.png").read_bytes()
    )
    (root / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    index(root)
    for number in range(90, 100):
        picture(number).save(root / "pictures" / f"picture-{number:03d}.png")
    (root / "pictures" / "picture-020.png").unlink()
    index(root)
    return root


def index(root):
    names = sorted(path.name for path in (root / "pictures").iterdir())
    rows = "".join(f"pictures/{name},{sum(name.encode()) % 7}\n" for name in names)
    (root / "list.csv").write_text("uri,owner\n" + rows)
    flags = ["--config", root / "config.yaml", "--images", root / "list.csv"]
    assert main(["index", *map(str, flags), "--store", str(root / "store")]) == 0


@pytest.fixture
def root(made, tmp_path):
    """A copy of the store, its sources where they were."""
    shutil.copytree(made / "store", tmp_path / "store")
    return tmp_path


def forget(root, *flags, status=0):
    return main(["forget", "--store", str(root / "store"), *map(str, flags)]) == status


def names_of(made, *numbers):
    return [str(made / "pictures" / f"picture-{number:03d}.png") for number in numbers]


def rows_of(store):
    """uri -> (content, vector) of the living rows of the published snapshot."""
    manifest = snapshot.read_manifest(open_store(store))
    deleted = set()
    for line in snapshot.files_of(manifest, "tombstones"):
        deleted.update(np.load(store / line["path"]).tolist())
    found = {}
    for line in snapshot.files_of(manifest, "embedding"):
        for row in pq.read_table(store / line["path"]).to_pylist():
            if row["id"] not in deleted:
                vector = np.array(row["embedding"], np.float32).tobytes()
                found[row["uri"]] = (row["content_sha256"], vector)
    return found


def ledger_of(store):
    lines = snapshot.files_of(snapshot.read_manifest(open_store(store)), "ledger")
    return [row for line in lines for row in pq.read_table(store / line["path"]).to_pylist()]


def everything(store):
    """The bytes of every file, and with them what is compressed in it, by path."""
    for path in sorted(store.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        parts = [str(path).encode(), data]
        if path.suffix == ".parquet":
            plain = io.BytesIO()
            table = pq.read_table(path)
            pq.write_table(table, plain, compression="none", use_dictionary=False)
            parts += [plain.getvalue(), repr(table.to_pydict()).encode()]
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                parts += [archive.read(name) for name in archive.namelist()]
        yield path.relative_to(store), b"\n".join(parts)


@pytest.mark.slow
def test_of_ten_images_nothing_is_left_and_the_others_are_as_they_were(made, root, capfd):
    store = root / "store"
    before = rows_of(store)
    names = names_of(made, 3, 7, 20, 31, 32, 33, 60, 91, 95, 99)  # 20 was deleted since
    (root / "list.txt").write_text("\n".join(names) + "\n")
    held = forgetting.find(open_store(store), names)
    copy, longer = (
        str(made / "pictures" / name)
        for name in ("a copy of three.png", "picture-003.png.orig.png")
    )
    assert held.names == sorted([*names, copy])
    assert len(held.contents) == len(held.vectors) == 10

    capfd.readouterr()
    assert forget(root, "--list", root / "list.txt", "--json")
    result = json.loads(capfd.readouterr().out)
    assert result["proof"]["finds"] == []
    assert (result["images"], result["proof"]["names"], result["proof"]["vectors"]) == (10, 11, 10)

    patterns = [*(one.encode() for one in (copy, *names)), *held.contents]
    patterns += [content.hex().encode() for content in held.contents]
    for vector in held.vectors:
        unit = vector / np.linalg.norm(vector)
        patterns += [vector.tobytes(), vector.astype("f2").tobytes(), unit.astype("f4").tobytes()]
    pictures = [*names_of(made, 3, 7, 31, 99)]
    patterns += [Path(name).read_bytes()[40:72] for name in pictures]
    for path, data in everything(store):
        data = data.replace(longer.encode(), b"")
        assert [pattern for pattern in patterns if pattern in data] == [], path

    expected = {uri: row for uri, row in before.items() if uri not in {*names, copy}}
    assert rows_of(store) == expected
    assert longer in {
        uri for one in neighbours(store, made, 50) for uri in (one.uri, *one.duplicates)
    }
    assert main(["verify", "--store", str(store)]) == 0
    manifest = snapshot.read_manifest(open_store(store))
    assert snapshot.names(open_store(store)) == [manifest["name"]]
    assert manifest["certificate"]["reached"]
    assert manifest["counts"]["vectors"] == len(expected)
    changes = manifest["changes"]
    assert changes["previous"] == changes["unchanged"] + changes["removed"]
    assert changes["removed"] == 10  # of eleven names one was not listed any more
    listed = {row["uri"] for row in ledger_of(store)}
    assert listed == {str(path) for path in (made / "pictures").iterdir()} - {*names, copy}
    searcher = lookalike.open(store, check=True)
    found, _ = searcher.search_vectors(np.stack(held.vectors), len(expected), nprobe=4)
    assert sorted(found[0].tolist()) == sorted(set(found[0].tolist()))
    assert (found >= 0).all()


def neighbours(store, made, number):
    return lookalike.open(store).search(names_of(made, number)[0], k=3)[0]


@pytest.mark.slow
def test_on_object_storage_nothing_is_left_either(made, s3, tmp_path, capfd):
    pytest.importorskip("obstore")
    local, bucket = open_store(made / "store"), open_store(store_uri(s3, "forget"))
    for path in local.files(""):
        if path != LOCK:  # who holds a folder does not hold the bucket
            bucket.put(path, local.read_bytes(path))
    names = names_of(made, 3, 7, 91)
    held = forgetting.find(local, names)
    flags = ["--store", bucket.name, "--cache", str(tmp_path / "cache")]
    capfd.readouterr()
    assert main(["forget", *flags, "--uri", *names, "--json"]) == 0
    proof = json.loads(capfd.readouterr().out)["proof"]
    there = list(bucket.entries())
    assert (proof["finds"], proof["names"], proof["vectors"]) == ([], 4, 3)
    assert proof["files"] >= len(there)  # and the run's own note
    for path in (one.path for one in there):
        copy = tmp_path / "copy" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(bucket.read_bytes(path))
    patterns = [*held.contents, *map(str.encode, held.names)]
    patterns += [vector.tobytes() for vector in held.vectors]
    longer = str(made / "pictures" / "picture-003.png.orig.png").encode()
    for folder in ("copy", "cache"):  # this machine keeps nothing of them, either
        for path, data in everything(tmp_path / folder):
            data = data.replace(longer, b"")
            assert [pattern for pattern in patterns if pattern in data] == [], path
    expected = {uri: row for uri, row in rows_of(made / "store").items() if uri not in held.names}
    assert rows_of(tmp_path / "copy") == expected
    assert main(["verify", *flags]) == 0


@pytest.mark.slow
def test_what_is_still_in_the_sources_does_not_come_back(made, root, capfd):
    store = root / "store"
    gone = names_of(made, 3, 7)
    assert forget(root, "--uri", *gone)
    flags = ["--config", made / "config.yaml", "--images", made / "list.csv", "--store", store]
    capfd.readouterr()
    for again in (True, False):
        assert main(["index", *map(str, flags), "--json"]) == 0
        result = json.loads(capfd.readouterr().out)
        assert result["counts"]["embedded"] == 0
        listed = {row["uri"] for row in ledger_of(store)}
        assert not {*gone, str(made / "pictures" / "a copy of three.png")} & listed
        assert again or not result["new"], "a forgotten file is not news every night"
    held = forgetting.find(open_store(store), gone)
    assert not held
    assert main(["verify", "--store", str(store)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["compact", "publish", "published", "remove", "search", "prove"])
def test_a_run_that_was_stopped_is_continued_by_the_same_command(stop, made, root, monkeypatch):
    store, names = root / "store", names_of(made, 3, 91)
    held = forgetting.find(open_store(store), names)

    def fail(*_, **__):
        raise OSError("stopped")

    with monkeypatch.context() as patched:
        if stop == "compact":
            patched.setattr(erase, "write_ledger_files", fail)
        elif stop == "publish":
            patched.setattr(snapshot, "point", fail)
        elif stop == "published":
            patched.setattr(retention, "sweep", fail)
        elif stop == "remove":
            patched.setattr("lookalike.store.sweeping._unneeded", fail)  # only manifests are gone
        elif stop == "search":
            patched.setattr("lookalike.pipelines.prove.search_files", fail)
        else:
            patched.setattr("lookalike.pipelines.prove.total", fail)
        assert forget(root, "--uri", *names, status=1)
    assert lookalike.open(store).count > 0
    if stop == "prove":  # nothing is held any more, and that is said
        assert forget(root, "--uri", *names, status=2)
    else:
        assert forget(root, "--uri", *names)
    for path, data in everything(store):
        kept = data.replace(str(made / "pictures" / "picture-003.png.orig.png").encode(), b"")
        assert not [one for one in [*held.contents, *map(str.encode, held.names)] if one in kept], (
            path
        )
    assert len(snapshot.names(open_store(store))) == 1
    assert {path.name for path in (store / "runs").iterdir()} == {"lock"}
    assert main(["verify", "--store", str(store)]) == 0


@pytest.mark.slow
def test_a_condition_says_which(made, root, capfd):
    store = root / "store"
    before = rows_of(store)
    capfd.readouterr()
    assert forget(root, "--where", "owner = 3 and not uri like '%-05%'", "--json", "--dry-run")
    found = json.loads(capfd.readouterr().out)
    assert rows_of(store) == before
    chosen = {uri for uri in before if sum(Path(uri).name.encode()) % 7 == 3 and "-05" not in uri}
    assert chosen <= set(found["names"])
    assert found["images"] == len(chosen) > 3


@pytest.mark.slow
def test_a_row_without_a_vector_leaves_the_index_alone(made, root, capfd):
    store, name = root / "store", str(made / "pictures" / "broken.jpg")
    before = snapshot.read_manifest(open_store(store))
    assert forget(root, "--uri", name)
    after = snapshot.read_manifest(open_store(store))
    for kind in ("index", "embedding", "template", "truth"):
        assert snapshot.files_of(after, kind) == snapshot.files_of(before, kind)
    assert after["counts"]["rejected"] == before["counts"]["rejected"] - 1
    assert main(["verify", "--store", str(store)]) == 0


@pytest.mark.slow
def test_what_is_found_afterwards_is_said_with_status_1(made, root, capfd):
    [name] = names_of(made, 8)
    (root / "store" / "notes.txt").write_text(f"mind {name}!")
    assert forget(root, "--uri", name, status=1)
    out = capfd.readouterr().out
    assert f"FOUND name {name} in notes.txt" in out
    assert "nothing found" not in out


@pytest.mark.slow
def test_what_an_attempt_leaves_that_nobody_waits_for_is_searched_too(
    made, root, capfd, monkeypatch
):
    [name] = names_of(made, 8)
    finish = Run.finish

    def late(run):
        finish(run)
        (root / "store" / "index" / "late.part").write_text(f"of {name}, written at last")

    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish", late)
        assert forget(root, "--uri", name, status=1)
    assert f"FOUND name {name} in index/late.part" in capfd.readouterr().out


@pytest.mark.slow
def test_requests_that_name_nothing_or_everything_change_nothing(made, root, capfd, monkeypatch):
    before = sorted(
        (path, path.stat().st_mtime_ns)
        for path in (root / "store").rglob("*")
        if path.name not in ("lock", "runs")
    )
    for flags, message in (
        (["--uri", "/nowhere.png", "picture-003.png"], "none of 2 names is in it"),
        (["--where", "width > 0"], "nothing would be left in it; remove its folder"),
        (["--where", "colour = 3"], "there is no column colour"),
        (["--list", str(root / "no list")], "cannot be read"),
    ):
        assert forget(root, *flags, status=2), flags
        assert message in capfd.readouterr().err
    after = sorted(
        (path, path.stat().st_mtime_ns)
        for path in (root / "store").rglob("*")
        if path.name not in ("lock", "runs")
    )
    assert after == before
    monkeypatch.chdir(made / "pictures")  # a relative name is one in the working folder
    assert forget(root, "--uri", "picture-003.png", "--dry-run")


def test_lists_of_names(tmp_path):
    odd = ["/a b.png", "/é,1.png", "s3://b/c.png"]
    (tmp_path / "list").write_text("\r\n".join(odd) + "\r\n\r\n", encoding="utf-8")
    (tmp_path / "list.csv").write_text('label,uri\n1,/a b.png\n2,"/é,1.png"\n,s3://b/c.png\n')
    pq.write_table(pa.table({"uri": odd, "x": [1, 2, 3]}), tmp_path / "list.parquet")
    for name in ("list", "list.csv", "list.parquet"):
        assert forgetting.read_list(tmp_path / name) == odd
    (tmp_path / "bytes").write_bytes(b"/caf\xe9.png\n/b.png\n")
    assert forgetting.read_list(tmp_path / "bytes") == ["file:///caf%E9.png", "/b.png"]
    (tmp_path / "array").write_bytes(b"\x93NUMPY\x01\0v\0")
    (tmp_path / "none.csv").write_text("name\n/a\n")
    (tmp_path / "stray.csv").write_text('uri,why\n/a,x\n/b,"12 inch\n/c,x\n')
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "none.parquet").write_bytes(b"PAR1")
    for name, message in (
        ("none.csv", "no column uri"),
        ("empty.txt", "names nothing"),
        ("stray.csv", "lines 3 to 4: a quote is opened and never closed"),
        ("none.parquet", "cannot be read"),
        ("absent", "cannot be read"),
        ("array", "is no text; it needs one uri in a line"),
        (".", "cannot be read: .*directory"),
    ):
        with pytest.raises(RequestError, match=message):
            forgetting.read_list(tmp_path / name)


def test_a_trained_index_that_learnt_a_vector_by_heart_is_noticed():
    data, spec, vectors = trained(400, 24, "l2", nlist=8, code_bytes=12)
    trained_index = TrainedIndex(data, spec)
    matrix = trained_index.rotation
    assert matrix is not None
    alone = (np.linalg.pinv(matrix) @ trained_index.centroids[3]).astype(
        "f4"
    )  # as if in its own list
    assert not erase._knows(trained_index, list(vectors[:5] + 1))
    assert erase._knows(trained_index, [vectors[0], alone])
    assert not erase._knows(trained_index, [np.ones(7, np.float32)])  # of another model
