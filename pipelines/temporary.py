"""A folder of the command's own for temporary files, of itself, its workers and all libraries.

What a library leaves there (TensorFlow's autograph: a file per function that it compiles) goes with
the folder, however the command and its workers end. That there is room is known before work begins.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike.errors import RequestError, one_line
from lookalike.sizes import size_text

_LEAST = 16 << 20  # bytes that should be free
_TRIED = 1 << 20  # bytes that are written to see whether that is true
_WRONG = {
    errno.ENOENT: "there is no such folder",
    errno.ENOTDIR: "it is not a folder",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.EROFS: "it is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links lead in a circle",
}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REMEDY = "name another by TMPDIR"
_made: list[Path] = []


class TemporaryFolderError(OSError):
    """There is no room for temporary files, or the disk fails: that may pass."""


@contextmanager
def private(required: bool) -> Iterator[None]:
    """Let temporary files of this process and its children lie in a folder that goes at the end.

    Args:
        required: Whether the command cannot do without; else it goes on where there is no place.

    Raises:
        RequestError: The place for temporary files is no folder, or cannot be written.
        TemporaryFolderError: It is full, or fails.
    """
    try:
        folder = _make()
    except (RequestError, TemporaryFolderError):
        if required:
            raise
        yield
        return
    usual, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with variable("TMPDIR", str(folder)):
            yield
    finally:
        tempfile.tempdir = usual
        remove()


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment, for this process and its children, while a block runs."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def remove() -> None:
    """Remove the folder at once, for a process that ends without further ado."""
    while _made:
        shutil.rmtree(_made.pop(), ignore_errors=True)


def _make() -> Path:
    place = os.environ.get("TMPDIR") or ""
    try:
        # Python would go on to /tmp, and then to the current folder, without a word.
        place = os.path.abspath(place or tempfile.gettempdir())
        folder = Path(tempfile.mkdtemp(prefix="lookalike-", dir=place))
        _made.append(folder)
        _check_room(folder, place)
    except OSError as error:
        remove()
        if isinstance(error, TemporaryFolderError):
            raise
        raise _refusal(place, error) from error
    return folder


def _check_room(folder: Path, place: str) -> None:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if found.f_blocks and free < _LEAST:  # some file systems do not know
        raise _full(place, f"{size_text(free)} free of {size_text(_LEAST)} that may be needed")
    (folder / "room").write_bytes(bytes(_TRIED))
    (folder / "room").unlink()


def _refusal(place: str, error: OSError) -> Exception:
    if error.errno in _FULL:
        return _full(place, "no room left")
    if why := _WRONG.get(error.errno or 0):
        named = f"the temporary folder {place}" if place else "no temporary folder"
        return RequestError(f"{named}: {why}; make one that can be written, or {_REMEDY}")
    return TemporaryFolderError(
        f"the temporary folder {place}: {one_line(error)}; see to the disk, or {_REMEDY}"
    )


def _full(place: str, how: str) -> TemporaryFolderError:
    return TemporaryFolderError(
        f"the temporary folder {place} is full ({how}); make room, or {_REMEDY}"
    )
