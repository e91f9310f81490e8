"""Compiled models, kept on this machine: to load one takes a quarter of the time of compiling it.

    compiled/<key>.blob    sha256 of the rest (32 bytes), whether it calculates in whole numbers
                           (1 byte), and what the engine gave

The key stands for everything that decides what compiling gives: the model's bytes, how it is
compiled, the engine's version and the processor. A file that is not what it should be counts as
none. Those used longest ago make room for others.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lookalike.cache_folder import cache_folder

LARGEST = 128 << 20
"""Bytes of a model that is kept: hashing and writing a larger one takes longer than it saves."""
_MOST = 512 << 20  # bytes of all files
_TELLING = ("ONEDNN_", "DNNL_", "OV_")  # begin names of variables that engines heed


class Compiled(NamedTuple):
    """A compiled model: whether it calculates in whole numbers, and what the engine gave."""

    in_integers: bool
    blob: bytes


def key_of(**parts: Any) -> str:
    """The key of a model compiled here: 64 hex digits.

    Args:
        parts: What else decides what compiling gives, as JSON has it.
    """
    text = json.dumps([_processor(), parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_there(key: str) -> bool:
    """Whether something is kept under a key."""
    return _path(key).is_file()


def read(key: str) -> Compiled | None:
    """The compiled model under a key; None where there is none, or its file is damaged."""
    path = _path(key)
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) <= 33 or hashlib.sha256(data[32:]).digest() != data[:32]:
        return None
    with suppress(OSError):  # of another user: then it only looks older than it is
        os.utime(path)
    return Compiled(bool(data[32]), data[33:])


def write(key: str, found: Compiled) -> None:
    """Keep a compiled model, where that is possible; what was used longest ago goes."""
    path = _path(key)
    data = bytes([found.in_integers]) + found.blob
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, len(data))
        temporary.write_bytes(hashlib.sha256(data).digest() + data)
        os.replace(temporary, path)
    except OSError:  # a read-only home, a full disk: it is compiled again every time
        with suppress(OSError):
            temporary.unlink()


def _path(key: str) -> Path:
    return cache_folder() / "compiled" / f"{key}.blob"


def _make_room(folder: Path, needed: int) -> None:
    """Remove files, with those that a killed process left, until so many bytes more may be here."""
    files = []
    for entry in os.scandir(folder):
        with suppress(OSError):  # another process has removed it
            found = entry.stat(follow_symlinks=False)
            files.append((found.st_mtime, found.st_size, entry.path))
    total = needed + sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= _MOST:
            break
        with suppress(OSError):
            os.unlink(path)
        total -= size


@cache
def _processor() -> Mapping[str, Any]:
    """What of this machine, and of what engines are told of it, decides which instructions run."""
    told = {name: text for name, text in os.environ.items() if name.startswith(_TELLING)}
    flags = ""
    with suppress(OSError), open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return {"machine": platform.machine(), "flags": flags, **told}
