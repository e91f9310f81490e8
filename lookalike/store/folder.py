"""A store in a folder that every process can see.

See `durable` for how a file is written there. Links inside a store are files of their own, and lead
no write out of it: they are neither followed nor resolved, and what they point to is none of the
store's.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO

from lookalike.errors import RequestError
from lookalike.store.durable import (
    PendingFile,
    fsync_path,
    leads_out,
    locked,
    put_if_absent,
    remove_tree,
    write_file,
)
from lookalike.store.files import Entry, FileRecord, Found, Name, Version
from lookalike.store.locks import hold
from lookalike.store.objects import ConflictError, Store
from lookalike.store.ranges import check


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
    """Whether a file's name is one that `durable.write_file` gives to what is not finished."""
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


_CHUNK = 8 << 20


class FolderStore(Store):
    """The files below one folder."""

    def __init__(self, root: Path) -> None:
        """Nothing is looked at yet."""
        self.root = Path(os.path.abspath(root))
        self.name = self.uri = str(self.root)

    def read(self, path: str) -> Found | None:
        """See `Store.read`."""
        try:
            with open(self.root / path, "rb") as file:
                data, stat = file.read(), os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        return Found(data, _version(data), _time(stat))

    def stat(self, path: str) -> Entry | None:
        """See `Store.stat`."""
        try:
            found = (self.root / path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return Entry(path, found.st_size, _time(found))

    def chunks(self, path: str) -> Iterator[bytes]:
        """See `Store.chunks`."""
        with open(self.root / path, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """See `Store.read_ranges`; the system reads ahead, so each is read by itself."""
        check(ranges)
        found = []
        with open(self.root / path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            for start, count in ranges:
                if start + count > size:
                    raise OSError(
                        f"{self.shown(path)}: {count} bytes from {start} on were asked for, and it "
                        f"has {size}; run: lookalike verify"
                    )
                found.append(os.pread(file.fileno(), count, start))
        return found

    def local(self, file: str | FileRecord) -> Path:
        """See `Store.local`: the file itself."""
        return self.root / (file if isinstance(file, str) else file.path)

    def once(self, file: str | FileRecord) -> Path:
        """See `Store.once`: the file itself."""
        return self.local(file)

    def local_tree(self, folders: Iterable[str]) -> Path:
        """See `Store.local_tree`: the store's own folder."""
        return self.root

    def scratch(self, folder: str) -> Path:
        """See `Store.scratch`."""
        return self.root / folder

    def open(self, path: str) -> BinaryIO:
        """See `Store.open`."""
        return open(self.root / path, "rb")

    def parquet(self, path: str) -> Path:
        """See `Store.parquet`."""
        return self.root / path

    def mapped(self, path: str) -> mmap.mmap:
        """See `Store.mapped`."""
        with open(self.root / path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        for path in walk(self.root, folder):
            if not is_temporary(path.rpartition("/")[2]):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found = (self.root / path).lstat()
                    yield Entry(path, found.st_size, _time(found))

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """See `Store.files`; nothing but names is looked at, so it may be asked often."""
        found = walk(self.root, folder)
        return sorted(
            path
            for path in found
            if path.endswith(suffix) and not is_temporary(path.rpartition("/")[2])
        )

    def leftovers(self) -> Iterator[Entry]:
        """See `Store.leftovers`."""
        for path in walk(self.root):
            if is_temporary(path.rpartition("/")[2]):
                found = (self.root / path).lstat()
                yield Entry(path, found.st_size, _time(found))

    def tidy(self, keep: Collection[str] = ()) -> None:
        """See `Store.tidy`."""
        for parent in self.folders(""):
            for entry in entries(self.root / parent):
                path = f"{parent}/{entry.name}"
                if entry.is_dir(follow_symlinks=False) and path not in keep:
                    remove_if_empty(self.root / path)

    def is_there(self) -> bool:
        """See `Store.is_there`."""
        if self.root.exists() and not self.root.is_dir():
            raise RequestError(f"{self}: a store is a folder, and this is a file")
        return self.root.is_dir()

    def outside(self, path: str) -> str:
        """See `Store.outside`."""
        return leads_out(self.root, self.root / path)

    def folders(self, folder: str) -> list[str]:
        """See `Store.folders`."""
        return [entry.name for entry in entries(self.root / folder) if entry.is_dir()]

    # --- writing --------------------------------------------------------------------------------

    def write(self, name: Name) -> AbstractContextManager[PendingFile]:
        """See `Store.write`."""
        return write_file(self.root, name)

    def put_if_absent(self, path: str, data: bytes) -> bytes:
        """See `Store.put_if_absent`."""
        return put_if_absent(self.root, path, data)

    def replace_if(self, path: str, data: bytes, old: Version | None) -> Version:
        """See `Store.replace_if`; the folder is locked for the moment that it takes."""
        if old is None:
            if put_if_absent(self.root, path, data) != data:
                raise ConflictError(f"{self.shown(path)}: another wrote it")
            return _version(data)
        if not (self.root / path).parent.is_dir():
            raise ConflictError(f"{self.shown(path)}: another removed it")
        with locked((self.root / path).parent):
            there = self.read(path)
            if there is None or there.version not in (old, _version(data)):
                raise ConflictError(f"{self.shown(path)}: another wrote it")
            self.put(path, data)
        return _version(data)

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """See `Store.hold`; the system lets go when the process ends, however it ends."""
        with hold(self.root):
            yield False

    def delete(self, paths: Iterable[str]) -> None:
        """See `Store.delete`; what is gone is gone for good."""
        changed = set()
        for path in paths:
            with suppress(FileNotFoundError, NotADirectoryError):
                (self.root / path).unlink()
                changed.add((self.root / path).parent)
        for folder in changed:
            with suppress(FileNotFoundError):
                fsync_path(folder)

    def settle(self, paths: Iterable[str]) -> None:
        """See `Store.settle`: their folders are fsynced."""
        for folder in {(self.root / path).parent for path in paths}:
            fsync_path(folder)

    def delete_below(self, folder: str) -> None:
        """See `Store.delete_below`."""
        remove_tree(self.root / folder)


def _time(found: os.stat_result) -> datetime:
    return datetime.fromtimestamp(found.st_mtime, timezone.utc)


def _version(data: bytes) -> Version:
    return Version(hashlib.sha256(data).hexdigest())
