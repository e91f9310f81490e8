"""Where commands write a folder or file of their own: whole or not at all, and over nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import RequestError, StoreWriteError, one_line
from lookalike.learning.held_out import Gain
from lookalike.store.storage import is_remote

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def free_place(flag: str, name: str) -> Path:
    """Somewhere to write, where nothing is; said before any work is done.

    Raises:
        RequestError: Something is there, or nothing can be written there.
    """
    path = Path(os.path.abspath(name))
    if is_remote(name):
        raise RequestError(f"{flag} {name}: is remote; name a local place")
    there = path.is_dir() and not any(path.iterdir()) if flag == "--output" else False
    if os.path.lexists(path) and not there:
        raise RequestError(f"{flag} {name}: is there already; name another, or remove it")
    if not path.parent.is_dir():
        raise RequestError(f"{flag} {name}: no such folder: {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{flag} {name}: no permission to write in {path.parent}")
    return path


@contextmanager
def new_folder(argument: str, path: Path) -> Iterator[Path]:
    """A folder to fill, which has its name afterwards, whole or not at all.

    Args:
        argument: What the command calls it, as in its help.
        path: Its name; nothing is there.

    Raises:
        StoreWriteError: It cannot be written. What cannot be read meanwhile is told as it is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if not _of_writing(error, temporary):
            raise
        first = error.__cause__ or error
        why = (getattr(first, "strerror", None) or one_line(first)).lower()
        raise StoreWriteError(
            f"{argument} {path}: cannot be written: {why}; make room or name another place, "
            "and run the same command again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _of_writing(error: OSError, folder: Path) -> bool:
    """Whether an error is one of writing below a folder, and not of reading something else."""
    if str(folder) in f"{error.filename or ''} {error}":
        return True
    return error.errno in _NO_ROOM


def refusal(path: Path, what: str, gain: Gain) -> str:
    """Why nothing was written."""
    return (
        f"not written: {path}: {what} gain {gain.after - gain.before:+.3f} on what was held out, "
        f"and the interval's lower end {gain.low:+.3f} is not above 0; --force writes it all the "
        "same, more pictures or labels make it more certain"
    )
