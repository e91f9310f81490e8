"""A store that is looked at by many at once: searches and pictures in bounded pools of threads.

A snapshot that is published meanwhile is gone to by a thread of its own. A request keeps to the one
in which it began; where that is removed under it, it begins again in the published one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Lock, Thread
from typing import Any, TypeVar

import numpy as np

from lookalike.distances import Ids, Scores
from lookalike.errors import RequestError, one_line
from lookalike.parallel import cores
from lookalike.search.neighbour import Neighbours
from lookalike.search.opened import SnapshotGoneError
from lookalike.search.searcher import Searcher
from lookalike.serve import browsing
from lookalike.serve.limits import Limits, RefusedError
from lookalike.serve.near_copies import NearCopies, near_copies
from lookalike.serve.pictures import Pictures
from lookalike.serve.query import Asked
from lookalike.serve.searches import Render, Searches, in_pool
from lookalike.serve.thumbnails import Original, Thumbnails, original_of
from lookalike.serve.uploads import Uploads
from lookalike.store.recent import Recent

_log = logging.getLogger(__name__)
_WATCH_S = 2.0  # between looks at what is published
_LEAVE_S = 2.0  # for a look that is under way, at the end
_TRIES = 3  # of a request whose snapshot is removed under it
_OF_ANSWERS = ("query_uri", "rank", "score")
_KEPT = 8  # counts of folders, samples of outliers, and of near-copies

Result = TypeVar("Result")


class Explorer:
    """What the API answers; it owns the searcher, and closes it.

    Attributes:
        thumbnails: Of pictures of the store and of those.
        refreshed: How often another snapshot was gone to.
        problem: Why the published snapshot cannot be gone to; "" where it can.
    """

    def __init__(self, searcher: Searcher, limits: Limits) -> None:
        self.searcher, self.limits = searcher, limits
        threads = max(2, cores())
        self.uploads = Uploads(limits.kept_bytes)
        self.thumbnails = Thumbnails(limits, threads)
        self._pictures = Pictures(self.uploads, limits, threads)
        self._searching, self._decoding, self._showing, self._looking = self._pools = [
            ThreadPoolExecutor(count, f"serve-{what}")
            for what, count in (
                ("search", threads),
                ("decode", threads),
                ("show", 2 * threads),
                ("look", 2),
            )
        ]
        self._searches = Searches(self._searching, self._decoding, self._pictures, threads)
        self._counting = Lock()  # of what follows: it is dear, so that one thread does it for all
        self._folders: Recent[str, Mapping[str, int]] = Recent(_KEPT)
        self._outliers: Recent[tuple[str, int, str | None], tuple[browsing.Listing, Scores]] = (
            Recent(_KEPT)
        )
        self._near: Recent[tuple[str, float | None, str | None], NearCopies] = Recent(_KEPT)
        self.refreshed, self.problem = 0, ""
        self._over = Event()
        self._watcher = Thread(target=self._watch, name="serve-watch", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Let go of everything; what is under way may fail."""
        self._over.set()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        self._pictures.close()
        self.thumbnails.close()
        self._watcher.join(_LEAVE_S)
        self.uploads.close()
        self.searcher.close()

    def _watch(self) -> None:
        """Start decoders and load models before they are needed; then follow what is published."""
        self.thumbnails.start()
        if self.searcher.manifest.get("features"):
            try:
                self.searcher.pinned().embedder  # noqa: B018
            except Exception as error:  # a picture that is asked for tells it again
                _log.warning("pictures cannot be embedded: %s", one_line(error))
        while not self._over.wait(_WATCH_S):
            self.refresh()

    def refresh(self) -> bool:
        """Go to the published snapshot; where that cannot be, say why and stay."""
        try:
            new = self.searcher.refresh()
        except Exception as error:  # the next look may find it whole
            if self.problem != (problem := one_line(error)):
                _log.warning("stays with snapshot %s: %s", self.searcher.manifest["name"], problem)
            self.problem = problem
            return False
        self.problem = ""
        self.refreshed += new
        if new:
            _log.info("snapshot %s", self.searcher.manifest["name"])
        return new

    # --- threads ----------------------------------------------------------------------------------

    async def _settled(self, ask: Callable[[Searcher], Awaitable[Result]]) -> Result:
        """What is answered of one snapshot, whichever is published in the end."""
        for _ in range(_TRIES):
            try:
                return await ask(self.searcher.pinned())
            except SnapshotGoneError:
                await in_pool(self._searching, self.refresh)
        raise RefusedError(503, "the snapshot is being replaced; try again", {"Retry-After": "2"})

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """What some work gives that needs no snapshot."""
        return await in_pool(self._searching, work)

    async def read(self, work: Callable[[Searcher], Result]) -> Result:
        """What some work finds in the snapshot, done beside the searches, which it may outlast."""
        return await self._settled(lambda now: in_pool(self._looking, partial(work, now)))

    # --- queries ----------------------------------------------------------------------------------

    async def search(self, asked: Asked, render: Render[Result]) -> Result:
        """What `render` makes of the answer to a query (see `Searches.ask`)."""
        return await self._settled(lambda now: self._searches.ask(now, asked, render))

    # --- rows and pictures ------------------------------------------------------------------------

    async def thumbnail(self, row: int, side: int) -> bytes:
        """A JPEG of a row's picture (see `Thumbnails.of_row`)."""
        uri, sha256 = await self._row(row)
        return await in_pool(self._showing, partial(self.thumbnails.of_row, uri, sha256, side))

    async def uploaded_thumbnail(self, digest: str, side: int) -> bytes:
        """A JPEG of a picture that was uploaded."""
        path = str(self.uploads.path(digest))
        return await in_pool(self._showing, partial(self.thumbnails.of_file, path, digest, side))

    async def original(self, row: int) -> Original:
        """A row's file as it is (see `original_of`)."""
        uri, sha256 = await self._row(row)
        return await in_pool(self._showing, partial(original_of, uri, sha256, self.limits))

    async def _row(self, row: int) -> tuple[str, bytes | None]:
        """A row's name and the sha256 of its file.

        Raises:
            RefusedError: There is no such row.
        """

        def read(now: Searcher) -> tuple[str, bytes | None]:
            found = _row_of(now, row, ["uri", "content_sha256"])
            return str(found["uri"]), found["content_sha256"]

        return await self._settled(lambda now: in_pool(self._showing, partial(read, now)))

    async def image(self, row: int) -> dict[str, Any]:
        """All that is known of a row, with its metadata and the other names of its bytes.

        Raises:
            RefusedError: There is no such row.
        """

        def read(now: Searcher) -> dict[str, Any]:
            own = _row_of(now, row, ["width", "height", "format", "bytes"])
            [found] = described(now, np.array([row], np.int64))
            told = {k: v for k, v in found.to_dict().items() if k not in _OF_ANSWERS}
            return {**own, **told, "snapshot": now.manifest["name"]}

        return await self.read(read)

    def folders(self, now: Searcher) -> Mapping[str, int]:
        """Rows by folder, counted once for a snapshot."""
        name = str(now.manifest["name"])
        with self._counting:
            found = self._folders.get(name)
            if found is None:
                found = browsing.count_folders(now, self.limits.folder_rows)
                self._folders.put(name, found)
        return found

    def outliers(
        self, now: Searcher, seed: int, where: str | None
    ) -> tuple[browsing.Listing, Scores]:
        """Rows of a sample that are like no other (see `browsing.outliers`), kept for a while."""
        key = (str(now.manifest["name"]), seed, where)
        with self._counting:
            found = self._outliers.get(key)
            if found is None:
                found = browsing.outliers(now, browsing.SAMPLE, seed, where)
                self._outliers.put(key, found)
        return found

    def near_copies(self, now: Searcher, threshold: float | None, where: str | None) -> NearCopies:
        """Groups of near-copies of a sample (see `near_copies`), kept for a while."""
        key = (str(now.manifest["name"]), threshold, where)
        with self._counting:
            found = self._near.get(key)
            if found is None:
                found = near_copies(now, threshold, where)
                self._near.put(key, found)
        return found


def _row_of(now: Searcher, row: int, columns: list[str]) -> dict[str, Any]:
    try:
        return dict(now.rows([row], columns).to_pylist()[0])
    except SnapshotGoneError:
        raise
    except RequestError as error:
        raise RefusedError(404, str(error)) from error


def described(now: Searcher, ids: Ids, scores: Scores | None = None) -> Neighbours:
    """Rows (n,) with names, duplicates and metadata, in their order."""
    values = np.zeros(len(ids), np.float32) if scores is None else scores
    [found] = now.describe([""], ids[None], values[None])
    return found
