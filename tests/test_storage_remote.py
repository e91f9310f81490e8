from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs
import pytest

from lookalike.sources import kinds as sources
from lookalike.store import storage


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("gs://bucket/a%20b/%C3%A9.jpg", "bucket/a b/é.jpg"),
        ("gs://bucket/a b/é [1].jpg", "bucket/a b/é [1].jpg"),
        ("gs://bucket/100%.jpg", "bucket/100%.jpg"),
        ("gs://bucket/x%23%3F.jpg?retry_limit_seconds=3", "bucket/x#?.jpg"),
        ("s3://bucket/a b.jpg?region=us-east-1", "bucket/a b.jpg"),
        ("gs://bucket", "bucket"),
    ],
)
def test_paths_in_remote_uris(uri: str, path: str) -> None:
    assert storage.filesystem(uri)[1] == path


def test_google_storage_that_cannot_be_reached_is_given_up_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "_GOOGLE_PATIENCE_S", 1)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"policy exhausted"):
        # Port 9 of this machine: nothing answers there.
        storage.read_bytes("gs://anonymous@bucket/x?scheme=http&endpoint_override=127.0.0.1:9")
    assert time.monotonic() - began < 20


def test_names_of_remote_files_come_back_as_uris_that_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of this machine stands in for a bucket, behind the calls that any bucket gets."""
    names = ["100%.jpg", "a b.jpg", "a#b?c.jpg", "plain.jpg", "é [1].jpg"]
    (tmp_path / "bucket" / "my pictures" / "été").mkdir(parents=True)
    for name in names:
        (tmp_path / "bucket" / "my pictures" / "été" / name).write_bytes(name.encode())
    local = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    real = storage.filesystem

    def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
        assert urlsplit(uri).netloc == "bucket"
        return local, real(uri)[1]

    monkeypatch.setattr(storage, "filesystem", filesystem)
    for spec in ("gs://bucket/my pictures", "gs://bucket/my%20pictures/", "gs://bucket/my p*/**/*"):
        found = list(sources.open_source(spec).files(print))
        assert sorted(storage.read_bytes(file.uri).decode() for file in found) == names, spec
        assert [file.uri for file in found if "plain" in file.uri] == [
            "gs://bucket/my%20pictures/%C3%A9t%C3%A9/plain.jpg"
        ]
