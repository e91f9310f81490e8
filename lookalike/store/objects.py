"""One interface to a store, whether it is a folder (`folder`) or on object storage (`bucket`).

A file of a store is complete or absent for everyone who looks, and never changes once anything
names it. What must happen only once, such as recording a task's result, is a conditional put: on
the condition that there is no such file, or that it still is the version that was read.
"""

from __future__ import annotations

import json
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from lookalike.errors import UnreachableError
from lookalike.parallel import run_all
from lookalike.store.durable import PendingFile
from lookalike.store.files import Entry, FileRecord, Found, Name, Version, json_bytes, record_of
from lookalike.store.storage import is_remote, store_place

Item = TypeVar("Item")
Result = TypeVar("Result")
Ranges = Sequence[tuple[int, int]]


class ObjectStoreError(UnreachableError):
    """Object storage cannot be reached, or does not do what it was asked."""


class ConflictError(Exception):
    """What is there is not what the condition of a put said: another wrote it."""


class Store(ABC):
    """The files of one store; paths are relative to it, posix.

    It travels to workers by its name, and opens what it needs there, once for each process. `str`
    gives the name as it may be shown.

    Attributes:
        name: What opens it again on another machine: an absolute path, or a URI with its options.
        uri: The same without options and credentials, as it may be shown.
    """

    name: str
    uri: str

    def __str__(self) -> str:
        return self.uri

    def __repr__(self) -> str:
        return f"open_store({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.name,)

    def shown(self, path: str) -> str:
        """A file's name, as it may be shown."""
        return f"{self.uri}/{path}"

    # --- reading --------------------------------------------------------------------------------

    @abstractmethod
    def read(self, path: str) -> Found | None:
        """A small file, in one piece; None where there is none.

        Raises:
            OSError: It cannot be read.
        """

    def read_all(self, paths: Iterable[str]) -> list[Found | None]:
        """Small files, in the order asked for (see `read`)."""
        return [self.read(path) for path in paths]

    @abstractmethod
    def stat(self, path: str) -> Entry | None:
        """Size and time of a file; None where there is none."""

    def stat_all(self, paths: Iterable[str]) -> list[Entry | None]:
        """The same of many files, in the order asked for."""
        return [self.stat(path) for path in paths]

    def size(self, path: str) -> int:
        """Bytes of an immutable file that must be there.

        Raises:
            FileNotFoundError: It is not.
        """
        found = self.stat(path)
        if found is None:
            raise FileNotFoundError(f"{self.shown(path)}: no such file")
        return found.bytes

    def at_once(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`work` of each item, in order: as many at a time as are worth it where the store lies.

        Reading a folder keeps the cores busy; object storage is waited for.
        """
        return run_all(work, items)

    @abstractmethod
    def chunks(self, path: str) -> Iterator[bytes]:
        """A whole file in parts, of bounded size.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """

    @abstractmethod
    def read_ranges(self, path: str, ranges: Ranges) -> list[bytes]:
        """Parts of an immutable file, in the order asked for: near ones are read together.

        Args:
            path: Of the file.
            ranges: First byte and number of bytes of each part, in any order; they may overlap.

        Raises:
            FileNotFoundError: There is no such file.
            OSError: It cannot be read, or ends before.
        """

    def read_many(self, wanted: Sequence[tuple[str, Ranges]]) -> list[list[bytes]]:
        """Parts of several files, in the order asked for: path and ranges of each (`read_ranges`).

        Whatever the number of files, as many requests are on their way as for one.
        """
        return [self.read_ranges(path, ranges) for path, ranges in wanted]

    @abstractmethod
    def local(self, file: str | FileRecord) -> Path:
        """An immutable file to map, or to hand to a library; to be opened soon.

        A folder's is the file itself. One on object storage is fetched into a cache that the
        processes of this machine share, and compared with its sha256 on the way.

        Args:
            file: Its path; or its record, so that nobody need be asked for its sha256.

        Raises:
            OSError: It cannot be fetched, is not what its sha256 says, or there is no room.
        """

    @abstractmethod
    def local_tree(self, folders: Iterable[str]) -> Path:
        """The folder below which some folders of immutable files lie as they do in the store.

        For who hands them to a library, by their names; see `local`.
        """

    def local_folder(self, folder: str) -> Path:
        """A folder of immutable files, as a folder (see `local_tree`)."""
        return self.local_tree([folder]) / folder

    @abstractmethod
    def scratch(self, folder: str) -> Path:
        """Where one process may keep files in between: it makes the folder, and removes it.

        A folder's store has room for them, and whoever sweeps it finds what a killed one left.
        """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """An immutable file to be read in pieces.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """

    @abstractmethod
    def parquet(self, path: str) -> Path | BinaryIO:
        """What Arrow reads parts of an immutable file from: the file itself, or ranges of it."""

    @abstractmethod
    def once(self, file: str | FileRecord) -> Path | BinaryIO:
        """A whole immutable file that is read now and not again: nothing of it is kept.

        A folder's is the file itself. One on object storage is compared with its sha256, as by
        `local`, but is gone from this machine when it is closed, or its process ends.

        Raises:
            OSError: See `local`.
        """

    def mapped(self, path: str) -> mmap.mmap | None:
        """An immutable file, mapped; None where its parts had better be asked for."""
        return None

    def know(self, records: Iterable[FileRecord]) -> None:
        """Told what files are, so that `local` need not ask: a manifest knows them all."""
        return

    @abstractmethod
    def entries(self, folder: str = "") -> Iterator[Entry]:
        """Every finished file below a folder, or all, in no order."""

    @abstractmethod
    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""

    def files(self, folder: str, suffix: str = "") -> list[str]:
        """Paths of the finished files in and below a folder with such an ending, sorted."""
        return sorted(one.path for one in self.entries(folder) if one.path.endswith(suffix))

    def leftovers(self) -> Iterator[Entry]:
        """What killed writers left half written; only while nobody else writes.

        Their paths are for `delete`, and for nothing else.
        """
        return iter(())

    def tidy(self, keep: Collection[str] = ()) -> None:
        """Remove folders in the store's own that hold nothing, but for those to keep."""
        return

    def is_there(self) -> bool:
        """Whether there is such a store, where that can be told: a folder is there or not.

        Raises:
            RequestError: What is there is no store.
        """
        return True

    def outside(self, path: str) -> str:
        """Where links lead a path, if out of the store; else "", as where there are no links."""
        return ""

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.stat(path) is not None

    def record(self, path: str) -> FileRecord:
        """The record of a file that is there already: all of it is read, and hashed.

        Raises:
            FileNotFoundError: There is none.
            OSError: It cannot be read.
        """
        return record_of(path, self.chunks(path))

    def read_bytes(self, path: str) -> bytes:
        """A small file that must be there.

        Raises:
            FileNotFoundError: It is not.
            OSError: It cannot be read.
        """
        found = self.read(path)
        if found is None:
            raise FileNotFoundError(f"{self.shown(path)}: no such file")
        return found.data

    def read_json(self, path: str) -> Any:
        """A small file of JSON that must be there; see `read_bytes`."""
        return json.loads(self.read_bytes(path))

    # --- writing --------------------------------------------------------------------------------

    @abstractmethod
    def write(self, name: Name) -> AbstractContextManager[PendingFile]:
        """Write a file while the block runs, hashed: absent, or as it was, until it is whole.

        Args:
            name: Its path; or all of it but the hash of the content, which then names it.

        Raises:
            StoreWriteError, ObjectStoreError: It cannot be written; the message says what to do.
        """

    @abstractmethod
    def put_if_absent(self, path: str, data: bytes) -> bytes:
        """Write a small file where there is none, once for ever; returns what is there by now.

        That is its own data, or what another was first with.

        Raises:
            StoreWriteError, ObjectStoreError: It cannot be written, or not be told whether it was.
        """

    @abstractmethod
    def replace_if(self, path: str, data: bytes, old: Version | None) -> Version:
        """Write a small file in place of the version that was read; None: where there is none.

        Raises:
            ConflictError: There is another version by now, with other contents, or none.
            StoreWriteError, ObjectStoreError: It cannot be written, or not be told whether it was.
        """

    @abstractmethod
    def hold(self) -> AbstractContextManager[bool]:
        """Hold the store against other runs while the block runs.

        Yields:
            Whether whoever held it before never gave it back: of that one a request may still be
            on its way.

        Raises:
            StoreBusyError: Another run holds it; the message says which, and since when.
            RequestError, ObjectStoreError: It cannot be written, or not be reached.
        """

    def confirm(self) -> None:
        """Make sure that the store is still held, where it is: a silent run may be succeeded.

        Raises:
            StoreBusyError: Another run has taken it over.
            ObjectStoreError: It cannot be reached.
        """
        return

    @abstractmethod
    def delete(self, paths: Iterable[str]) -> None:
        """Remove files; already gone is fine."""

    def put(self, name: Name, data: bytes) -> FileRecord:
        """Write a small file at once, whatever is there (see `write`)."""
        with self.write(name) as pending:
            pending.write(data)
        return pending.finished

    def write_json(self, path: str, value: Any) -> FileRecord:
        """Write canonical, readable JSON (see `write`, and `to_json` for what it is made of)."""
        return self.put(path, json_bytes(value))

    def settle(self, paths: Iterable[str]) -> None:
        """Make files that were read durable, in case their writer was killed before it did that."""
        return

    def delete_below(self, folder: str) -> None:
        """Remove all finished files below a folder, and what a folder is where there are such."""
        self.delete([entry.path for entry in self.entries(folder)])


def open_store(store: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None) -> Store:
    """The store that a folder's path, or a URI on object storage, names; nothing is looked at yet.

    Args:
        store: A folder, or `s3://bucket/prefix`, `gs://…`, `az://…`. Options of S3 stand after `?`,
            as pyarrow takes them: region, endpoint_override, scheme.
        cache: Where what `local` fetches lies (default: ~/.cache/lookalike).

    Raises:
        RequestError: It is no name of either, or what it needs is not installed.
    """
    place = store_place(store)
    if is_remote(place):
        from lookalike.store.bucket import BucketStore

        return BucketStore(place, cache)
    from lookalike.store.folder import FolderStore

    return FolderStore(Path(place))
