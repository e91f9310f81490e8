"""A store on object storage: the one module that imports `obstore` (the extra "remote").

An object is whole or absent, whoever looks. Requests are tried again within limits; a conditional
put whose answer was lost is settled by reading what is there.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, BinaryIO

from lookalike.errors import RequestError, UnreachableError
from lookalike.store import s3_uploads
from lookalike.store.cached import DamagedError, Fetch, FileCache
from lookalike.store.durable import PendingFile, write_file
from lookalike.store.files import Entry, FileRecord, Found, Name, Version, path_of, record_of
from lookalike.store.locks import Lease, hold
from lookalike.store.object_errors import Trying, is_missing_bucket, reason
from lookalike.store.object_uri import parse_uri, shown_uri
from lookalike.store.objects import ConflictError, Item, ObjectStoreError, Ranges, Result, Store
from lookalike.store.ranges import RangedFile, Span, coalesce, cut
from lookalike.store.s3_uri import is_s3

try:
    import obstore
    from obstore import exceptions as failures
    from obstore.store import from_url
except ImportError:  # said by BucketStore, with the remedy
    obstore = None

_PART = 8 << 20  # bytes of one request for a part of a large file
_PARTS = 4  # of one file, on their way
_AT_ONCE = 32  # requests on their way
_FEW = 8  # files of a folder that are looked at one by one: more, by listing it
_SPOOLED = "object"  # the name of what is not written yet
_BUFFER = 64 << 10  # bytes read at least, of a file that is read in pieces
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


class BucketStore(Store):
    """The objects below one URI."""

    def __init__(self, name: str, cache: str | os.PathLike[str] | None = None) -> None:
        """Open `s3://bucket/prefix`, `gs://…`, `az://…`; no request is made.

        Options of S3 stand after `?`, as pyarrow takes them: region, endpoint_override, scheme.
        Credentials come from the environment, or the machine's role.

        Args:
            name: The URI.
            cache: See `open_store`.

        Raises:
            RequestError: The extra is not installed, or the URI is not one that can be opened.
        """
        self.name, self.uri = name, shown_uri(name)
        if obstore is None:
            raise RequestError(
                f"{self.uri}: stores on object storage need obstore; "
                "install it: pip install 'lookalike[remote]'"
            )
        whole, options, allow_http = parse_uri(name)
        client = {**_CLIENT, "allow_http": allow_http}
        try:
            self._store = from_url(whole, client_options=client, retry_config=_RETRY, **options)
        except (failures.BaseError, ValueError) as error:
            raise RequestError(f"cannot open {self.uri}: {reason(str(error))}") from error
        refused = (failures.PermissionDeniedError, failures.UnauthenticatedError)
        self._trying = Trying(self.uri, (failures.BaseError, OSError), refused)
        self._cache = FileCache(cache)
        self._known: dict[str, FileRecord] = {}
        self._lease: Lease | None = None
        self._digest = hashlib.sha256(name.rstrip("/").encode()).hexdigest()[:16]

    # --- reading --------------------------------------------------------------------------------

    def read(self, path: str) -> Found | None:
        """See `Store.read`."""

        def get() -> Found:
            result = obstore.get(self._store, path)
            return Found(bytes(result.bytes()), _version(result.meta), result.meta["last_modified"])

        return self._trying.absent(f"read {path}", get)

    def read_all(self, paths: Iterable[str]) -> list[Found | None]:
        """See `Store.read_all`."""
        return self.at_once(self.read, paths)

    def at_once(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """See `Store.at_once`."""
        parts = list(items)
        if len(parts) < 2:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(min(_AT_ONCE, len(parts)), "requests") as pool:
            return list(pool.map(work, parts))

    def stat(self, path: str) -> Entry | None:
        """See `Store.stat`."""
        found = self._trying.absent(f"look at {path}", lambda: obstore.head(self._store, path))
        return None if found is None else Entry(path, found["size"], found["last_modified"])

    def stat_all(self, paths: Iterable[str]) -> list[Entry | None]:
        """See `Store.stat_all`; folders of which much is asked are listed."""
        asked = list(paths)
        counts = Counter(path.rpartition("/")[0] for path in asked)
        folders = {folder for folder, count in counts.items() if count > _FEW}
        found: dict[str, Entry | None] = {
            entry.path: entry for folder in folders for entry in self.entries(folder)
        }
        others = [path for path in asked if path.rpartition("/")[0] not in folders]
        found.update(zip(others, self.at_once(self.stat, others), strict=True))
        return [found.get(path) for path in asked]

    def size(self, path: str) -> int:
        """See `Store.size`; nobody is asked for that of a file that is known."""
        known = self._known.get(path)
        return super().size(path) if known is None else known.bytes

    def written(self, path: str) -> FileRecord | None:
        """What `write` wrote under a path; sha256 is "" where another program wrote it."""

        def head() -> FileRecord:
            found = obstore.get(self._store, path, options={"head": True})
            return FileRecord(path, found.attributes.get(_SHA256, ""), found.meta["size"])

        return self._trying.absent(f"look at {path}", head)

    def chunks(self, path: str) -> Iterator[bytes]:
        """See `Store.chunks`; each part is tried again by itself."""
        return self._parts(path, self.size(path))

    def _parts(self, path: str, size: int) -> Iterator[bytes]:
        starts = range(0, size, _PART)
        for first in range(0, len(starts), _PARTS):
            some = starts[first : first + _PARTS]
            yield from self.at_once(
                lambda start: self._part(path, start, min(_PART, size - start)), some
            )

    def _part(self, path: str, start: int, count: int) -> bytes:
        def part() -> bytes:
            got = bytes(obstore.get_range(self._store, path, start=start, length=count))
            if len(got) != count:
                raise OSError(f"{len(got)} bytes came where {count} were asked for")
            return got

        found = self._trying.absent(f"read {path}", part)
        if found is None:
            raise self._gone(path)
        return found

    def read_ranges(self, path: str, ranges: Ranges) -> list[bytes]:
        """See `Store.read_ranges`; several requests are on their way at once."""
        return self.read_many([(path, ranges)])[0]

    def read_many(self, wanted: Sequence[tuple[str, Ranges]]) -> list[list[bytes]]:
        """See `Store.read_many`."""
        found = [[b""] * len(ranges) for _, ranges in wanted]

        def fetch(asked: tuple[int, Span]) -> None:
            number, span = asked
            path, ranges = wanted[number]
            # Cut at once: what lies between two ranges is not held till all have come.
            for place, data in cut(ranges, span, self._part(path, span.start, span.count)):
                found[number][place] = data

        spans = (
            (number, span) for number, (_, ranges) in enumerate(wanted) for span in coalesce(ranges)
        )
        self.at_once(fetch, spans)
        return found

    def local(self, file: str | FileRecord) -> Path:
        """See `Store.local`."""
        return self._fetched(file, self._cache.get)

    def once(self, file: str | FileRecord) -> BinaryIO:
        """See `Store.once`."""
        return self._fetched(file, self._cache.pass_on)

    def _fetched(
        self, file: str | FileRecord, get: Callable[[FileRecord, Fetch], Result]
    ) -> Result:
        record = self._known_as(file) if isinstance(file, str) else file
        try:
            return get(record, lambda: self._parts(record.path, record.bytes))
        except DamagedError as error:
            raise ObjectStoreError(
                f"{self.shown(record.path)}: {error}; run: lookalike verify"
            ) from error

    def local_tree(self, folders: Iterable[str]) -> Path:
        """See `Store.local_tree`; it is there as long as the process."""
        root = self.scratch("local")
        for path in (path for folder in folders for path in self.files(folder)):
            file = root / path
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
                shutil.copyfile(self.local(path), part)
                os.replace(part, file)
        return root

    def scratch(self, folder: str) -> Path:
        """See `Store.scratch`: below the system's temporary folder, as long as the process."""
        return _own_folder(os.getpid()) / self._digest / folder

    def open(self, path: str) -> BinaryIO:
        """See `Store.open`."""
        raw = RangedFile(self.size(path), lambda start, count: self._part(path, start, count))
        return io.BufferedReader(raw, _BUFFER)

    def parquet(self, path: str) -> BinaryIO:
        """See `Store.parquet`."""
        return self.open(path)

    def know(self, records: Iterable[FileRecord]) -> None:
        """See `Store.know`."""
        self._known.update((record.path, record) for record in records)

    def _known_as(self, path: str) -> FileRecord:
        record = self._known.get(path) or self.written(path)
        if record is None:
            raise self._gone(path)
        if not record.sha256:
            raise ObjectStoreError(f"{self.shown(path)}: was not written by lookalike")
        self._known[path] = record
        return record

    def _gone(self, path: str) -> FileNotFoundError:
        return FileNotFoundError(f"{self.shown(path)}: no such object")

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """See `Store.entries`; after a failure it goes on behind the last one seen.

        An empty object that stands for a folder, as consoles and file browsers make them, is none.
        """
        empty: Entry | None = None
        for entry in self._entries(folder):
            if empty is not None and not entry.path.startswith(f"{empty.path}/"):
                yield empty
            empty = None
            if entry.bytes:
                yield entry
            elif entry.path not in ("", folder.rstrip("/")):
                empty = entry  # what follows tells
        if empty is not None:
            yield empty

    def _entries(self, folder: str) -> Iterator[Entry]:
        """All objects, in the order of their keys."""
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
        """See `Store.folders`."""
        found = self._trying.call(
            f"list {folder}", lambda: obstore.list_with_delimiter(self._store, folder)
        )
        return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def leftovers(self) -> Iterator[Entry]:
        """See `Store.leftovers`: uploads, on S3, whose servers need not tell of them."""
        if is_s3(self.name):
            with suppress(RequestError, UnreachableError):
                for one in s3_uploads.pending(self.name):
                    yield Entry(one.path, 0, one.begun)

    # --- writing --------------------------------------------------------------------------------

    @contextmanager
    def write(self, name: Name) -> Iterator[PendingFile]:
        """See `Store.write`; what is written lies in a temporary file until the block ends."""
        with TemporaryDirectory(prefix="lookalike-") as folder:
            with write_file(Path(folder), _SPOOLED) as pending:
                yield pending
            if pending.dropped:
                return
            written = pending.finished
            pending.record = replace(written, path=path_of(name, written.sha256))
            self.upload(Path(folder) / _SPOOLED, pending.record)

    def upload(self, file: Path, record: FileRecord) -> None:
        """Write a finished file as one object, absent until it is whole."""
        attributes = {_SHA256: record.sha256}

        def put() -> None:
            try:
                obstore.put(
                    self._store,
                    record.path,
                    file,
                    attributes=attributes,
                    chunk_size=_PART,
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
        self._known[record.path] = record

    def put(self, name: Name, data: bytes) -> FileRecord:
        """See `Store.put`."""
        written = record_of("", [data])
        record = replace(written, path=path_of(name, written.sha256))
        attributes = {_SHA256: record.sha256}
        self._trying.call(
            f"write {record.path}",
            lambda: obstore.put(self._store, record.path, data, attributes=attributes),
        )
        self._known[record.path] = record
        return record

    def put_if_absent(self, path: str, data: bytes) -> bytes:
        """See `Store.put_if_absent`."""
        while True:
            try:
                self.replace_if(path, data, None)
                return data
            except ConflictError:
                there = self.read(path)
                if there is not None:  # else removed meanwhile
                    return there.data

    def replace_if(self, path: str, data: bytes, old: Version | None) -> Version:
        """See `Store.replace_if`; an answer that was lost is settled by reading what is there."""
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
                there = self.read(path)
                if there is None or there.data != data:
                    raise ConflictError(f"{self.shown(path)}: another wrote it") from error
                return there.version

        return self._trying.call(f"write {path}", put)

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """See `Store.hold`; what this machine has asked for is noted beside the cache."""
        notes = self._cache.folder.with_name("leases") / self._digest
        with hold(notes), Lease(self, notes) as lease:
            self._lease = lease
            try:
                yield lease.inherited
            finally:
                self._lease = None

    def confirm(self) -> None:
        """See `Store.confirm`."""
        if self._lease is not None:
            self._lease.confirm()

    def delete(self, paths: Iterable[str]) -> None:
        """See `Store.delete`; what the cache has of files that are known goes, too."""
        every = list(paths)
        asked = [path for path in every if not s3_uploads.is_upload(path)]
        for known in filter(None, (self._known.pop(path, None) for path in asked)):
            self._cache.drop(known)
        for start in range(0, len(asked), 1000):
            part = asked[start : start + 1000]

            def remove(part: Sequence[str] = part) -> None:
                try:
                    obstore.delete(self._store, part)
                except FileNotFoundError:  # one of them: the others must go all the same
                    for path in part:
                        self._trying.absent("", partial(obstore.delete, self._store, path))

            self._trying.call(f"remove {part[0]}", remove)
        for path in filter(s3_uploads.is_upload, every):
            s3_uploads.abort(self.name, path)


@cache
def _own_folder(process: int) -> Path:
    """A folder of this process's own, gone with it."""
    made = Path(mkdtemp(prefix=f"lookalike-{process}-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _version(meta: Any) -> Version:
    return Version(meta["e_tag"], meta["version"])
