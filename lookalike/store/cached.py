"""Files of stores on object storage, kept on this machine for all its processes.

A file is named by its sha256, is whole or absent, and is compared with its name once by each
process that reads it. Those used longest ago make room for others; one that a process has just been
given stays for the moment that it takes to open it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError, StoreWriteError
from lookalike.store.durable import locked
from lookalike.store.files import FileRecord, record_of

if os.name == "posix":
    import fcntl

CACHE = "LOOKALIKE_CACHE"
"""The variable that names the folder, where a caller does not: child processes share it."""
LIMIT = "LOOKALIKE_CACHE_BYTES"
"""The variable that says how many bytes to keep, all files together (default: half of the disk)."""
HELD = 8  # files that a process keeps others from removing: those it was given last
_TURNS = 64  # files that can be fetched at once, by all processes
_TOTAL = ".bytes"  # what all files had at most, when one was last added
_FILLED = 0.95  # of the limit, when some had to go: so that not each one has to look for another
_ABANDONED_S = 3600  # age of what is half fetched, and nobody's any more
_SHA256 = re.compile("[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT)

Fetch = Callable[[], Iterable[bytes]]


class DamagedError(OSError):
    """What was fetched, twice, is not what its sha256 says."""


class _Passing(io.BufferedReader):
    """A file that whoever reads it need not close: it is when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def __del__(self) -> None:
        self.close()


