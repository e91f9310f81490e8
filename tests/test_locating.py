from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.sources.contents import Contents
from lookalike.sources.kinds import open_source
from lookalike.sources.locating import Locator, split_uri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b.jpg", ("", "/a/b.jpg")),
        ("/a#1/b#2.jpg", ("", "/a#1/b#2.jpg")),
        ("/a/s.tar#b/c.jpg", ("/a/s.tar", "b/c.jpg")),
        ("/a#1/s.TGZ#b#c.jpg", ("/a#1/s.TGZ", "b#c.jpg")),
        ("s3://b/s.tar.gz?region=x#c.jpg", ("s3://b/s.tar.gz?region=x", "c.jpg")),
        ("/t.parquet#12", ("/t.parquet", "12")),
    ],
)
def test_split_uri(uri: str, expected: tuple[str, str]) -> None:
    assert split_uri(uri) == expected


def test_every_listed_file_is_found_by_its_uri(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for name in ("a.jpg", "b#1.jpg", "a.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(name[:1].encode()))
    pq.write_table(
        pa.table({"image": [b"x", b"y", b"z"]}), tmp_path / "t.parquet", row_group_size=2
    )
    (tmp_path / "s.tar#c.jpg").write_bytes(b"a file of its own")
    specs = ("s.tar", "t.parquet", "s.tar#c.jpg")
    files = [file for spec in specs for file in open_source(str(tmp_path / spec)).files()]
    assert len(files) == 7
    locator = Locator()
    with Contents() as contents:
        for file in [*files, *reversed(files)]:
            found = locator.find(file.uri)
            assert contents.read(found) == contents.read(file)


@pytest.mark.parametrize("name", ["s.tar#b.jpg", "t.parquet#x", "gone.tar#a", "gone.jpg"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "s.tar", "w"):
        pass
    (tmp_path / "t.parquet").touch()
    found = Locator().find(str(tmp_path / name))
    assert found.uri == str(tmp_path / name)
    assert found.problem
