"""Objects on S3, read as files by ranges, each of one version from first to last; or copied."""

from __future__ import annotations

import shutil
from pathlib import Path

from lookalike.errors import RequestError
from lookalike.store.ranges import RangedFile
from lookalike.store.s3 import Part, info, list_objects, read_part
from lookalike.store.s3_uri import parse

_FIRST = 64 << 10  # bytes of the first request, which tells the size


class S3File(RangedFile):
    """Each read is one request, so readers of small pieces need a buffer before it.

    The first request brings the beginning, or the end, where Parquet has its footer. All later ones
    ask for the same version: an object that changes meanwhile is an `OSError`, not a mixture.
    """

    def __init__(self, uri: str, from_end: bool = False) -> None:
        """Open it.

        Raises:
            OSError: See `s3.read`; it may not be read.
            RequestError: The URI names nothing.
        """
        self._name = parse(uri)
        self._first = self._ask(-1 if from_end else 0, _FIRST)
        super().__init__(self._first.size, self._part)

    def _part(self, start: int, count: int) -> bytes:
        first = self._first
        at = start - first.start
        if at >= 0 and at + count <= len(first.data):
            return first.data[at : at + count]
        data = self._ask(start, count, first.e_tag).data
        if len(data) != count:
            raise OSError(f"{self._name.shown}: {len(data):,} bytes came of {count:,} asked for")
        return data

    def _ask(self, start: int, count: int, e_tag: str = "") -> Part:
        try:
            return read_part(self._name, start, count, e_tag)
        except RequestError as error:  # to readers of files it is one that cannot be read
            raise PermissionError(str(error)) from error


_CHUNK = 8 << 20


def copy_from_s3(uri: str, destination: Path) -> Path:
    """Copy it below a folder, and return where it is now.

    Raises:
        FileNotFoundError: There is no such thing.
        RequestError: A key is no relative path, so that no file can have its name.
        OSError: It cannot be read or written.
    """
    name = parse(uri)
    kind = info(uri)[0]
    if kind == "absent":
        raise FileNotFoundError(f"{name.shown}: no such object or folder")
    target = destination / (name.key.rstrip("/").rpartition("/")[2] or "download")
    if kind == "file":
        return _copy(uri, target)
    target.mkdir(parents=True)
    for found in list_objects(name.named(name.prefix).uri):
        below = found.key.removeprefix(name.prefix)
        if {"", ".", ".."} & {*below.split("/")} or "\0" in below:
            key = parse(found.uri).shown
            raise RequestError(f"{key}: its key is no path that a file could have")
        _copy(found.uri, target / below)
    return target


def _copy(uri: str, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with S3File(uri) as source, open(target, "wb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
    return target