class _Held:
    """A file that no other process removes while this is alive."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self._descriptor)  # at the end of a process the module's own names are gone


class FileCache:
    """A folder of files by sha256, bounded; several processes and threads may use it at once."""

    def __init__(self, folder: str | os.PathLike[str] | None = None, limit: int = 0) -> None:
        """Prepare a cache; nothing is made yet.

        Args:
            folder: The folder of caches that it lies in (default: as
                LOOKALIKE_CACHE says, else ~/.cache/lookalike).
            limit: Most bytes of all files, more only where what is in use is more; by default as
                LOOKALIKE_CACHE_BYTES says, else half of the disk.

        Raises:
            RequestError: LOOKALIKE_CACHE_BYTES is no number.
        """
        text = os.environ.get(LIMIT, "")
        if text and not text.isdecimal():
            raise RequestError(f"{LIMIT} must be a number of bytes, got {text!r}")
        parent = Path(os.path.abspath(folder or os.environ.get(CACHE) or cache_folder()))
        self.folder, self._limit = parent / "files", limit or int(text or 0)
        self._turn = threading.Lock()  # of what follows; hashing and fetching go on beside it
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._checked: dict[str, tuple[int, int, int]] = {}  # what each was when it was hashed

    def get(self, record: FileRecord, fetch: Fetch) -> Path:
        """A file, from here or fetched; it is there for as long as it takes to open it.

        Args:
            record: What it is; its name's ending is kept, the rest is not.
            fetch: Gives its bytes, once more where they are not what they should be.

        Raises:
            DamagedError: They are not.
            StoreWriteError: It cannot be written, even where all others have made room.
        """
        path = self.folder / self._name(record)
        if not self._hold(path, record):
            self._make()
            with self._fetching(record.sha256):
                if not self._hold(path, record):  # nor has another fetched it meanwhile
                    self._fetch(path, record, fetch)
        return path

    def pass_on(self, record: FileRecord, fetch: Fetch) -> BinaryIO:
        """A file, open; if it is fetched for that, nobody else sees it and it is not kept.

        See `get` for the arguments, and for what is raised.
        """
        path = self.folder / self._name(record)
        if self._hold(path, record):
            return _Passing(path)
        self._make()
        with self._whole(path, record, fetch) as temporary:
            return _Passing(temporary)

    def drop(self, record: FileRecord) -> None:
        """Keep a file no more, whoever holds it; what is open stays readable."""
        with self._turn:
            self._held.pop(path := self._name(record), None)
        (self.folder / path).unlink(missing_ok=True)

    @staticmethod
    def _name(record: FileRecord) -> str:
        """Of a file here.

        Raises:
            DamagedError: The record has no sha256.
        """
        if not _SHA256.fullmatch(record.sha256):
            raise DamagedError(f"no sha256: {record.sha256!r:.80}")
        return f"{record.sha256}{PurePosixPath(record.path).suffix}"

    # --- what is here ---------------------------------------------------------------------------

    def _hold(self, path: Path, record: FileRecord) -> bool:
        """Whether a file is here and right, and if so, stays. One that is wrong is removed."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        held = _Held(descriptor)
        _lock(descriptor, shared=True)
        found = os.fstat(descriptor)
        if not found.st_nlink:  # another has just removed it
            return False
        state = (found.st_ino, found.st_size, found.st_mtime_ns)
        if self._checked.get(path.name) != state:
            with open(path, "rb") as file:
                there = record_of(record.path, iter(lambda: file.read(1 << 20), b""))
            if (there.sha256, there.bytes) != (record.sha256, record.bytes):
                path.unlink(missing_ok=True)
                return False
        with suppress(OSError):  # of another user: then it only looks older than it is
            os.utime(descriptor, ns=(time.time_ns(), found.st_mtime_ns))
        with self._turn:
            self._checked[path.name] = state
            self._held.pop(path.name, None)
            self._held[path.name] = held
            while len(self._held) > HELD:
                self._held.popitem(last=False)
        return True

    # --- what is not ----------------------------------------------------------------------------

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"{self.folder}: what is fetched cannot be kept there: {error.strerror}; name "
                "another place with --cache"
            ) from error

    @contextmanager
    def _fetching(self, sha256: str) -> Iterator[None]:
        """Keep all others away who want the same file: they wait, and find it here."""
        turn = self.folder / f".{int(sha256[:4], 16) % _TURNS}.turn"
        try:
            descriptor = os.open(turn, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            yield  # it may be fetched twice
            return
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _fetch(self, path: Path, record: FileRecord, fetch: Fetch) -> None:
        with self._whole(path, record, fetch) as temporary:
            descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            _held = _Held(descriptor)  # or another makes room with it before it is held below
            _lock(descriptor, shared=True)
            with locked(self.folder):  # who counts must not miss it between its names
                os.replace(temporary, path)
            if not self._hold(path, record):
                raise DamagedError(f"sha256: {record.sha256} was fetched, the disk holds another")

    @contextmanager
    def _whole(self, path: Path, record: FileRecord, fetch: Fetch) -> Iterator[Path]:
        """What is fetched, compared with its sha256, under another name while the block runs."""
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            for _ in range(2):
                digest = self._download(temporary, record, fetch)
                if digest == record.sha256:
                    break
            else:
                raise DamagedError(f"sha256: expected {record.sha256}, found {digest}")
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _download(self, temporary: Path, record: FileRecord, fetch: Fetch) -> str:
        """Write what is fetched, where there is room or room can be made; its sha256."""
        while True:
            try:
                with open(temporary, "wb") as file:
                    with locked(self.folder):
                        self._make_room(record.bytes)
                        file.truncate(record.bytes)  # others count it from now on
                    digest = hashlib.sha256()
                    for chunk in fetch():
                        digest.update(chunk)
                        file.write(chunk)
                return digest.hexdigest()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                if not self._free(max(1, record.bytes)):
                    raise StoreWriteError(
                        f"{self.folder}: no room for {record.bytes} bytes of {record.path}; make "
                        "room, or name another place with --cache"
                    ) from error

    def _make_room(self, needed: int) -> None:
        """Keep to the limit; what all files have is counted anew only where it may be too much."""
        limit = self._limit or shutil.disk_usage(self.folder).total // 2
        total = self.folder / _TOTAL
        try:
            there = int(total.read_text())
        except (FileNotFoundError, ValueError):  # none yet, or a writer was killed
            there = limit
        if there + needed > limit:
            there = sum(size for _, size, _ in self._files())
            if there + needed > limit:
                there -= self._remove_oldest(there + needed - int(limit * _FILLED))
        try:
            total.write_text(str(there + needed))
        except OSError:
            total.unlink(missing_ok=True)  # the next one counts

    def _free(self, needed: int) -> int:
        """Make room on a disk that is full; at the last, what this process was given goes too."""
        with locked(self.folder):
            freed = self._remove_oldest(needed)
            if not freed:
                with self._turn:
                    self._held.clear()
                freed = self._remove_oldest(needed)
        return freed

    def _remove_oldest(self, excess: int) -> int:
        """Remove files that are not held until so many bytes are free; how many are by that."""
        freed = 0
        for path, size, _ in sorted(self._files(), key=lambda file: file[2]):
            if freed >= excess:
                break
            if not path.name.startswith("."):
                freed += size * _remove(path)
        return freed

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Path, size and last use of all files, those half fetched among them."""
        with os.scandir(self.folder) as found:
            for entry in found:
                with suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    if entry.name == _TOTAL or entry.name.endswith(".turn"):
                        continue
                    if entry.name.endswith(".part") and time.time() - stat.st_mtime > _ABANDONED_S:
                        os.unlink(entry.path)
                    else:
                        yield Path(entry.path), stat.st_size, stat.st_atime


def _remove(path: Path) -> bool:
    """Remove a file, unless somebody holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        _lock(descriptor, wait=False)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
    if os.name == "posix":
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
