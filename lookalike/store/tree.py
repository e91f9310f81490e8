"""Files below a store as they lie there, for what removes or searches all of them.

Links are neither followed nor resolved: a link is a file of its own, and what it points to is none
of the store's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; of a link, or of what is not there, nothing."""
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return []
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def walk(store: Path, folder: str = "") -> Iterator[str]:
    """Paths, relative to the store, of all that is no folder below one of its folders."""
    for entry in entries(store / folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from walk(store, path)
        else:
            yield path


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `files.write_file` gives to what is not finished."""
    return name.startswith(".") and name.endswith(".tmp")


def remove_if_empty(folder: Path) -> bool:
    """Remove a folder if no file is in or below it; says whether it is gone."""
    left = [
        entry
        for entry in entries(folder)
        if not (entry.is_dir(follow_symlinks=False) and remove_if_empty(folder / entry.name))
    ]
    if not left:
        folder.rmdir()
    return not left
