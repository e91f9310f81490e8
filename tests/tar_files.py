"""Tars made and listed, for the tests of tar shards."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from lookalike.records import SourceFile
from lookalike.sources.kinds import open_source

Files = list[tuple[str, bytes]]


def pack(files: Files, fmt: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of those members, in that order; data of `->` and a name make a hard link, `~>` a
    symbolic one.
    """
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=fmt) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            if data[:2] in (b"->", b"~>"):
                info.type = tarfile.LNKTYPE if data[:1] == b"-" else tarfile.SYMTYPE
                info.linkname = data[2:].decode("utf-8", "surrogateescape")
                tar.addfile(info)
                continue
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return output.getvalue()


def write_tar(folder: Path, content: bytes | Files, name: str = "s.tar") -> Path:
    """Write a tar, gzipped where its name says so."""
    data = content if isinstance(content, bytes) else pack(content)
    (folder / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    return folder / name


def listed(spec: Path | str, notices: list[str] | None = None) -> list[SourceFile]:
    """What a source lists; nothing may be said but into `notices`."""
    notice = pytest.fail if notices is None else notices.append
    return list(open_source(str(spec)).files(notice))


def names(files: list[SourceFile]) -> list[str]:
    """Their names within the tar."""
    return [file.uri.partition("#")[2] for file in files]
