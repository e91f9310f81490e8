"""A snapshot while it is open: its files checked, its index mapped, and another gone to.

`OpenSnapshot` is what a `Searcher` stands on. Threads may share one: `refresh` and `close` change
what later work sees, and work that is under way ends in the snapshot in which it began.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.distances import Ids
from lookalike.errors import RequestError, one_line
from lookalike.ivf.selections import Selection, difference
from lookalike.ivf.trained_index import TRAINED_FILE, TrainedIndex, load_trained_index
from lookalike.models import forks as forks  # sees to it that forks are noticed from now on
from lookalike.parallel import run_all
from lookalike.search.filters import Filters
from lookalike.search.query_images import load_embedder
from lookalike.search.vector_index import VectorIndex
from lookalike.store import living
from lookalike.store import snapshot as snapshots
from lookalike.store.cached import HELD
from lookalike.store.duplicates import DuplicateReader
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store, open_store
from lookalike.store.vector_reader import VectorReader

if TYPE_CHECKING:
    from typing_extensions import Self

    from lookalike.models.embedder import Embedder
    from lookalike.models.features import Feature
    from lookalike.models.projection import Projection

_OF_MODELS = ("features", "metric", "model_fingerprint", "preprocessing_fingerprint")
_READ_KINDS = ("embedding", "index", "template", "duplicates", "tombstones")  # when searching


def _half_of_memory() -> int:
    """Of this machine, in bytes: what a process that does nothing but search may show."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class SnapshotGoneError(RequestError):
    """The snapshot that is open has been removed from the store."""


