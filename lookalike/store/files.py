"""What files of a store are called, and what is known of them.

What several attempts of one piece of work may write at once is named by the hash of its content
(`HashedName`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.json_text import to_json
from lookalike.store.manifest import FileJson, FileLine

_HASH_DIGITS = 16  # of a sha256, in names


@dataclass(frozen=True)
class HashedName:
    """The name of a file but for the hash of its content, which shows when it is written.

    Files of one such name have the same content, whoever wrote them.

    Attributes:
        stem: Path relative to the store, up to the hash.
        suffix: What comes after the hash.
    """

    stem: str
    suffix: str

    def of(self, sha256: str) -> str:
        """The path of the file with this hash (hex)."""
        return f"{self.stem}-{sha256[:_HASH_DIGITS]}{self.suffix}"

    def __str__(self) -> str:
        return f"{self.stem}{self.suffix}"


Name = str | HashedName
"""Of a file that is to be written: its path, or all of it but the hash of the content."""


def path_of(name: Name, sha256: str) -> str:
    """The path of a file with this hash (hex) that is written under a name."""
    return name.of(sha256) if isinstance(name, HashedName) else name


@dataclass(frozen=True)
class FileRecord:
    """A finished file of the store: path relative to it (posix), sha256 in hex, size."""

    path: str
    sha256: str
    bytes: int

    def to_json(self) -> FileJson:
        """As records name it."""
        return {"path": self.path, "sha256": self.sha256, "bytes": self.bytes}

    def line(self, kind: str) -> FileLine:
        """As the manifest lists a file of this kind."""
        return {"path": self.path, "sha256": self.sha256, "bytes": self.bytes, "kind": kind}


def record_of(path: str, chunks: Iterable[bytes]) -> FileRecord:
    """The record of a file with these contents, of which one chunk at a time is held."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return FileRecord(path, digest.hexdigest(), size)


@dataclass(frozen=True)
class Version:
    """How a store names one version of a file, for conditional puts."""

    e_tag: str | None
    version: str | None = None


@dataclass(frozen=True)
class Found:
    """A small file as it was read, and when it was written, by the store's clock."""

    data: bytes
    version: Version
    modified: datetime


@dataclass(frozen=True)
class Entry:
    """One file: path, size, and when it was written, by the store's clock."""

    path: str
    bytes: int
    modified: datetime


def json_bytes(value: Any) -> bytes:
    """A value as the store's JSON files hold it."""
    return to_json(value, indent=1, ascii_only=False, sort_keys=True).encode() + b"\n"


def npz_bytes(**arrays: npt.NDArray[Any]) -> bytes:
    """Arrays as an uncompressed .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type, unused-ignore]
    return buffer.getvalue()


def npz_arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Undo `npz_bytes`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return dict(found)
