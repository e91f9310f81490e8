"""What files are that were taken for others: made by those who make them."""

from __future__ import annotations

import gzip
import pickle
import re
import tarfile
import zipfile
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookalike.errors import RequestError
from lookalike.sources.file_kinds import HEAD_BYTES, file_kind
from lookalike.sources.manifests import Manifest
from lookalike.sources.query_vectors import read_queries
from lookalike.sources.vector_tables import list_tables
from lookalike.vector_faults import Rules

ARRAY = np.eye(3, dtype=np.float32)
TABLE = pa.table({"uri": ["a", "b", "c"], "embedding": ARRAY.tolist()})


def _torch(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("queries/data.pkl", b"")


def _npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, ARRAY)


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, ARRAY)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", b"")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("x"))


MADE = {
    "an empty file": lambda path: path.write_bytes(b""),
    "a NumPy array (.npy)": _npy,
    "a NumPy archive (.npz)": _npz,
    "a Parquet table": lambda path: pq.write_table(TABLE, path),
    "an Arrow file (Feather)": lambda path: pyarrow.feather.write_feather(TABLE, path),
    "an ORC table": lambda path: pyarrow.orc.write_table(TABLE, path),
    "a PyTorch file": _torch,
    "a zip archive": _zip,
    "a tar archive": _tar,
    "a gzip archive": lambda path: path.write_bytes(gzip.compress(b"x")),
    "a Python pickle": lambda path: path.write_bytes(pickle.dumps(ARRAY)),
    "a Faiss index": lambda path: faiss.write_index(faiss.IndexFlatL2(3), str(path)),
    "a picture (PNG)": lambda path: Image.new("RGB", (2, 2)).save(path, "png"),
    "JSON text": lambda path: path.write_text('[[1.0, "ü"]]'),
    "text": lambda path: path.write_text("1.0,2.0\nü\n"),
    "a safetensors file": lambda path: path.write_bytes(b"\x20" + bytes(7) + b'{"a":{}}'),
    "a file of no known kind (it begins with 00 01 02 ff)": lambda path: path.write_bytes(
        b"\0\1\2\xff"
    ),
}


@pytest.mark.parametrize("kind", MADE)
def test_kinds(kind: str, tmp_path: Path) -> None:
    MADE[kind](tmp_path / "file")
    assert file_kind((tmp_path / "file").read_bytes()[:HEAD_BYTES]) == kind


def test_a_table_of_numbers_is_no_faiss_index() -> None:
    assert file_kind(b"Item,price\n1,2\n") == "text"


@pytest.mark.parametrize("kind", [one for one in MADE if one != "a NumPy array (.npy)"])
def test_an_array_that_is_none_is_named_with_a_remedy(kind: str, tmp_path: Path) -> None:
    MADE[kind](path := tmp_path / "bad.npy")
    with pytest.raises(RequestError) as caught:
        list(read_queries(str(path), Rules(3, "cosine")))
    said = str(caught.value)
    assert said.startswith(f"{path}: no .npy file: it is {kind}; ")
    assert "pickle" not in said.replace("a Python pickle", "")
    remedy = {
        "a Parquet table": "name it .parquet",
        "a picture (PNG)": "by --images",
        "a NumPy archive (.npz)": "archive[NAME]",
    }.get(kind, "numpy.save(")
    assert remedy in said


@pytest.mark.parametrize("kind", [one for one in MADE if one != "a Parquet table"])
def test_a_table_that_is_none_is_named_with_a_remedy(kind: str, tmp_path: Path) -> None:
    MADE[kind](path := tmp_path / "bad.parquet")
    said = re.escape(f"bad.parquet: not readable as Parquet: it is {kind}; name a Parquet table ")
    with pytest.raises(RequestError, match=said + "with the columns uri and embedding"):
        list_tables([str(path)], pytest.fail)
    with pytest.raises(RequestError, match=said + "with a column embedding"):
        list(read_queries(str(path), Rules(3, "cosine")))
    with pytest.raises(RequestError, match=said + "with a column uri"):
        Manifest(str(path)).metadata_schema()


def test_a_table_cut_short_is_no_other_kind(tmp_path: Path) -> None:
    pq.write_table(TABLE, path := tmp_path / "t.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RequestError, match=r"not readable as Parquet: .*; write it anew, or leave"):
        list_tables([str(path)], pytest.fail)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}, None]), "holds Python objects, not numbers; write it anew"),
        (np.ones(3, np.float32), r"it is \(3,\) float32; one vector is array\[None\]"),
        (np.ones((2, 3), int), r"it is \(2, 3\) int64; give it as array.astype\('float32'\)"),
        (np.ones((2, 4)), r"it is \(2, 4\) float64; the vectors of the store have 3 components"),
        (np.ones((2, 3, 1)), "each row is a query"),
        (np.array([["a"] * 3]), "each row is a query"),
    ],
)
def test_arrays_of_another_shape_or_type(array: object, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", array)
    with pytest.raises(RequestError, match=message):
        list(read_queries(str(tmp_path / "q.npy"), Rules(3, "cosine")))


@pytest.mark.parametrize("cut", [7, 60, 127, 130, -1])
def test_arrays_cut_short(cut: int, tmp_path: Path) -> None:
    np.save(path := tmp_path / "q.npy", ARRAY)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RequestError, match=r"damaged or cut short: .*; write it anew"):
        list(read_queries(str(path), Rules(3, "cosine")))


def test_names_say_what_is_wanted(tmp_path: Path) -> None:
    for name, kind, remedy in (
        ("q.npz", "a NumPy archive (.npz)", "archive[NAME]"),
        ("q.txt", "a NumPy array (.npy)", "name it .npy"),
        ("q", "a Parquet table", "name it .parquet"),
        ("q.csv", "text", "numpy.save("),
    ):
        MADE[kind](path := tmp_path / name)
        with pytest.raises(RequestError) as caught:
            list(read_queries(str(path), Rules(3, "cosine")))
        assert f"it is {kind}, and --vectors needs a .npy or a .parquet file" in str(caught.value)
        assert remedy in str(caught.value)
    with pytest.raises(RequestError, match=r"absent\.npy: no such file"):
        list(read_queries(str(tmp_path / "absent.npy"), Rules(3, "cosine")))
    with pytest.raises(RequestError, match="is a folder; name a file in it"):
        list(read_queries(str(tmp_path), Rules(3, "cosine")))


def test_a_folder_is_no_manifest(tmp_path: Path) -> None:
    for name in (".", "t.parquet"):
        (tmp_path / name).mkdir(exist_ok=True)
        with pytest.raises(RequestError, match=r"is a folder; name a CSV or Parquet file"):
            Manifest(str(tmp_path / name)).metadata_schema()
