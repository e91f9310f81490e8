"""A store on object storage, read in a local folder that its files are pulled into.

The mirror is a store like any other, so that runs and readers are the same code for both. Files are
immutable, so a file is fetched once. See `pushing` for how a run changes the store.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError
from lookalike.store import snapshot
from lookalike.store.bucket import BucketStore
from lookalike.store.objects import ObjectStoreError, Version, store_place
from lookalike.store.storage import (
    fsync_folder,
    is_remote,
    read_json,
    sha256_file,
    write_bytes,
    write_json,
)

READ_KINDS = ("embedding", "index", "template", "duplicates", "tombstones", "model")
_KNOWN = "runs/mirrored.json"  # path -> sha256 of what is as object storage has it
_AT_ONCE = 4  # files on their way

Manifest = dict[str, Any]
_Item = TypeVar("_Item")


def mirror_folder(uri: str, cache: str | os.PathLike[str] | None = None) -> Path:
    """Where the mirror of a store lies: a folder of its own below the cache."""
    folder = cache_folder() if cache is None else Path(os.path.abspath(cache))
    return folder / hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:16]


def local_copy(
    store: str | os.PathLike[str],
    name: str | None = None,
    *,
    kinds: Collection[str] | None = READ_KINDS,
    cache: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Path, str | None]:
    """The absolute folder to read a store in, and the snapshot's name; a local store is its own.

    Args:
        store: A folder, or a URI on object storage.
        name: Of the snapshot; by default the published one.
        kinds: The kinds of files that will be read; None for all.
        cache: Where mirrors lie (default: ~/.cache/lookalike).
        say: Told what is fetched.

    Raises:
        RequestError: The store cannot be opened, or there is no such snapshot.
        ObjectStoreError: It cannot be read.
    """
    place = store_place(store)
    if not is_remote(place):
        return Path(place), name
    mirror = Mirror(place, cache, say)
    return mirror.folder, mirror.pull(kinds, name)["name"]


class Mirror:
    """The local folder of one store on object storage.

    Attributes:
        uri: The store, as it may be shown.
        folder: The mirror: a local store.
        objects: The store itself.
    """

    def __init__(
        self,
        uri: str,
        cache: str | os.PathLike[str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Make the folder; no request is made.

        Raises:
            RequestError: The store cannot be opened, or the folder not be made.
        """
        self.objects = BucketStore(uri, cache)
        self.uri, self.folder, self._say = self.objects.uri, mirror_folder(uri, cache), say
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(
                f"{self.folder}: the mirror of {self.uri} cannot be made: {error.strerror}; "
                "name another place with --cache"
            ) from error
        self._current: Version | None = None  # of CURRENT, when it was last looked at
        self._published: str | None = None

    # --- reading --------------------------------------------------------------------------------

    def look(self) -> str | None:
        """Bring CURRENT and all manifests here; the published snapshot's name, None before it."""
        there = self.objects.read(snapshot.CURRENT)
        names = [name for name in self.objects.folders("snapshots") if snapshot.is_name(name)]
        self._current = there.version if there else None
        self._published = there.data.decode("utf-8", "replace").strip() if there else None
        for name in names:
            if name == self._published or not self._manifest(name).exists():
                self._fetch_manifest(name)
        for name in set(snapshot.names(self.folder)) - set(names):  # removed there, or never there
            self._manifest(name).unlink()
        if self._published is None:
            (self.folder / snapshot.CURRENT).unlink(missing_ok=True)
        elif self._published not in snapshot.names(self.folder):
            raise RequestError(
                f"{self.uri}: CURRENT names {self._published!r}, and there is no such snapshot; "
                "go back with: lookalike rollback"
            )
        elif snapshot.current(self.folder) != self._published:
            snapshot.point(self.folder, self._published)
        return self._published

    def pull(self, kinds: Collection[str] | None = None, name: str | None = None) -> Manifest:
        """Bring a snapshot here, by default the published one; returns its manifest.

        Args:
            kinds: Of the files that are needed; None for all.
            name: Of the snapshot.

        Raises:
            RequestError: Nothing is published, or there is no such snapshot.
            ObjectStoreError: The store cannot be read, or a file is not what the manifest says.
        """
        published = self.look()
        if published is None:
            raise RequestError(
                f"{self.uri}: nothing is published here; finish a run: "
                f"lookalike index --store {self.uri}"
            )
        manifest = snapshot.read_manifest(self.folder, name)
        self.fetch(manifest, kinds)
        return manifest

    def fetch(self, manifest: Mapping[str, Any], kinds: Collection[str] | None = None) -> None:
        """Bring the files of a snapshot that are not here yet.

        Raises:
            ObjectStoreError: One cannot be read, or is not what the manifest says.
        """
        lines = [line for line in manifest["files"] if kinds is None or line["kind"] in kinds]
        known = self._known()
        absent = [line for line in lines if not self._is_here(line, known)]
        if absent:
            size = sum(line["bytes"] for line in absent)
            self._say(f"pull: {len(absent):,} files, {size / 1e6:,.1f} MB, from {self.uri}")
        for line in all_at_once(self._fetch_file, absent):
            known[line["path"]] = line["sha256"]
        self._remember({**known, **{line["path"]: line["sha256"] for line in lines}})

    def verify(self, name: str | None = None) -> Iterator[snapshot.Problem]:
        """Compare every object of a snapshot with its manifest; nothing is kept here."""
        self.look()
        manifest = snapshot.read_manifest(self.folder, name)
        yield from snapshot.check_manifest(manifest)
        for line in manifest["files"]:
            yield from self._check_object(line)

    def _check_object(self, line: Mapping[str, Any]) -> Iterator[snapshot.Problem]:
        found = self.objects.written(line["path"])
        if found is None:
            yield snapshot.Problem(line["path"], "missing", f"{line['bytes']} bytes", "no object")
        elif found.bytes != line["bytes"]:
            expected, actual = f"{line['bytes']} bytes", f"{found.bytes} bytes"
            yield snapshot.Problem(line["path"], "size", expected, actual)
        else:
            digest = self.objects.record(line["path"]).sha256
            if digest != line["sha256"]:
                yield snapshot.Problem(line["path"], "sha256", line["sha256"], digest)

    # --- how ------------------------------------------------------------------------------------

    def _manifest(self, name: str) -> Path:
        return self.folder / snapshot.manifest_path(name)

    def _fetch_manifest(self, name: str) -> None:
        path = self._manifest(name)
        found = self.objects.read(snapshot.manifest_path(name))
        if found is None:  # a snapshot that is being pushed, or removed
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != found.data:
            write_bytes(self.folder, snapshot.manifest_path(name), found.data)

    def _fetch_file(self, line: Manifest) -> Manifest:
        """One file, hashed on its way; fetched once more where it is not what it should be."""
        final = self.folder / line["path"]
        final.parent.mkdir(parents=True, exist_ok=True)
        # Not *.tmp: those are cleared away by a run, and a reader may be fetching beside it.
        temporary = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
        try:
            for _ in range(2):
                digest = hashlib.sha256()
                with open(temporary, "wb") as file:
                    for chunk in self.objects.chunks(line["path"]):
                        digest.update(chunk)
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())
                if digest.hexdigest() == line["sha256"]:
                    os.replace(temporary, final)
                    fsync_folder(final.parent)
                    return line
        finally:
            temporary.unlink(missing_ok=True)
        raise ObjectStoreError(
            f"{self.uri}/{line['path']}: sha256: expected {line['sha256']}, found "
            f"{digest.hexdigest()}; run: lookalike verify"
        )

    def _is_here(self, line: Mapping[str, Any], known: Mapping[str, str]) -> bool:
        path = self.folder / line["path"]
        sha256 = str(line["sha256"])
        if not path.is_file() or path.stat().st_size != line["bytes"]:
            return False
        # What is not known to be the store's may be of a run here that was not published.
        return known.get(line["path"]) == sha256 or sha256_file(path)[0] == sha256

    def _known(self) -> dict[str, str]:
        try:
            return dict(read_json(self.folder / _KNOWN))
        except FileNotFoundError:
            return {}

    def _remember(self, known: Mapping[str, str]) -> None:
        if known != self._known():
            write_json(self.folder, _KNOWN, known)


def all_at_once(work: Callable[[_Item], Any], items: Iterable[_Item]) -> Iterator[Any]:
    """Results in the order of their ends; the first error ends what has not begun."""
    pool = ThreadPoolExecutor(_AT_ONCE, "transfer")
    try:
        for future in as_completed([pool.submit(work, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