class OpenSnapshot:
    """A snapshot that is open; closes itself at the end of a `with` block.

    Attributes:
        manifest: As published.
        metric: cosine, inner_product, l2 or jaccard.
        count: Vectors that can be found: those in the snapshot, less the forgotten ones.
        spec: What its index is.
        index: The index itself, without the store's defaults.
        living: The rows that searches may return, where that is not all in the snapshot.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        *,
        check: bool = False,
        resident: int = 0,
    ) -> None:
        """Open the snapshot that a manifest describes, published or not.

        Args:
            store: The store's root.
            manifest: Of the snapshot.
            check: Whether to compare every file's sha256 first.
            resident: Bytes of stored vectors to keep mapped (see `VectorReader`).

        Raises:
            RequestError: A file is missing, of another size or, with `check`, of another sha256
                than the manifest says; or an index shard does not belong to the trained index.
        """
        self.store = store
        self.manifest: Manifest = {**manifest}
        self._manifest_path = snapshots.manifest_path(str(manifest.get("name")))
        self._finished = store.has(self._manifest_path)  # or it is about to be
        self._opened_as: dict[str, Any] = {"store": store.name, "check": check}
        self.dim, self.metric = int(manifest["dim"]), str(manifest["metric"])
        self._check_files(contents=check)
        lines = snapshots.files_of(manifest, "embedding")
        self._files = {int(line["file_no"]): str(line["path"]) for line in lines}
        self._reader = VectorReader(self.store, self._files, resident)
        self._forgotten = living.deleted_ids(self.store, manifest)
        self.count = sum(int(line["rows"]) for line in lines) - len(self._forgotten)
        forgotten = self._forgotten
        self.living = Selection(forgotten, inverted=True) if len(forgotten) else None
        trained, lines = self._trained(), snapshots.files_of(manifest, "index")
        paths = self._fetched([line["path"] for line in lines])
        self.index = VectorIndex(trained, paths, self._reader, self.living)
        self.spec = self.index.spec
        if (self.spec.dim, self.spec.metric) != (self.dim, self.metric):
            raise RequestError(
                f"{self.store}: the index is for {self.spec.dim} components and "
                f"{self.spec.metric}, the manifest says {self.dim} and {self.metric}; index again"
            )
        self._filters = Filters(self.store, self._files, self._forgotten)
        self._embedder: Embedder | None = None
        self._lock, self._refreshing, self._pid = Lock(), Lock(), os.getpid()

    def _fetched(self, paths: Sequence[str]) -> Iterator[Path]:
        """Files to map, fetched some at a time: those stay till the next ones are asked for."""
        for start in range(0, len(paths), HELD):
            yield from self.store.at_once(self.store.local, paths[start : start + HELD])

    @classmethod
    def open(
        cls,
        store: str | os.PathLike[str],
        snapshot: str | None = None,
        *,
        features: Sequence[Feature] | None = None,
        projection: Projection | None = None,
        check: bool = False,
        cache: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Open a published snapshot; see `lookalike.open`."""
        place = open_store(store, cache)
        while True:
            published = snapshots.current(place) if place.is_there() else None
            try:
                opened = cls._open(place, snapshot or published, features, projection, check)
            except (RequestError, OSError):
                # Another snapshot was published meanwhile, and the files of this one may be gone.
                if snapshot is not None or snapshots.current(place) == published:
                    raise
            else:
                asked = {
                    "store": place.name,
                    "features": features,
                    "projection": projection,
                    "check": check,
                    "cache": None if cache is None else os.path.abspath(cache),
                }
                opened._opened_as = asked
                return opened

    @classmethod
    def _open(
        cls,
        store: Store,
        snapshot: str | None,
        features: Sequence[Feature] | None,
        projection: Projection | None,
        check: bool,
    ) -> Self:
        manifest = snapshots.read_manifest(store, snapshot)
        if features is not None:
            from lookalike.models.features import model_fingerprint

            given = model_fingerprint(features, manifest["metric"], projection)
            if given != manifest["model_fingerprint"]:
                raise RequestError(
                    f"{store}: its vectors come from model {manifest['model_fingerprint']}, the "
                    f"features given are {given}; their vectors do not compare: use the features "
                    "of the store, or index again with these"
                )
        if check:
            for problem in snapshots.check_manifest(manifest):
                raise RequestError(f"{store}: {problem}; run: lookalike verify")
        return cls(store, manifest, check=check, resident=_half_of_memory())

    # --- while it is open -------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Self]:
        """This searcher as it is now, whatever `refresh` and `close` do in other threads meanwhile.

        Raises:
            RequestError: It is closed, or its snapshot was removed, before the work or during it.
        """
        now = self.pinned()
        now._check_there()
        try:
            yield now
        except (OSError, RequestError) as error:
            now._check_there()
            if isinstance(error, RequestError):
                raise
            raise RequestError(
                f"{now.store}: a file cannot be read: {one_line(error)}; run: lookalike verify"
            ) from error

    def pinned(self) -> Self:
        """This searcher as it is now, for work of several steps: `refresh` and `close` pass it by.

        Raises:
            RequestError: It is closed.
        """
        now = object.__new__(type(self))
        now.__dict__ = self.__dict__  # the same one: what is read later on stays for all
        now._check_open()
        return now

    def _check_open(self) -> None:
        if "_reader" not in self.__dict__:
            raise RequestError(f"{self!r}: open the store again: lookalike.open")

    def _check_there(self) -> None:
        if self._finished and not self.store.has(self._manifest_path):
            raise SnapshotGoneError(
                f"{self.store}: snapshot {self.manifest['name']} was removed since it was opened "
                "(gc or forget), and its rows may be gone; go to the published one: "
                "searcher.refresh(), or lookalike.open"
            )

    def refresh(self) -> bool:
        """Go to the store's published snapshot, whichever was opened; models stay if they may.

        Searches of other threads that are under way end in the snapshot in which they began.

        Returns:
            Whether that is another snapshot than before.

        Raises:
            RequestError: As `lookalike.open`; or the searcher is closed. It stays as it was.
        """
        self._check_open()
        with self._refreshing:
            opened_as, name = self._opened_as, self.manifest.get("name")
            if self._finished and name == snapshots.current(self.store):
                self._check_there()
                return False
            fresh = type(self).open(**opened_as)
            if self._finished and fresh.manifest["name"] == name:
                return False
            if all(fresh.manifest.get(key) == self.manifest.get(key) for key in _OF_MODELS):
                fresh._embedder = self._embedder
            self.__dict__ = fresh.__dict__  # at once, for whoever begins to read
            return True

    def close(self) -> None:
        """Let go of files, index and models; searches under way end, and later ones are refused."""
        kept = ("store", "manifest", "dim", "metric", "count")
        self.__dict__ = {name: self.__dict__[name] for name in kept}

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = "" if "_reader" in self.__dict__ else ", closed"
        kind, snapshot = type(self).__name__, self.manifest.get("name")
        return (
            f"{kind}(store={str(self.store)!r}, snapshot={snapshot!r}, "
            f"rows={self.count}, metric={self.metric!r}{closed})"
        )

    def _check_files(self, contents: bool) -> None:
        """Files are checked before anything reads them: Faiss's formats have no checksum."""
        if contents:
            # Hashing takes all cores, so that the largest files had better come first.
            lines = sorted(self.manifest["files"], key=lambda line: -int(line["bytes"]))
            problems: Iterable[snapshots.Problem | None] = run_all(
                lambda line: next(snapshots.check_file(self.store, line), None), lines
            )
        else:
            lines = [line for line in self.manifest["files"] if line["kind"] in _READ_KINDS]
            problems = snapshots.check_sizes(self.store, lines)
        for problem in filter(None, problems):
            raise RequestError(f"{self.store}: {problem}; run: lookalike verify")

    def duplicated(self) -> Ids:
        """Ids (n,) of the living rows that have other names of the same bytes, ascending."""
        parts = [np.empty(0, np.int64), *self._duplicates.ids()]
        return difference(np.sort(np.concatenate(parts)), self._forgotten)

    @cached_property
    def _duplicates(self) -> DuplicateReader:
        lines = snapshots.files_of(self.manifest, "duplicates")
        return DuplicateReader(
            self.store, [line["path"] for line in lines]
        )  # reads footers, so not on opening

    def _trained(self) -> TrainedIndex:
        lines = snapshots.files_of(self.manifest, "template")
        paths = [one["path"] for one in lines if PurePosixPath(one["path"]).name == TRAINED_FILE]
        if len(paths) != 1:
            raise RequestError(
                f"{self.store}: the manifest names {len(paths)} trained indexes, not 1"
            )
        folder = str(PurePosixPath(paths[0]).parent)
        return load_trained_index(
            self.store.local_folder(folder), self.manifest["index"]["template"]
        )

    @property
    def metadata_schema(self) -> Any:
        """Arrow schema of the metadata columns."""
        return self._reader.metadata_schema()

    @property
    def embedder(self) -> Embedder:
        """The models that made the stored vectors, loaded once.

        Raises:
            RequestError: The snapshot was made with another preprocessing, or without models; or
                TensorFlow runs them, and this process is a fork of one that had started it.
        """
        if self._pid != os.getpid():  # a thread of the parent may have held the lock for ever
            self._lock, self._pid = Lock(), os.getpid()
        with self._lock:
            if self._embedder is None:
                self._embedder = load_embedder(self.store, self.manifest)
            return self._embedder
