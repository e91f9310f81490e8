"""Whether a process sees the same files as the one that launched it, on its machine, as its user.

The launching process leaves a note in every folder that is to be shared, and names files that are
to be read. What both leave bears the names of unfinished files, which a run clears away.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lookalike.errors import RequestError


@dataclass(frozen=True)
class Sight:
    """What is to be seen.

    Attributes:
        folders: Absolute; in each lies a note.
        note: The text of all notes, and part of their name.
        files: Absolute, with their sizes.
    """

    folders: tuple[str, ...]
    note: str
    files: tuple[tuple[str, int], ...]


@contextmanager
def shown(folders: Sequence[str], files: Sequence[tuple[str, int]]) -> Iterator[Sight]:
    """Leave notes while the block runs; a folder that was not there is gone again afterwards."""
    note, made = uuid.uuid4().hex, list[Path]()
    try:
        for folder in map(Path, folders):
            missing = [one for one in (folder, *folder.parents) if not one.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            made += missing
            (folder / _name(note)).write_text(note)
        yield Sight(tuple(folders), note, tuple(files))
    finally:
        for folder in map(Path, folders):
            for path in folder.glob(f".seen-{note}*"):
                path.unlink()
        for folder in made:
            folder.rmdir()


def look(sight: Sight) -> None:
    """See it all, and leave a file beside each note.

    Raises:
        RequestError: Something cannot be seen, or not be written; says where, and what to do.
    """
    for folder in sight.folders:
        try:
            if Path(folder, _name(sight.note)).read_text() != sight.note:
                raise OSError("another folder than the launching machine's")
            Path(folder, _name(sight.note, f"-{socket.gethostname()}-{os.getpid()}")).touch()
        except OSError as error:
            raise _unseen(folder, error, "a store on object storage (s3://…)") from error
    for name, size in sight.files:
        try:
            with open(name, "rb") as file:
                if os.fstat(file.fileno()).st_size != size:
                    raise OSError("another file than the launching machine's")
        except OSError as error:
            raise _unseen(name, error, "sources on object storage") from error


def _name(note: str, who: str = "") -> str:
    return f".seen-{note}{who}.tmp"


def _unseen(path: str, error: OSError, remedy: str) -> RequestError:
    return RequestError(
        f"{path}: a worker on {socket.gethostname()} (user {os.getuid()}) cannot use it: "
        f"{error.strerror or error}; mount it there under the same name, for that user to read and "
        f"write, or use {remedy}, which need no disk in common"
    )
