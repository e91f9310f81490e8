"""Snapshots: a manifest written last, a pointer replaced atomically, and the check of every file.

`CURRENT` is the only file of a store that is ever replaced. Every file that a manifest lists was
complete under its final name before the manifest was written. So a reader that finds a manifest
finds all of its files too, until `gc` removes the snapshot.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.errors import RequestError, UnreachableError
from lookalike.json_text import plain
from lookalike.store.files import FileRecord, Found, json_bytes, record_of
from lookalike.store.index_header import HEADER_BYTES, parse_header
from lookalike.store.ledger import LISTED, UNKNOWN
from lookalike.store.locks import StoreBusyError
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.objects import ConflictError, Store
from lookalike.store.shard_format import of_rows
from lookalike.store.tombstones import tombstones_of

FORMAT = "lookalike-snapshot"
VERSION = 1
CURRENT = "CURRENT"
_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_COUNTED = ("embedding", "index", "ledger")  # kinds of files with a number of rows


@dataclass(frozen=True)
class Problem:
    """One file that is not as the manifest says."""

    path: str
    problem: str  # "missing", "link", "size", "sha256", "rows", "manifest"
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}: expected {self.expected}, found {self.actual}"


def current(store: Store) -> str | None:
    """Name of the published snapshot, or None before the first."""
    try:
        found = store.read(CURRENT)
        return found.data.decode().strip() or None if found else None
    except UnreachableError:
        raise
    except NotADirectoryError as error:
        raise RequestError(
            f"{store}: a store is a folder, and this is a file; make one with: lookalike index"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"{store.shown(CURRENT)}: not readable as a snapshot's name: {error}"
        ) from error


def names(store: Store) -> list[str]:
    """All finished snapshots, oldest first."""
    return [name for name in store.folders("snapshots") if store.has(manifest_path(name))]


def new_name(now: datetime, suffix: str, after: str | None) -> str:
    """A name for a snapshot: the time (UTC, in seconds) and some letters.

    Names sort in the order of publication: where the clock has not moved on since the snapshot
    `after`, or was set back, the name says a second more than that one's.
    """
    if after is not None and re.match(r"\d{8}T\d{6}Z-", after):
        last = datetime.strptime(after[:16], _STAMP).replace(tzinfo=timezone.utc)
        now = max(now, last + timedelta(seconds=1))
    return f"{now:{_STAMP}}-{suffix}"


def manifest_path(name: str) -> str:
    """Where a snapshot's manifest lies, relative to the store."""
    return f"snapshots/{name}/manifest.json"


def read_manifest(store: Store, name: str | None = None) -> Manifest:
    """The manifest of a snapshot, by default the published one.

    Raises:
        RequestError: There is no store, no published snapshot, no such snapshot, or a manifest
            that this version cannot read.
    """
    if not store.is_there():
        raise RequestError(
            f"{store}: no such store; make one with: lookalike index --store {store}"
        )
    wanted = name or current(store)
    if wanted is None:
        raise RequestError(
            f"{store}: nothing is published here; finish a run: lookalike index --store {store}"
        )
    path = store.shown(manifest_path(wanted))
    if not _NAME.fullmatch(wanted) or not store.has(manifest_path(wanted)):
        known = ", ".join(names(store)) or "none"
        raise RequestError(f"{store}: no snapshot {wanted!r}; finished snapshots: {known}")
    if outside := store.outside(manifest_path(wanted)):
        raise RequestError(f"{path}: damaged: a link leads out of the store, to {outside}")
    try:
        manifest: Manifest = store.read_json(manifest_path(wanted))
    except UnreachableError:
        raise
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: not readable: {error}; run: lookalike verify") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise RequestError(f"{path}: not a lookalike manifest")
    if manifest.get("version") != VERSION:
        raise RequestError(
            f"{path}: format version {manifest.get('version')}, this lookalike reads {VERSION}; "
            "use the version that wrote it, or index again"
        )
    wrong = _wrong_part(manifest, wanted)
    if wrong:
        raise RequestError(f"{path}: damaged: {wrong}; go back with: lookalike rollback")
    store.know(FileRecord(one["path"], one["sha256"], one["bytes"]) for one in manifest["files"])
    return manifest


