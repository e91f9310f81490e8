"""Records of files that lie in a store, by hashing them once more."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lookalike.store.files import FileRecord


def file_record(store: Path, relative: str) -> FileRecord:
    """The record of a file that is there already."""
    data = (store / relative).read_bytes()
    return FileRecord(relative, hashlib.sha256(data).hexdigest(), len(data))
