"""Who may write to a store: one run at a time, and the second is told who holds it since when.

A local store is held by a file lock, which the system releases when the process ends. A store on
object storage is held by a lease: an object that its holder rewrites from time to time. Its age is
computed from the server's times alone, so clocks of clients do not matter. A holder whose lease was
taken over by another run notices that when it publishes, at the latest.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from lookalike.errors import RequestError
from lookalike.store.durable import check_inside, make_folder, write_bytes
from lookalike.store.files import Version
from lookalike.store.objects import ConflictError, ObjectStoreError, Store

if os.name == "posix":
    import fcntl

LOCK = "runs/lock"
CLOCK = "runs/clock"  # on object storage: written to ask the server what time it is
OWN = "runs/leases"  # in a folder of this machine: the last leases that were asked for from here
RENEW_S = 30.0
EXPIRES_S = 300.0
_FREE = b"free\n"


_NO_WRITING = (errno.EACCES, errno.EPERM, errno.EROFS)


class StoreBusyError(RuntimeError):
    """Another run holds the store, or changed it meanwhile."""


def holder() -> str:
    """This process, as it is named to those who must wait for it."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} (since {now})"


def why_not_writable(folder: Path) -> str:
    """Why nothing can be written in a folder, or in what there is of the way to it; "" if it can.

    Linux tells of a file system that is read-only by the same answer as of a missing permission.
    """
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{folder} is on a file system that is mounted read-only"
    return f"no permission in {folder}"


@contextmanager
def hold(store: Path, what: str = "store") -> Iterator[None]:
    """Hold a store against a second run; the system lets go when the process ends, however it ends.

    Args:
        store: Its folder, or another that is to be held.
        what: It is.

    Raises:
        StoreBusyError: Another process holds it; the message says which, and since when.
        RequestError: It cannot be written.
    """
    path = store / LOCK
    try:
        _check_writable(store)
        make_folder(path.parent)
        check_inside(store, path)
        opened = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        if error.errno not in _NO_WRITING:
            raise
        raise _not_writable(store, error.strerror or "") from error
    with opened as file:
        if os.name == "posix":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                other = file.read().strip() or "another process"
                raise StoreBusyError(
                    f"{store}: {other} is running on this {what}; wait for it to end"
                ) from error
        file.truncate(0)
        file.write(holder())
        file.flush()
        yield


def _check_writable(store: Path) -> None:
    """May files be made and removed in the store's folders; told before anything is changed."""
    for folder in (store, *(path for path in store.glob("*") if path.is_dir())):
        if why := why_not_writable(folder):
            raise _not_writable(store, why)


def _not_writable(store: Path, why: str) -> RequestError:
    return RequestError(
        f"{store}: the store cannot be written: {why}; mount it to be written, or run as a user "
        "who may write all of it"
    )


class Lease:
    """Holds a store on object storage, while the block runs.

    The lock is one object: a line that names the holder, one that no other lease has, one that
    counts renewals. It is only ever written by conditional puts, so two can never both hold it.
    """

    def __init__(self, store: Store, notes: Path) -> None:
        """Prepare to hold a store.

        Args:
            store: The store.
            notes: A folder of this machine, held by this process: a lease that was noted there and
                never given back is that of a dead process, and taken over at once.
        """
        self._store, self._notes = store, notes
        self._name, self._nonce, self._count = holder(), uuid.uuid4().hex, 0
        self._version: Version | None = None
        self.inherited = False
        self._lost = ""
        self._renewed = time.monotonic()
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        """Take the lease.

        Raises:
            StoreBusyError: Another run holds it; the message says which, and since when.
            RequestError: The storage does not heed the conditions of puts.
            ObjectStoreError: The store cannot be reached.
        """
        earlier = self._own()
        write_bytes(self._notes, OWN, "\n".join([*earlier[-8:], self._nonce]).encode())
        self._version = self._take(earlier)
        self._check_conditions()
        self._renewed = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Give the lease back."""
        self._ended.set()
        self._thread.join()
        # What cannot be given back expires; the run itself has ended as it has.
        with self._turn, suppress(ConflictError, ObjectStoreError, RequestError):
            if not self._lost and self._version is not None:
                self._store.replace_if(LOCK, _FREE, self._version)

    def confirm(self) -> None:
        """Renew the lease now.

        Raises:
            StoreBusyError: Another run has taken it over.
            ObjectStoreError: The store cannot be reached.
        """
        self._renew()
        if self._lost:
            raise StoreBusyError(f"{self._store.uri}: {self._lost}")

    def _take(self, earlier: Sequence[str]) -> Version:
        while True:
            there = self._store.read(LOCK)
            try:
                if there is None:
                    return self._store.replace_if(LOCK, self._text(), None)
                lines = there.data.decode("utf-8", "replace").splitlines() or [""]
                mine = len(lines) > 1 and lines[1] in earlier
                age = 0.0 if mine else (self._now() - there.modified).total_seconds()
                if there.data == _FREE or mine or age >= EXPIRES_S:
                    self.inherited = there.data != _FREE
                    return self._store.replace_if(LOCK, self._text(), there.version)
            except ConflictError:
                continue  # another was faster: look who
            raise StoreBusyError(
                f"{self._store.uri}: {lines[0] or 'another process'} is running on this store "
                f"(last heard of {age:.0f} s ago); wait for it to end, or, if it is dead, until it "
                f"has been silent for {EXPIRES_S:.0f} s"
            )

    def _check_conditions(self) -> None:
        """Is a put refused that must not be done? Else nothing here is safe from another run."""
        with suppress(ConflictError):
            self._store.replace_if(LOCK, _FREE, None)
            raise RequestError(
                f"{self._store}: the storage there does not heed the conditions of puts "
                "(If-None-Match), without which runs would overwrite each other; name a store "
                "elsewhere"
            )

    def _own(self) -> list[str]:
        with suppress(FileNotFoundError):
            return (self._notes / OWN).read_text(encoding="utf-8").split()
        return []

    def _text(self) -> bytes:
        return f"{self._name}\n{self._nonce}\n{self._count}\n".encode()

    def _now(self) -> datetime:
        """The server's time: when it says that an object was written just now."""
        self._store.put(CLOCK, b"")
        there = self._store.read(CLOCK)
        return there.modified if there else datetime.min.replace(tzinfo=timezone.utc)

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_S):
            with suppress(ObjectStoreError, RequestError):  # confirm() says it where it matters
                self._renew()

    def _renew(self) -> None:
        with self._turn:
            if self._lost or self._version is None:
                return
            self._count += 1
            try:
                self._version = self._store.replace_if(LOCK, self._text(), self._version)
                self._renewed = time.monotonic()
            except ConflictError:
                there = self._store.read(LOCK)
                by = "another that has ended"
                if there is not None and there.data != _FREE:
                    by = there.data.decode("utf-8", "replace").split("\n")[0]
                silent = time.monotonic() - self._renewed
                self._lost = (
                    f"this run was silent for {silent:.0f} s, and the store was taken over: by "
                    f"{by}; nothing is published, run again when it has ended"
                )
