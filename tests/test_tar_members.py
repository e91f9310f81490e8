from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.tar_files import listed, names, pack, write_tar

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return partial(write_tar, tmp_path)


def test_a_sparse_member_and_an_unknown_one_are_problems(write: Write) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, pax in (
            ("s.jpg", tarfile.GNUTYPE_SPARSE, {}),
            ("u.jpg", b"Q", {}),
            ("p.jpg", tarfile.REGTYPE, {"GNU.sparse.major": "1"}),
            ("a.jpg", tarfile.REGTYPE, {}),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size, info.pax_headers = kind, 3, pax
            tar.addfile(info, io.BytesIO(b"abc"))
    found = {file.uri.partition("#")[2]: file.problem for file in listed(write(output.getvalue()))}
    assert found == {
        "s.jpg": "a sparse tar member; pack the file without --sparse",
        "u.jpg": "a tar member of unknown type b'Q'",
        "p.jpg": "a sparse tar member; pack the file without --sparse",
        "a.jpg": "",
    }


def test_global_headers_change_nothing(write: Write) -> None:
    output = io.BytesIO()
    options = {"comment": "x", "path": "other", "size": "7"}
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT, pax_headers=options):
        pass
    packed = output.getvalue().rstrip(b"\0")
    packed += bytes(-len(packed) % 512)
    files = listed(write(packed + pack([("a/b.jpg", b"1"), ("c.jpg", b"2" * 5000)])))
    assert names(files) == ["a/b.jpg", "c.jpg"]


def test_concatenated_tars_are_listed_whole(write: Write) -> None:
    files = listed(write(pack([("a.jpg", b"1")]) + pack([("b.jpg", b"2")])))
    assert names(files) == ["a.jpg", "b.jpg"]


def test_devices_are_problems_and_folders_are_not_listed(write: Write) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.jpg")
            info.type, info.size = kind, 0
            tar.addfile(info)
        tar.addfile(tarfile.TarInfo("a.jpg"))
    found = {file.uri.partition("#")[2]: file.problem for file in listed(write(output.getvalue()))}
    assert found == {
        **dict.fromkeys(["3.jpg", "4.jpg", "6.jpg"], "not a regular file"),
        "a.jpg": "",
    }