def _wrong_part(manifest: Manifest, name: str) -> str:
    """What keeps a manifest from being used at all, or ""; no file outside the store is touched."""
    if manifest.get("name") != name:
        return f"it names itself {manifest.get('name')!r}"
    lines = manifest.get("files")
    if not isinstance(lines, list) or not isinstance(manifest.get("counts", {}), dict):
        return "it has no list of files, or no counts by name"
    return next((wrong for line in lines if (wrong := _wrong_line(line))), "")


def _wrong_line(line: Any) -> str:
    types: dict[str, type] = {"path": str, "kind": str, "sha256": str, "bytes": int}
    if isinstance(line, dict) and line.get("kind") in _COUNTED:
        types["rows"] = int
    if not isinstance(line, dict) or not all(
        isinstance(line.get(key), kind) for key, kind in types.items()
    ):
        return f"a file needs {', '.join(types)}, got {line!r:.200}"
    path = PurePosixPath(line["path"])
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in line["path"]:
        return f"the file {line['path']!r} lies outside the store"
    return ""


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Write the manifest of a finished snapshot, which is not published by that (see `replace`)."""
    complete = plain({"format": FORMAT, "version": VERSION, **manifest})
    complete["digest"] = _digest(complete)
    replace(store, manifest_path(str(manifest["name"])), json_bytes(complete))


def point(store: Store, name: str, before: Found | None) -> None:
    """Make a finished snapshot the published one, in place of what CURRENT was read as.

    Raises:
        StoreBusyError: Another was published since; that one is.
    """
    try:
        store.replace_if(CURRENT, f"{name}\n".encode(), before.version if before else None)
    except ConflictError as error:
        raise StoreBusyError(
            f"{store}: {current(store) or 'nothing'} was published by another run meanwhile, and "
            f"{name} is not; run again"
        ) from error


def replace(store: Store, path: str, data: bytes) -> FileRecord:
    """Write a small file of the snapshot that is to be published, whatever a killed run left of it.

    The store is held. If it is not any more, what the run wrote that took it over stands.

    Raises:
        StoreBusyError: Another run took the store over, or wrote the file meanwhile.
    """
    # Read first: if the store is still held then, whoever takes it over writes after that.
    before = store.read(path)
    store.confirm()
    try:
        store.replace_if(path, data, before.version if before else None)
    except ConflictError as error:
        raise StoreBusyError(
            f"{store.shown(path)}: another run wrote it meanwhile, and nothing was published; run "
            "the same command again"
        ) from error
    return record_of(path, [data])


def fenced(store: Store) -> Found | None:
    """CURRENT, in another version than anybody has read it in; None where there is none.

    A request to replace it that is still on its way, of a run that does not hold the store any
    more, is refused then: what that run made may be gone by the time it is done. Of an object the
    version is a hash of what is in it, so this gets another end of line.

    Raises:
        ObjectStoreError: It cannot be written.
    """
    while True:
        found = store.read(CURRENT)
        if found is None:
            return None
        data = found.data + b"\n"
        try:
            return Found(data, store.replace_if(CURRENT, data, found.version), found.modified)
        except ConflictError:  # that request was done
            continue


def files_of(manifest: Manifest, kind: str) -> list[FileLine]:
    """The manifest's lines for one kind of file, in order."""
    return [line for line in manifest["files"] if line["kind"] == kind]


def verify(store: Store, name: str | None = None) -> Iterator[Problem]:
    """Compare every file of a snapshot with its manifest; yields what is not as it should be."""
    manifest = read_manifest(store, name)
    yield from check_manifest(manifest)
    for line in manifest["files"]:
        yield from check_file(store, line)
    yield from _check_counts(store, manifest)


