"""Object storage behind few calls: the one module that imports `obstore` (the extra "remote").

An object is whole or absent, whoever looks. What must happen once is a conditional put: on absence,
or on the version that was read. Requests are tried again within limits; a conditional put whose
answer was lost is settled by reading what is there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lookalike.errors import RequestError, UnreachableError
from lookalike.store.object_errors import is_missing_bucket, reason, wrong_request
from lookalike.store.object_uri import parse_uri, shown_uri
from lookalike.store.storage import FileRecord

try:
    import obstore
    from obstore import exceptions as failures
    from obstore.store import from_url
except ImportError:  # said by Objects, with the remedy
    obstore = None

_PART = 8 << 20  # bytes of one request for a part of a large file
_TRIES = 4  # of one call, beyond what the client does for each request
_PAUSE_S = 0.5  # before the second try, doubled for each after it
_SHA256 = "sha256"  # the attribute that says what an object holds
_CLIENT = {
    "connect_timeout": "10s",
    "read_timeout": "30s",  # without a byte
    "timeout": "120s",  # for one request, its body included
}
_RETRY = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=200),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}

_Result = TypeVar("_Result")


class ObjectStoreError(UnreachableError):
    """Object storage cannot be reached, or does not do what it was asked."""


class ConflictError(Exception):
    """The object is not what the condition of a put said: another wrote it."""


@dataclass(frozen=True)
class Version:
    """How the server names one version of an object, for conditional puts."""

    e_tag: str | None
    version: str | None


@dataclass(frozen=True)
class Found:
    """A small object as it was read, and when it was written, by the server's clock."""

    data: bytes
    version: Version
    modified: datetime


@dataclass(frozen=True)
class Entry:
    """One object in a listing: path, size, and when it was written, by the server's clock."""

    path: str
    bytes: int
    modified: datetime


