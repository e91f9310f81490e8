"""A store that somebody else may write to, and files with names made to deceive."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import picture
from vector_stores import clustered, make_store

import lookalike
from lookalike.errors import RequestError, StoreWriteError
from lookalike.pipelines.cli import main
from lookalike.pipelines.progress import Progress
from lookalike.store import durable, snapshot
from lookalike.store.locks import hold
from lookalike.store.objects import open_store

UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
NAME = "\x1b[31mred\x1b[0m\u202egpj.exe\n2026 published <b>&.jpg"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    make_store(tmp_path / "store", clustered(60, 8))
    return tmp_path / "store"


def moved_out(store: Path, what: str, *, file: bool) -> Path:
    """Put a file or folder of the store elsewhere, and a link in its place; where it is now."""
    inside = store / what
    inside = inside if file else inside.parent
    outside = store.parent / "outside" / inside.name
    outside.parent.mkdir()
    shutil.move(inside, outside)
    inside.symlink_to(outside)
    return outside


# --- links that lead out of a store -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["embedding", "index", "template", "duplicates"])
@pytest.mark.parametrize("file", [True, False])
def test_files_that_a_link_leads_to_are_not_read(store: Path, kind: str, file: bool) -> None:
    path = snapshot.files_of(snapshot.read_manifest(open_store(store)), kind)[0]["path"]
    if kind == "duplicates" and not file:
        pytest.skip("it lies beside the manifest")
    moved_out(store, path, file=file)
    with pytest.raises(RequestError, match=rf"{path}: link: expected a file of the store.*outside"):
        lookalike.open(store)
    assert (path, "link") in [(one.path, one.problem) for one in snapshot.verify(open_store(store))]


def test_a_manifest_that_a_link_leads_to_is_not_read(store: Path) -> None:
    moved_out(store, snapshot.manifest_path("one"), file=True)
    with pytest.raises(RequestError, match="damaged: a link leads out of the store"):
        snapshot.read_manifest(open_store(store))


def test_a_store_may_be_reached_by_a_link_and_hold_links_to_itself(store: Path) -> None:
    (store.parent / "link").symlink_to(store)
    path = store / snapshot.files_of(snapshot.read_manifest(open_store(store)), "index")[0]["path"]
    path.rename(path.with_name("real"))
    path.symlink_to("real")
    assert len(lookalike.open(store.parent / "link").search_vectors(clustered(1, 8), 3)[0]) == 1
    durable.write_bytes(store.parent / "link", "index/new", b"x")


@pytest.mark.parametrize("deep", ["embeddings", "embeddings/deep"])
def test_nothing_is_written_where_a_link_leads_out(store: Path, deep: str) -> None:
    outside = store.parent / "outside"
    outside.mkdir()
    shutil.rmtree(store / "embeddings")
    (store / "embeddings").symlink_to(outside)
    with pytest.raises(StoreWriteError, match=r"a link leads out of the store, to .*outside"):
        durable.write_bytes(store, f"{deep}/x", b"x")
    assert [path for path in outside.rglob("*") if path.is_file()] == []


def test_the_lock_is_no_way_to_empty_a_file_elsewhere(store: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (store / "runs").mkdir(exist_ok=True)
    (store / "runs" / "lock").unlink(missing_ok=True)
    (store / "runs" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreWriteError, match="leads out of the store"), hold(store):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_pointer_that_is_a_link_is_replaced_itself(store: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("one\n")
    (store / "CURRENT").unlink()
    (store / "CURRENT").symlink_to(tmp_path / "precious")
    durable.write_bytes(store, "CURRENT", b"two\n")
    assert (tmp_path / "precious").read_text() == "one\n"
    assert not (store / "CURRENT").is_symlink()


# --- names ------------------------------------------------------------------------------------


def test_a_line_of_progress_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().say(f"not entered: {NAME}")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert not UNSEEN.search(said)
    assert "\\u001b[31mred" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "--images", f"/absent/{NAME}", "--store", "store"],
        ["query", "--images", "x.jpg", "--store", f"absent {NAME}"],
        ["status", "--store", f"absent {NAME}"],
        ["status", f"--{NAME}"],
    ],
)
def test_errors_are_one_line_whatever_they_quote(
    arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1, said
    assert not UNSEEN.search(said), said


def test_pictures_with_such_names_are_indexed_and_shown_as_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, store = tmp_path / "pictures", tmp_path / "store"
    folder.mkdir()
    for number in range(3):
        picture(number).save(folder / f"{number}.jpg")
    picture(5).save(folder / NAME.replace("/", ""), format="JPEG")
    (folder / f"broken {NAME}").write_bytes(b"\xff\xd8\xff\xe0 not much")
    (folder / f"folder {NAME}").symlink_to(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\n"
        "engine: tensorflow\nrunner: {workers: 1}\n"
    )
    arguments = ["--images", str(folder), "--store", str(store)]
    assert main(["index", "--config", str(tmp_path / "config.yaml"), *arguments]) == 0
    assert main(["query", *arguments]) == 0
    assert main(["verify", "--store", str(store)]) == 0
    said = capfd.readouterr()
    assert "not entered" in said.err
    assert "red" in said.out
    for text in said:
        assert not UNSEEN.search(text)
        assert not re.search("^2026 published <b>", text, re.MULTILINE)
    report = next(store.glob("snapshots/*/report.html")).read_text()
    assert "<b>&.jpg" not in report
    assert "\x1b" not in report
    ledger = pq.read_table(next(store.glob("snapshots/*/ledger/*.parquet")))
    assert f"{folder}/{NAME}" in ledger["uri"].to_pylist()  # as it is: a name, not a text


def test_what_a_manifest_says_is_printed_as_text(
    store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = store / snapshot.manifest_path("one")
    manifest = json.loads(path.read_bytes())
    manifest["files"][0]["path"] = f"embeddings/{NAME}"
    path.write_text(json.dumps(manifest))
    assert main(["verify", "--store", str(store)]) == 1
    assert main(["query", "--store", str(store), "--vectors", "x.npy"]) == 2
    said = capfd.readouterr()
    assert "missing" in said.out
    assert not UNSEEN.search(said.out + said.err)


# --- hashes come first --------------------------------------------------------------------------


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that readers of Parquet are given, and "faiss" where that is given anything."""
    from lookalike.ivf import trained_index

    seen: list[str] = []

    def watch(owner: Any, name: str) -> None:
        usual = getattr(owner, name)

        def noted(source: object, *arguments: object, **options: object) -> object:
            seen.append("faiss" if owner is trained_index.faiss else str(source))
            return usual(source, *arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    watch(trained_index.faiss, "deserialize_index")
    for name in ("ParquetFile", "read_table", "read_metadata"):
        watch(pq, name)
    return seen


def change(path: Path) -> None:
    """Another byte in the middle; size and times stay."""
    info, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.mark.parametrize("kind", ["embedding", "index", "template", "duplicates"])
def test_with_check_no_reader_meets_a_file_that_was_changed(
    store: Path, kind: str, read: list[str]
) -> None:
    path = store / snapshot.files_of(snapshot.read_manifest(open_store(store)), kind)[0]["path"]
    change(path)
    with pytest.raises(RequestError, match="sha256: expected"):
        lookalike.open(store, check=True)
    assert not {"faiss", str(path)} & {*read}


def test_the_limits_of_deserialization_are_set() -> None:
    from lookalike.ivf.trained_index import faiss

    assert faiss.get_deserialization_loop_limit() == 1 << 24
    assert faiss.get_deserialization_vector_byte_limit() == 16 << 30
