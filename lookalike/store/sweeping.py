"""Removing every file of a store that nothing needs.

A snapshot's manifest goes before its files, so that one that can be read can be read whole. Links
are never followed: a link in the way is removed itself, and what it points to stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

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


def _unneeded(store: Path, kept: Collection[str], runs: Collection[str]) -> Iterator[str]:
    pending = {_planned_snapshot(store, run) for run in runs}
    for folder in _FOLDERS:
        for path in walk(store, folder):
            parts = PurePosixPath(path).parts
            if path in kept or path == "runs/lock":
                continue
            # No one writes now: what is half written is a dead run's.
            if is_temporary(parts[-1]) or not _of_a_run(parts, runs, pending):
                yield path
    for entry in entries(store):
        if is_temporary(entry.name) and not entry.is_dir(follow_symlinks=False):
            yield entry.name


def _of_a_run(
    parts: tuple[str, ...], runs: Collection[str], pending: Collection[str | None]
) -> bool:
    """Whether a file is, or may be, one that an unfinished run has made."""
    if parts[0] in _OF_RUNS:
        return any(run in parts[-1] for run in runs)
    if parts[0] in _SHARED:  # whose they are is not in their names
        return bool(runs)
    return parts[1] in (runs if parts[0] == "runs" else pending)


def _planned_snapshot(store: Path, run: str) -> str | None:
    """The name of the snapshot that an unfinished run is going to publish."""
    path = store / "runs" / run / "plan.json"
    return str(read_json(path)["snapshot"]) if path.is_file() else None


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