def check_manifest(manifest: Manifest) -> Iterator[Problem]:
    """Whether a published manifest still says what it said when it was written."""
    path, digest = manifest_path(manifest["name"]), _digest(manifest)
    if manifest.get("digest") != digest:
        yield Problem(path, "manifest", str(manifest.get("digest")), digest)


def check_sizes(store: Store, lines: Sequence[FileLine]) -> Iterator[Problem]:
    """Presence and size of listed files."""
    found = store.stat_all(line["path"] for line in lines)
    for line, entry in zip(lines, found, strict=True):
        path, wanted = str(line["path"]), f"{line['bytes']} bytes"
        if outside := store.outside(path):
            yield Problem(path, "link", "a file of the store", f"a link to {outside}")
        elif entry is None:
            yield Problem(path, "missing", wanted, "no regular file")
        elif entry.bytes != line["bytes"]:
            yield Problem(path, "size", wanted, f"{entry.bytes} bytes")


def check_file(store: Store, line: FileLine) -> Iterator[Problem]:
    """Presence, size, sha256 and rows of one listed file."""
    path = str(line["path"])
    problem = next(check_sizes(store, [line]), None)
    if problem is not None:
        yield problem
        return
    try:
        digest = store.record(path).sha256
    except UnreachableError:
        raise
    except OSError as error:
        digest = f"not readable ({error.strerror})"
    if digest != line["sha256"]:
        yield Problem(path, "sha256", line["sha256"], digest)
        return
    rows = _rows(store, path, line["kind"]) if "rows" in line else None
    if rows is not None and rows != line["rows"]:
        yield Problem(path, "rows", str(line["rows"]), str(rows))


def _check_counts(store: Store, manifest: Manifest) -> Iterator[Problem]:
    path = manifest_path(manifest["name"])
    rows = sum(line["rows"] for line in files_of(manifest, "embedding"))
    entries = sum(line["rows"] for line in files_of(manifest, "index"))
    ledger = sum(line["rows"] for line in files_of(manifest, "ledger"))
    deleted, misplaced = _tombstones(store, manifest)

    def count(name: str, absent: int | None = None) -> int:
        value = manifest.get("counts", {}).get(name, absent)
        return value if isinstance(value, int) else -1

    for what, expected, actual in (
        ("rows of the embedding shards", count("vectors") + deleted, rows),
        ("tombstones of no row", 0, misplaced),
        # snapshots of earlier versions count no unknown files
        ("rows of the ledger", count("listed") + count("removed") + count(UNKNOWN, 0), ledger),
        ("files by status", count("listed"), sum(count(name) for name in LISTED)),
    ):
        if expected != actual:
            yield Problem(path, what, str(expected), str(actual))
    # The index may still hold deleted rows, but no id without a row.
    if not count("vectors") <= entries <= rows:
        wanted = f"{count('vectors')} to {rows}"
        yield Problem(path, "entries of the index shards", wanted, str(entries))


def _tombstones(store: Store, manifest: Manifest) -> tuple[int, int]:
    """Dead rows of the embedding shards, and tombstones that are of no row of theirs."""
    try:
        ids = tombstones_of(store, manifest)
    except RequestError:  # the file's own problem
        return 0, 0
    rows = {line.get("file_no", -1): line["rows"] for line in files_of(manifest, "embedding")}
    there = int(of_rows(ids, rows).sum())
    return there, len(ids) - there


def _rows(store: Store, path: str, kind: str) -> int | str | None:
    """Rows that a file says it has; None of a kind of which that is not known."""
    try:
        if path.endswith(".parquet"):
            with store.open(path) as file:
                return int(pq.read_metadata(file).num_rows)
        if kind == "index":
            with store.open(path) as file:
                return parse_header(store.shown(path), file.read(HEADER_BYTES)).rows
        return None
    except (pa.ArrowException, OSError, RequestError) as error:
        return f"not readable ({error})"


def _digest(manifest: Manifest) -> str:
    body = {key: value for key, value in manifest.items() if key != "digest"}
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
