"""A store on object storage (the extra "remote"), where an object is whole or absent."""

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
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import BinaryIO

from lookalike.errors import RequestError, UnreachableError
from lookalike.store import s3_uploads
from lookalike.store.cached import DamagedError, Fetch, FileCache
from lookalike.store.durable import PendingFile, write_file
from lookalike.store.files import Entry, FileRecord, Found, Name, Version, path_of, record_of
from lookalike.store.locks import Lease, hold
from lookalike.store.object_requests import PART, ObjectRequests
from lookalike.store.object_uri import shown_uri
from lookalike.store.objects import ConflictError, Item, ObjectStoreError, Ranges, Result, Store
from lookalike.store.ranges import RangedFile, Span, coalesce, cut
from lookalike.store.s3_uri import is_s3

_PARTS = 4  # of one file, on their way
_AT_ONCE = 32  # requests on their way
_FEW = 8  # files of a folder that are looked at one by one: more, by listing it
_SPOOLED = "object"  # the name of what is not written yet
_BUFFER = 64 << 10  # bytes read at least, of a file that is read in pieces


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
        self._requests = ObjectRequests(name)
        self._cache = FileCache(cache)
        self._known: dict[str, FileRecord] = {}
        self._lease: Lease | None = None
        self._digest = hashlib.sha256(name.rstrip("/").encode()).hexdigest()[:16]

    # --- reading --------------------------------------------------------------------------------

    def read(self, path: str) -> Found | None:
        """See `Store.read`."""
        return self._requests.get(path)

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
        return self._requests.stat(path)

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
        return self._requests.written(path)

    def chunks(self, path: str) -> Iterator[bytes]:
        """See `Store.chunks`; each part is tried again by itself."""
        return self._parts(path, self.size(path))

    def _parts(self, path: str, size: int) -> Iterator[bytes]:
        starts = range(0, size, PART)
        for first in range(0, len(starts), _PARTS):
            some = starts[first : first + _PARTS]
            yield from self.at_once(
                lambda start: self._part(path, start, min(PART, size - start)), some
            )

    def _part(self, path: str, start: int, count: int) -> bytes:
        found = self._requests.part(path, start, count)
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
        for entry in self._requests.entries(folder):
            if empty is not None and not entry.path.startswith(f"{empty.path}/"):
                yield empty
            empty = None
            if entry.bytes:
                yield entry
            elif entry.path not in ("", folder.rstrip("/")):
                empty = entry  # what follows tells
        if empty is not None:
            yield empty

    def folders(self, folder: str) -> list[str]:
        """See `Store.folders`."""
        return self._requests.folders(folder)

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
        self._requests.put_file(file, record)
        self._known[record.path] = record

    def put(self, name: Name, data: bytes) -> FileRecord:
        """See `Store.put`."""
        written = record_of("", [data])
        record = replace(written, path=path_of(name, written.sha256))
        self._requests.put(record, data)
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
        return self._requests.replace_if(path, data, old)

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
        self._requests.delete(asked)
        for path in filter(s3_uploads.is_upload, every):
            s3_uploads.abort(self.name, path)


@cache
def _own_folder(process: int) -> Path:
    """A folder of this process's own, gone with it."""
    made = Path(mkdtemp(prefix=f"lookalike-{process}-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
