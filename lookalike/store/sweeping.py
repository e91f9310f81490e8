"""Removing every file of a store that nothing needs.

A snapshot's manifest goes before its files, so that one that can be read can be read whole. Links
are never followed: a link in the way is removed itself, and what it points to stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lookalike.errors import RequestError
from lookalike.store import snapshot
from lookalike.store.storage import fsync_folder, read_json
from lookalike.store.tree import entries, is_temporary, remove_if_empty, walk

_OF_RUNS = ("embeddings", "index")  # files there bear the name of the run that wrote them
_SHARED = ("models", "templates")  # those there are named by what is in them
_FOLDERS = (*_OF_RUNS, *_SHARED, "snapshots", "runs")


@dataclass
class Swept:
    """What was removed, or with `dry_run` would be.

    Attributes:
        dry_run: Whether nothing was done.
        snapshots: Names of those removed.
        files: Files removed, all kinds.
        bytes: Their sizes together.
        paths: Those files, relative to the store.
    """

    dry_run: bool = False
    snapshots: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    paths: list[str] = field(default_factory=list)


def sweep(
    store: Path,
    snapshots: Collection[str],
    needed: Iterable[str],
    runs: Collection[str],
    *,
    dry_run: bool = False,
) -> Swept:
    """Remove all that is in the store's folders but for what is named.

    Args:
        store: The store's root; the caller holds it.
        snapshots: Names of those that stay.
        needed: Paths of the files that they list.
        runs: Unfinished runs whose scratch and files stay.
        dry_run: Whether to say only what would go.
    """
    swept = Swept(dry_run)
    kept = {str(PurePosixPath(path)) for path in needed}
    kept |= {snapshot.manifest_path(name) for name in snapshots}
    manifests = [
        path for path in walk(store, "snapshots")
        if path not in kept and path == snapshot.manifest_path(PurePosixPath(path).parts[1])
    ]  # fmt: skip
    swept.snapshots = [PurePosixPath(path).parts[1] for path in manifests]
    for path in manifests:
        _remove(store, path, swept)
        if not dry_run:
            fsync_folder((store / path).parent)  # gone for good before its files are
    for path in list(_unneeded(store, kept.union(manifests), runs)):
        _remove(store, path, swept)
    if not dry_run:
        _remove_empty_folders(store, runs)
    return swept


def sweep_run(store: Path, run: str, needed: Collection[str]) -> None:
    """Remove a run's files that nothing names.

    Where a manifest cannot be read, so that it is not known which it lists, they stay, for `gc`.

    Args:
        store: The store's root; the caller holds it.
        run: Its name.
        needed: Paths of files that stay, beside those that finished snapshots list.
    """
    found = [
        path
        for folder in _OF_RUNS
        for path in walk(store, folder)
        if f"{run}-" in PurePosixPath(path).name and path not in needed
    ]
    if not found:
        return
    try:
        listed = {
            str(line["path"])
            for name in snapshot.names(store)
            for line in snapshot.read_manifest(store, name)["files"]
        }
    except RequestError:
        return
    for path in found:
        if path not in listed and not is_temporary(PurePosixPath(path).name):
            _remove(store, path, Swept())


def unfinished(store: Path) -> list[str]:
    """Names of the runs that can be continued: a note lies beside the folder they began in."""
    return [
        entry.name
        for entry in entries(store / "runs")
        if entry.is_dir(follow_symlinks=False) and _note_of(store, entry.name) is not None
    ]


def _note_of(store: Path, run: str) -> dict[str, Any] | None:
    """What a run to be continued says of itself: its plan, or what `forget` found."""
    for entry in entries(store / "runs" / run):
        if entry.is_file(follow_symlinks=False) and entry.name.endswith(".json"):
            return dict(read_json(store / "runs" / run / entry.name))
    return None


def _unneeded(store: Path, kept: Collection[str], runs: Collection[str]) -> Iterator[str]:
    notes = {run: _note_of(store, run) or {} for run in runs}
    begun = {run: note.get("begun") for run, note in notes.items()}
    pending = {note.get("snapshot") for note in notes.values()}
    for folder in _FOLDERS:
        for path in walk(store, folder):
            parts = PurePosixPath(path).parts
            if path in kept or path == "runs/lock":
                continue
            # No one writes now: what is half written is a dead run's.
            if is_temporary(parts[-1]) or not _of_a_run(parts, begun, pending):
                yield path
    for entry in entries(store):
        if is_temporary(entry.name) and not entry.is_dir(follow_symlinks=False):
            yield entry.name


def _of_a_run(
    parts: tuple[str, ...], runs: Mapping[str, str | None], pending: Collection[str | None]
) -> bool:
    """Whether a file is, or may be, one that an unfinished run has made.

    Args:
        parts: Of the file's path.
        runs: The unfinished runs' names, and where each began.
        pending: Names of the snapshots that they are going to publish.
    """
    if parts[0] in _OF_RUNS:
        return any(run in parts[-1] for run in runs)
    if parts[0] in _SHARED:  # whose they are is not in their names
        return bool(runs)
    if parts[0] == "runs":
        return parts[1] in runs and (len(parts) == 3 or parts[2] == runs[parts[1]])
    return parts[1] in pending


def _remove(store: Path, path: str, swept: Swept) -> None:
    try:
        size = (store / path).lstat().st_size
        if not swept.dry_run:
            (store / path).unlink()
    except FileNotFoundError:
        return
    swept.files += 1
    swept.bytes += size
    swept.paths.append(path)


def _remove_empty_folders(store: Path, runs: Collection[str]) -> None:
    """Folders that hold no file any more, but for the store's own and those of unfinished runs."""
    for folder in _FOLDERS:
        for entry in entries(store / folder):
            kept = folder == "runs" and entry.name in runs
            if entry.is_dir(follow_symlinks=False) and not kept:
                remove_if_empty(store / folder / entry.name)
