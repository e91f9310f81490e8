"""Where commands that learn write what they found: whole or not at all, and over nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import RequestError, one_line
from lookalike.learning.held_out import Gain
from lookalike.store.storage import is_remote


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
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which has the model's name afterwards, whole or not at all.

    Raises:
        RequestError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise RequestError(f"--output {path}: cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refusal(path: Path, what: str, gain: Gain) -> str:
    """Why nothing was written."""
    return (
        f"not written: {path}: {what} gain {gain.after - gain.before:+.3f} on what was held out, "
        f"and the interval's lower end {gain.low:+.3f} is not above 0; --force writes it all the "
        "same, more pictures or labels make it more certain"
    )
