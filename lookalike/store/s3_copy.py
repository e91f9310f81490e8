"""An object, or all objects under a prefix, copied from S3 to a local folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from lookalike.errors import RequestError
from lookalike.store.s3 import info, list_objects
from lookalike.store.s3_file import S3File
from lookalike.store.s3_uri import parse

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