class Objects:
    """The objects below one URI; paths are relative to it, posix.

    Attributes:
        uri: Without options, as it may be shown.
    """

    def __init__(self, uri: str) -> None:
        """Open `s3://bucket/prefix`, `gs://…`, `az://…`; no request is made.

        Options of S3 stand after `?`, as pyarrow takes them: region, endpoint_override, scheme.
        Credentials come from the environment, or the machine's role.

        Raises:
            RequestError: The extra is not installed, or the URI is not one that can be opened.
        """
        self.uri = shown_uri(uri)
        if obstore is None:
            raise RequestError(
                f"{self.uri}: stores on object storage need obstore; "
                "install it: pip install 'lookalike[remote]'"
            )
        whole, options, allow_http = parse_uri(uri)
        client = {**_CLIENT, "allow_http": allow_http}
        try:
            self._store = from_url(whole, client_options=client, retry_config=_RETRY, **options)
        except (failures.BaseError, ValueError) as error:
            raise RequestError(f"cannot open {self.uri}: {reason(str(error))}") from error

    # --- reading --------------------------------------------------------------------------------

    def read(self, path: str) -> Found | None:
        """A small object; None where there is none.

        Raises:
            ObjectStoreError: It cannot be read.
        """

        def get() -> Found:
            result = obstore.get(self._store, path)
            return Found(bytes(result.bytes()), _version(result.meta), result.meta["last_modified"])

        return self._absent(f"read {path}", get)

    def record(self, path: str) -> FileRecord | None:
        """What `upload` wrote under a path; sha256 is "" where another program wrote it."""

        def head() -> FileRecord:
            found = obstore.get(self._store, path, options={"head": True})
            return FileRecord(path, found.attributes.get(_SHA256, ""), found.meta["size"])

        return self._absent(f"look at {path}", head)

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """Every object below a folder, or all, in no order."""
        stream = self._tried(f"list {folder}", lambda: obstore.list(self._store, folder or None))
        while chunk := self._tried(f"list {folder}", lambda: next(stream, None)):
            yield from (Entry(one["path"], one["size"], one["last_modified"]) for one in chunk)

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted."""
        found = self._tried(
            f"list {folder}", lambda: obstore.list_with_delimiter(self._store, folder)
        )
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def chunks(self, path: str, size: int) -> Iterator[bytes]:
        """An object of known size in parts, each of which is tried again by itself.

        Raises:
            ObjectStoreError: It is absent, shorter than that, or cannot be read.
        """
        for start in range(0, size, _PART):
            length = min(_PART, size - start)

            def part(start: int = start, length: int = length) -> bytes:
                got = bytes(obstore.get_range(self._store, path, start=start, length=length))
                if len(got) != length:
                    raise OSError(f"{len(got)} bytes came where {length} were asked for")
                return got

            yield self._tried(f"read {path}", part)

    def sha256(self, path: str, size: int) -> str:
        """Hash an object of known size, in bounded memory; in hex."""
        digest = hashlib.sha256()
        for chunk in self.chunks(path, size):
            digest.update(chunk)
        return digest.hexdigest()

    # --- writing --------------------------------------------------------------------------------

    def upload(self, file: Path, record: FileRecord) -> None:
        """Write a finished file as one object, absent until it is whole."""
        attributes = {_SHA256: record.sha256}
        self._tried(
            f"write {record.path}",
            lambda: obstore.put(
                self._store, record.path, file, attributes=attributes, chunk_size=_PART,
                max_concurrency=2,
            ),
        )  # fmt: skip

    def write(self, path: str, data: bytes) -> None:
        """Write a small object, whatever is there."""
        self._tried(f"write {path}", lambda: obstore.put(self._store, path, data))

    def create(self, path: str, data: bytes) -> Version:
        """Write a small object where there is none.

        Raises:
            ConflictError: There is one, with other contents.
            ObjectStoreError: It cannot be written, or not be told whether it was.
        """
        return self._put_if(path, data, "create")

    def replace(self, path: str, data: bytes, old: Version) -> Version:
        """Write a small object in place of the version that was read.

        Raises:
            ConflictError: There is another version by now, with other contents, or none.
            ObjectStoreError: It cannot be written, or not be told whether it was.
        """
        known = {"e_tag": old.e_tag, "version": old.version}
        return self._put_if(path, data, {key: one for key, one in known.items() if one is not None})

    def _put_if(self, path: str, data: bytes, mode: Any) -> Version:
        def put() -> Version:
            try:
                return _version(obstore.put(self._store, path, data, mode=mode))
            except (failures.AlreadyExistsError, failures.PreconditionError) as error:
                # It may be ours: the answer to a first request was lost, this is to the second.
                there = self.read(path)
                if there is None or there.data != data:
                    raise ConflictError(f"{self.uri}/{path}: another wrote it") from error
                return there.version

        return self._tried(f"write {path}", put)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; already gone is fine."""
        for start in range(0, len(paths), 1000):
            part = list(paths[start : start + 1000])

            def remove(part: list[str] = part) -> None:
                try:
                    obstore.delete(self._store, part)
                except FileNotFoundError:  # one of them: the others must go all the same
                    for path in part:
                        self._absent("", partial(obstore.delete, self._store, path))

            self._tried(f"remove {part[0]}", remove)

    # --- trying again ---------------------------------------------------------------------------

    def _absent(self, what: str, call: Callable[[], _Result]) -> _Result | None:
        def found() -> _Result | None:
            try:
                return call()
            except FileNotFoundError as error:
                if is_missing_bucket(str(error)):
                    raise
                return None

        return self._tried(what, found)

    def _tried(self, what: str, call: Callable[[], _Result]) -> _Result:
        """Call, some times more where the store or the network failed.

        Raises:
            RequestError: Trying again ends the same way: credentials, the bucket, the region.
            ObjectStoreError: It failed every time.
        """
        refused = (failures.PermissionDeniedError, failures.UnauthenticatedError)
        for number in range(_TRIES):
            try:
                return call()
            except ObjectStoreError:
                raise  # tried already
            except (failures.BaseError, OSError) as error:
                if wrong := wrong_request(str(error), isinstance(error, refused)):
                    raise RequestError(f"{self.uri}: cannot {what}: {wrong}") from error
                if isinstance(error, FileNotFoundError):
                    gone = f"{self.uri}: cannot {what}: there is no such"
                    raise ObjectStoreError(gone) from error
                if number == _TRIES - 1:
                    raise ObjectStoreError(
                        f"{self.uri}: cannot {what} after {_TRIES} tries: {reason(str(error))}"
                    ) from error
            time.sleep(_PAUSE_S * 2**number)
        raise AssertionError("unreachable")


def _version(meta: Any) -> Version:
    return Version(meta["e_tag"], meta["version"])
