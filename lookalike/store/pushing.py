"""A store on object storage, changed in its mirror and pushed.

A run pushes its new files, then the manifest where there is none, then CURRENT on the condition
that it is as it was when the run began.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lookalike.store import snapshot
from lookalike.store.locks import Lease, StoreBusyError, hold
from lookalike.store.mirror import Manifest, Mirror, all_at_once
from lookalike.store.objects import ConflictError, ObjectStoreError
from lookalike.store.storage import FileRecord

_ABANDONED_S = 86_400  # age of a half-fetched file that nobody can still be writing


class WritableMirror(Mirror):
    """A mirror that the store is changed through, while both are held."""

    _lease: Lease | None = None

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the store, and its mirror, while the block runs.

        What was looked at before must still be so. Files here that no snapshot uses any more go.

        Raises:
            StoreBusyError: Another run holds it, or published since.
            ObjectStoreError: The store cannot be reached.
        """
        with hold(self.folder), Lease(self.objects, self.folder) as lease:
            before, looked = self._published, self._current
            if self.look() != before or self._current != looked:
                raise StoreBusyError(
                    f"{self.uri}: {self._published} was published while this run began; run again"
                )
            self._prune()
            self._lease = lease
            try:
                yield
            finally:
                self._lease = None

    def publish(self, manifest: Mapping[str, Any]) -> None:
        """Push a snapshot that is finished in the mirror, and publish it.

        Raises:
            StoreBusyError: Another run took the store over, or published meanwhile; CURRENT is as
                that run left it.
            ObjectStoreError: The store cannot be reached; the same run can be continued.
        """
        self._confirm()
        name = str(manifest["name"])
        path = snapshot.manifest_path(name)
        if name != self._published and self.objects.read(path) is not None:
            self.objects.delete([path])  # left by a push that was cut off before CURRENT
        self._push(manifest)
        record = snapshot.write_manifest(self.folder, manifest)
        self._confirm()
        try:
            self.objects.replace_if(path, (self.folder / record.path).read_bytes(), None)
        except ConflictError as error:
            raise self._overtaken(name) from error
        self.point(name)
        self._remember(
            {**self._known(), **{line["path"]: line["sha256"] for line in manifest["files"]}}
        )

    def point(self, name: str) -> None:
        """Make a snapshot that is on the store the published one, unless another was since.

        Raises:
            StoreBusyError: CURRENT is not what it was when this run began.
        """
        self._confirm()
        text = f"{name}\n".encode()
        try:
            self._current = self.objects.replace_if(snapshot.CURRENT, text, self._current)
        except ConflictError as error:
            raise self._overtaken(name) from error
        self._published = name
        snapshot.point(self.folder, name)

    def follow(self) -> None:
        """Publish the snapshot that the mirror publishes: after `rollback` there.

        Raises:
            StoreBusyError: Another was published meanwhile.
            ObjectStoreError: Files of the snapshot are not there.
        """
        name = snapshot.current(self.folder)
        if name is not None and name != self._published:
            lost = self.missing(snapshot.read_manifest(self.folder, name))
            if lost:
                snapshot.point(self.folder, self._published or name)
                raise ObjectStoreError(
                    f"{self.uri}: cannot go back to {name}, {len(lost)} of its files are not "
                    f"there: {lost[0]}"
                )
            self.point(name)

    def missing(self, manifest: Mapping[str, Any]) -> list[str]:
        """Files of a snapshot that the store does not have, or has in another size."""
        sizes = {entry.path: entry.bytes for entry in self.objects.entries()}
        return [
            line["path"] for line in manifest["files"] if sizes.get(line["path"]) != line["bytes"]
        ]

    def sweep(self) -> tuple[int, int]:
        """Remove there what no snapshot here lists: after `gc` of the mirror; (files, bytes)."""
        names = snapshot.names(self.folder)
        kept = {snapshot.CURRENT, *(snapshot.manifest_path(name) for name in names)}
        for name in names:
            kept.update(line["path"] for line in snapshot.read_manifest(self.folder, name)["files"])
        found = [
            entry
            for entry in self.objects.entries()
            if entry.path not in kept and not entry.path.startswith("runs/")
        ]
        self.remove(entry.path for entry in found)
        return len(found), sum(entry.bytes for entry in found)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files there and here, manifests first, so that nothing is listed that is gone."""
        self._confirm()
        asked = list(paths)
        manifests = [path for path in asked if path.endswith("/manifest.json")]
        for part in (manifests, [path for path in asked if not path.endswith("/manifest.json")]):
            self.objects.delete(part)
            for path in part:
                (self.folder / path).unlink(missing_ok=True)

    # --- how ------------------------------------------------------------------------------------

    def _push(self, manifest: Mapping[str, Any]) -> None:
        """Upload what the published snapshot does not list already."""
        name, listed = manifest["name"], set()
        for other in snapshot.names(self.folder):
            lines = snapshot.read_manifest(self.folder, other)["files"] if other != name else []
            listed |= {(line["path"], line["sha256"]) for line in lines}
        taken = {path: sha256 for path, sha256 in listed}
        new = [line for line in manifest["files"] if (line["path"], line["sha256"]) not in listed]
        size = sum(line["bytes"] for line in new)
        self._say(f"push: {len(new):,} files, {size / 1e6:,.1f} MB, to {self.uri}")

        def push(line: Manifest) -> None:
            path = line["path"]
            if path in taken:
                raise ObjectStoreError(
                    f"{self.uri}/{path}: another snapshot has it with other contents "
                    f"({taken[path]}, here {line['sha256']}); a file is never changed"
                )
            record = FileRecord(path, line["sha256"], line["bytes"])
            if self.objects.written(path) != record:  # else pushed by a run that was cut off
                self.objects.upload(self.folder / path, record)

        for _ in all_at_once(push, new):
            pass

    def _prune(self) -> None:
        """Remove what was fetched and no snapshot lists any more, and what was half fetched."""
        names = snapshot.names(self.folder)
        listed = {
            line["path"]
            for name in names
            for line in snapshot.read_manifest(self.folder, name)["files"]
        }
        known = self._known()
        for path in known.keys() - listed:
            (self.folder / path).unlink(missing_ok=True)
        self._remember({path: known[path] for path in known.keys() & listed})
        for part in self.folder.rglob(".*.part"):
            if time.time() - part.stat().st_mtime > _ABANDONED_S:
                part.unlink(missing_ok=True)

    def _confirm(self) -> None:
        assert self._lease is not None, "a store is written to while it is held"
        self._lease.confirm()

    def _overtaken(self, name: str) -> StoreBusyError:
        there = self.objects.read(snapshot.CURRENT)
        by = there.data.decode("utf-8", "replace").strip() if there else "nothing"
        return StoreBusyError(
            f"{self.uri}: {by} was published by another run meanwhile, and {name} is not; run again"
        )
