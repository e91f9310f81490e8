"""Requests to object storage, each tried again within limits: what imports `obstore`.

A conditional put whose answer was lost is settled by reading what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from lookalike.errors import RequestError
from lookalike.store.files import Entry, FileRecord, Found, Version, record_of
from lookalike.store.object_errors import Trying, is_missing_bucket, reason
from lookalike.store.object_uri import parse_uri, shown_uri
from lookalike.store.objects import ConflictError

try:
    import obstore
    from obstore import exceptions as failures
    from obstore.store import from_url
except ImportError:  # said by ObjectRequests, with the remedy
    obstore = None

PART = 8 << 20  # bytes of one request for a part of a large file
_DELETED = 1000  # objects of one request
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


class ObjectRequests:
    """Requests for the objects below one URI; paths are relative to it.

    Each raises a RequestError where trying again would end the same way, and an ObjectStoreError
    where it failed every time.
    """

    def __init__(self, name: str) -> None:
        """Open a URI; no request is made.

        Raises:
            RequestError: The extra is not installed, or the URI is not one that can be opened.
        """
        self._uri = shown_uri(name)
        if obstore is None:
            raise RequestError(
                f"{self._uri}: stores on object storage need obstore; "
                "install it: pip install 'lookalike[remote]'"
            )
        whole, options, allow_http = parse_uri(name)
        client = {**_CLIENT, "allow_http": allow_http}
        try:
            self._store = from_url(whole, client_options=client, retry_config=_RETRY, **options)
        except (failures.BaseError, ValueError) as error:
            raise RequestError(f"cannot open {self._uri}: {reason(str(error))}") from error
        refused = (failures.PermissionDeniedError, failures.UnauthenticatedError)
        self._trying = Trying(self._uri, (failures.BaseError, OSError), refused)

    def get(self, path: str) -> Found | None:
        """A small object; None where there is none."""

        def get() -> Found:
            result = obstore.get(self._store, path)
            return Found(bytes(result.bytes()), _version(result.meta), result.meta["last_modified"])

        return self._trying.absent(f"read {path}", get)

    def part(self, path: str, start: int, count: int) -> bytes | None:
        """So many bytes of an object from `start` on; None where there is none."""

        def part() -> bytes:
            got = bytes(obstore.get_range(self._store, path, start=start, length=count))
            if len(got) != count:
                raise OSError(f"{len(got)} bytes came where {count} were asked for")
            return got

        return self._trying.absent(f"read {path}", part)

    def stat(self, path: str) -> Entry | None:
        """Size and time of an object; None where there is none."""
        found = self._trying.absent(f"look at {path}", lambda: obstore.head(self._store, path))
        return None if found is None else Entry(path, found["size"], found["last_modified"])

    def written(self, path: str) -> FileRecord | None:
        """What was put under a path; sha256 is "" where another program put it."""

        def head() -> FileRecord:
            found = obstore.get(self._store, path, options={"head": True})
            return FileRecord(path, found.attributes.get(_SHA256, ""), found.meta["size"])

        return self._trying.absent(f"look at {path}", head)

    def entries(self, folder: str) -> Iterator[Entry]:
        """All objects below a folder in the order of their keys, whatever fails between them."""
        last: str | None = None

        def behind(last: str | None) -> tuple[Any, list[Any]]:
            stream = obstore.list(self._store, folder or None, offset=last)
            return stream, next(stream, [])

        while True:
            stream, chunk = self._trying.call(f"list {folder}", partial(behind, last))
            try:
                while chunk:
                    for one in chunk:
                        last = one["path"]
                        yield Entry(one["path"], one["size"], one["last_modified"])
                    chunk = next(stream, [])
                return
            except (failures.BaseError, OSError):
                continue  # told by the next try, where it fails again

    def folders(self, folder: str) -> list[str]:
        """Names of what lies in a folder and has objects below it, sorted."""
        found = self._trying.call(
            f"list {folder}", lambda: obstore.list_with_delimiter(self._store, folder)
        )
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def put_file(self, file: Path, record: FileRecord) -> None:
        """Write a finished file as one object, absent until it is whole."""
        attributes = {_SHA256: record.sha256}

        def put() -> None:
            try:
                obstore.put(
                    self._store,
                    record.path,
                    file,
                    attributes=attributes,
                    chunk_size=PART,
                    max_concurrency=2,
                )
            except FileNotFoundError as error:
                # The upload of its parts is no more: either it is complete, and the answer was
                # lost, or another ended it.
                if is_missing_bucket(str(error)):
                    raise
                if self.written(record.path) != record:
                    raise OSError(str(error)) from error

        self._trying.call(f"write {record.path}", put)

    def put(self, record: FileRecord, data: bytes) -> None:
        """Write a small object, whatever is there."""
        attributes = {_SHA256: record.sha256}
        self._trying.call(
            f"write {record.path}",
            lambda: obstore.put(self._store, record.path, data, attributes=attributes),
        )

    def replace_if(self, path: str, data: bytes, old: Version | None) -> Version:
        """Write a small object in place of one version; None: where there is none.

        Raises:
            ConflictError: There is another version by now, with other contents, or none.
        """
        mode: Any = "create"
        if old is not None:
            known = {"e_tag": old.e_tag, "version": old.version}
            mode = {key: one for key, one in known.items() if one is not None}
        attributes = {_SHA256: record_of(path, [data]).sha256}

        def put() -> Version:
            try:
                made = obstore.put(self._store, path, data, mode=mode, attributes=attributes)
                return _version(made)
            except (failures.AlreadyExistsError, failures.PreconditionError) as error:
                # It may be ours: the answer to a first request was lost, this is to the second.
                there = self.get(path)
                if there is None or there.data != data:
                    raise ConflictError(f"{self._uri}/{path}: another wrote it") from error
                return there.version

        return self._trying.call(f"write {path}", put)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects; already gone is fine."""
        for start in range(0, len(paths), _DELETED):
            part = paths[start : start + _DELETED]

            def remove(part: Sequence[str] = part) -> None:
                try:
                    obstore.delete(self._store, part)
                except FileNotFoundError:  # one of them: the others must go all the same
                    for path in part:
                        self._trying.absent("", partial(obstore.delete, self._store, path))

            self._trying.call(f"remove {part[0]}", remove)


def _version(meta: Any) -> Version:
    return Version(meta["e_tag"], meta["version"])
