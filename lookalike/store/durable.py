"""Writing files of a store in a folder, each whole or absent under its name, whatever happens.

A file is written under a temporary name in the same folder, hashed on the way, synchronised with
the disk and renamed, and its folder is synchronised as well. Small files that must be there once
for all are put only where there is none (`put_if_absent`). No link inside a store may lead a write
out of it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from lookalike.errors import StoreWriteError, one_line
from lookalike.store.files import FileRecord, Name, json_bytes, path_of

if os.name == "posix":
    import fcntl

_TRIES = 5  # to remove a folder that another writes to


class _HashingFile:
    """A binary file that hashes what passes through; enough of the protocol for pyarrow."""

    def __init__(self, file: BinaryIO, final: Path) -> None:
        self._file, self._final = file, final
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        self.closed = False

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        with _writing(self._final):
            self._file.write(view)
        self.sha256.update(view)
        self.bytes += len(view)
        return len(view)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


class PendingFile:
    """What `write_file` yields: a writable file, and after the block its record."""

    def __init__(self, file: _HashingFile) -> None:
        self.file: Any = file
        self.record: FileRecord | None = None
        self.dropped = False

    def drop(self) -> None:
        """Leave no file: what was written is not needed."""
        self.dropped = True

    def write(self, data: Any) -> int:
        """Append bytes."""
        return int(self.file.write(data))

    @property
    def finished(self) -> FileRecord:
        """The record of the renamed file.

        Raises:
            RuntimeError: It is asked for before the file has its name, or after it was dropped.
        """
        if self.record is None:
            raise RuntimeError("a file has no record before the end of the block that writes it")
        return self.record


_REMEDIES = {
    errno.ENOSPC: "make room, and run the same command again",
    errno.EDQUOT: "make room, and run the same command again",
    errno.EFBIG: "raise the limit on the size of files, and run the same command again",
    errno.EACCES: "let this user write there, and run the same command again",
    errno.EPERM: "let this user write there, and run the same command again",
    errno.EROFS: "mount it for writing, and run the same command again",
    errno.EIO: "see what the system's log says about the disk, and run the same command again",
}


@contextmanager
def _writing(final: Path) -> Iterator[None]:
    """Say which file could not be written, and what to do."""
    try:
        yield
    except StoreWriteError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        why = (error.strerror or one_line(error)).lower()
        raise StoreWriteError(
            f"{final}: cannot be written: {why}{'; ' if remedy else ''}{remedy or ''}"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable: a file is lost with the folder it is in."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_path(folder.parent)


def leads_out(store: Path, path: Path) -> str:
    """Where a path below a store leads, if links lead it out of the store, else ""."""
    parts = path.relative_to(store).parts
    if not any((store / Path(*parts[: i + 1])).is_symlink() for i in range(len(parts))):
        return ""
    inside, found = os.path.realpath(store), os.path.realpath(path)
    return "" if found == inside or found.startswith(os.path.join(inside, "")) else found


def check_inside(store: Path, path: Path) -> None:
    """Refuse to write where a link leads out of the store.

    Raises:
        StoreWriteError: It does.
    """
    if found := leads_out(store, path):
        raise StoreWriteError(
            f"{path}: a link leads out of the store, to {found}; remove the link, or move the "
            "whole store there"
        )


@contextmanager
def write_file(store: Path, name: Name) -> Iterator[PendingFile]:
    """Write one file of the store: temporary name, hash, fsync, rename, fsync of the folder.

    A crash at any instant leaves the final name absent, or as it was. An existing file is replaced
    whole; under a `HashedName` that is one of the same content.

    Raises:
        StoreWriteError: It cannot be written; the message names it, and says what to do.
    """
    final = store / str(name)
    with _writing(final):
        make_folder(final.parent)
        check_inside(store, final.parent)
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
        raw = open(temporary, "wb")  # noqa: SIM115
    try:
        hashed = _HashingFile(raw, final)
        pending = PendingFile(hashed)
        yield pending
        if pending.dropped:
            return
        digest = hashed.sha256.hexdigest()
        relative = path_of(name, digest)
        with _writing(final):
            raw.flush()
            os.fsync(raw.fileno())
            raw.close()
            os.replace(temporary, store / relative)
            fsync_path(final.parent)
    finally:
        with suppress(OSError):  # why it failed is being told already
            raw.close()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    pending.record = FileRecord(relative, digest, hashed.bytes)


def put_if_absent(store: Path, relative: str, data: bytes) -> bytes:
    """Write a small file where there is none, whole or not at all; returns what is there by now.

    If several processes try, at the same time or one after the other, exactly one of them writes
    the file, and all of them get its content.

    Raises:
        StoreWriteError: It cannot be written; the message names it, and says what to do.
    """
    final = store / relative
    with _writing(final):
        make_folder(final.parent)
        check_inside(store, final.parent)
        first = not final.exists()
        if first:
            temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.tmp")
            try:
                with open(temporary, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                first = _name_if_absent(temporary, final)
            finally:
                temporary.unlink(missing_ok=True)
        fsync_path(final.parent)  # of whoever was first: it must not be lost after it was read
    return data if first else final.read_bytes()


_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def _name_if_absent(temporary: Path, final: Path) -> bool:
    """Give a file a name that no other has; says whether it has got it."""
    try:
        os.link(temporary, final)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with locked(final.parent):  # all who write here have to come this way
            if final.exists():
                return False
            os.replace(temporary, final)
            return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep all others out who ask so too; the system lets go when the process ends."""
    if os.name == "nt":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_bytes(store: Path, name: Name, data: bytes) -> FileRecord:
    """Write a small file of the store at once (see `write_file`)."""
    with write_file(store, name) as pending:
        pending.write(data)
    return pending.finished


def write_json(store: Path, relative: str, value: Any) -> FileRecord:
    """Write canonical, readable JSON (see `write_file`, and `to_json` for what it is made of)."""
    return write_bytes(store, relative, json_bytes(value))


def read_json(path: Path) -> Any:
    """Read a JSON file of the store."""
    return json.loads(path.read_bytes())


def fsync_path(path: Path) -> None:
    """Make a file, or renames in a folder, durable, where the system can (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a scratch folder; already gone is fine.

    An attempt that nobody waits for any more may write there meanwhile: what it leaves after a few
    tries stays, and is no more than a file that nobody names.
    """
    for _ in range(_TRIES):
        if not path.exists():
            return
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
