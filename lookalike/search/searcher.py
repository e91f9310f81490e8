"""Open a snapshot and search it, by pictures or by vectors.

Searching does not change a `Searcher`, so threads may share one. `refresh` goes to another
snapshot for the searches that begin afterwards; those under way end in the old one. TensorFlow is
loaded only when pictures are embedded, never for vectors.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import pyarrow as pa

from lookalike.errors import RequestError, one_line
from lookalike.images.cropping import asked_crop
from lookalike.ivf.selections import Selection
from lookalike.ivf.template import TEMPLATE_FILE, Template, load_template
from lookalike.metrics import Ids, Scores, Vectors, check_vectors
from lookalike.models import forks as forks  # sees to it that forks are noticed from now on
from lookalike.parallel import run_all
from lookalike.search.answering import Index, Request, answer
from lookalike.search.asked import (
    Exclude,
    Images,
    asked_exclusions,
    asked_ids,
    asked_images,
    asked_vectors,
)
from lookalike.search.choosing import Chooser, check_group
from lookalike.search.filters import Filters
from lookalike.search.like import asked_rows, rows_named, split_unlike
from lookalike.search.neighbour import Neighbour, Neighbours
from lookalike.search.queries import Answers, Queries
from lookalike.search.query_images import embed_images, load_embedder
from lookalike.search.reranking import exact_depth
from lookalike.search.vector_index import VectorIndex
from lookalike.search.ways import Blender, Ways, asked_ways
from lookalike.store import living, shards
from lookalike.store import snapshot as snapshots
from lookalike.store.cached import HELD
from lookalike.store.duplicates import DuplicateReader
from lookalike.store.objects import Store, open_store
from lookalike.whole_numbers import whole_number

if TYPE_CHECKING:
    from lookalike.models.features import Embedder, Feature
    from lookalike.models.projection import Projection

_COLUMNS = frozenset(shards.COLUMNS)  # the others are metadata
_OF_MODELS = ("features", "metric", "model_fingerprint", "preprocessing_fingerprint")
_RERANK_PER_K = 10
_NPROBE = 16
_READ_KINDS = ("embedding", "index", "template", "duplicates", "tombstones")  # when searching


def _half_of_memory() -> int:
    """Of this machine, in bytes: what a process that does nothing but search may show."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class Searcher:
    """A snapshot, open for searching; closes itself at the end of a `with` block.

    Attributes:
        store: The store.
        manifest: As published.
        dim: Components of a vector.
        metric: cosine, inner_product, l2 or jaccard.
        count: Vectors that can be found: those in the snapshot, less the forgotten ones.
        spec: What its index is.
        index: The index itself, without the store's defaults.
        living: The rows that searches may return, where that is not all in the snapshot.
    """

    def __init__(
        self,
        store: Store,
        manifest: Mapping[str, Any],
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
                than the manifest says; or an index shard does not belong to the template.
        """
        self.store, self.manifest = store, dict(manifest)
        self._manifest_path = snapshots.manifest_path(str(manifest.get("name")))
        self._finished = store.has(self._manifest_path)  # or it is about to be
        self._opened_as: dict[str, Any] = {"store": store.name, "check": check}
        self.dim, self.metric = int(manifest["dim"]), str(manifest["metric"])
        self._check_files(contents=check)
        lines = snapshots.files_of(manifest, "embedding")
        self._files = {int(line["file_no"]): str(line["path"]) for line in lines}
        self._reader = shards.VectorReader(self.store, self._files, resident)
        self._forgotten = living.deleted_ids(self.store, manifest)
        self.count = sum(int(line["rows"]) for line in lines) - len(self._forgotten)
        forgotten = self._forgotten
        self.living = Selection(forgotten, inverted=True) if len(forgotten) else None
        template, lines = self._template(), snapshots.files_of(manifest, "index")
        paths = self._fetched([line["path"] for line in lines])
        self.index = VectorIndex(template, paths, self._reader, self.living)
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
    ) -> Searcher:
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
                    "store": place.name, "features": features, "projection": projection,
                    "check": check, "cache": None if cache is None else os.path.abspath(cache),
                }  # fmt: skip
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
    ) -> Searcher:
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
    def _reading(self) -> Iterator[Searcher]:
        """This searcher as it is now, whatever `refresh` and `close` do in other threads meanwhile.

        Raises:
            RequestError: It is closed, or its snapshot was removed, before the work or during it.
        """
        now = object.__new__(type(self))
        now.__dict__ = self.__dict__  # the same one: what is read later on stays for all
        now._check_open()
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

    def _check_open(self) -> None:
        if "_reader" not in self.__dict__:
            raise RequestError(f"{self!r}: open the store again: lookalike.open")

    def _check_there(self) -> None:
        if self._finished and not self.store.has(self._manifest_path):
            raise RequestError(
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
            fresh = Searcher.open(**opened_as)
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

    def __enter__(self) -> Searcher:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        closed = "" if "_reader" in self.__dict__ else ", closed"
        return (
            f"Searcher(store={str(self.store)!r}, snapshot={self.manifest.get('name')!r}, "
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

    @cached_property
    def _duplicates(self) -> DuplicateReader:
        lines = snapshots.files_of(self.manifest, "duplicates")
        return DuplicateReader(
            self.store, [line["path"] for line in lines]
        )  # reads footers, so not on opening

    def _template(self) -> Template:
        lines = snapshots.files_of(self.manifest, "template")
        paths = [one["path"] for one in lines if PurePosixPath(one["path"]).name == TEMPLATE_FILE]
        if len(paths) != 1:
            raise RequestError(f"{self.store}: the manifest names {len(paths)} templates, not 1")
        folder = str(PurePosixPath(paths[0]).parent)
        return load_template(self.store.local_folder(folder), self.manifest["index"]["template"])

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

    def embed(self, images: Images, crop: Any = None) -> Vectors:
        """Vectors (n, dim) float32 of pictures, made as the stored ones were.

        Args:
            images: See `search`.
            crop: See `search`.

        Raises:
            RequestError: See `embedder`; or a picture cannot be read or embedded.
        """
        with self._reading() as now:
            return now._embed(images, crop).vectors

    def _embed(self, images: Images, crop: Any = None) -> Queries:
        pictures, part = asked_images(images), asked_crop(crop)
        return embed_images(pictures, lambda: self.embedder, self.dim, part)

    def like(self, rows: Any) -> Queries:
        """Rows of the store as queries: nothing is decoded.

        Args:
            rows: Uris or ids, one or any iterable; another name of the same bytes will do.

        Raises:
            RequestError: There is no such row; or see `search`.
        """
        with self._reading() as now:
            return now._like(rows)

    def _like(self, like: Any) -> Queries:
        wanted = asked_rows(like)
        names = list(dict.fromkeys(one for one in wanted if isinstance(one, str)))
        rows = _Rows(self)
        found = rows_named(self.store, self._files, self._duplicates, names, rows.uris)
        by_name: dict[str, int] = {}
        for name, own in found.items():
            left = np.setdiff1d(np.array(own, dtype=np.int64), self._forgotten)
            if not len(left):
                raise RequestError(
                    f"like: {name} is no picture of this snapshot; give a uri as answers show it, "
                    "or the picture itself in place of its name"
                )
            by_name[name] = int(left[0])
        ids = asked_ids("like", [by_name[o] if isinstance(o, str) else o for o in wanted])
        table = self.rows(ids, ["uri", "content_sha256"])
        uris, hashes = table["uri"].to_pylist(), table["content_sha256"].to_pylist()
        shown = [
            one if isinstance(one, str) else uri for one, uri in zip(wanted, uris, strict=True)
        ]
        vectors = self._reader.vectors(ids).reshape(len(ids), self.dim)
        return Queries(shown, vectors, uris, hashes)

    def unlike(self, pictures: Any) -> Vectors:
        """Vectors (n, dim) of what answers shall be unlike: pictures, or ids of rows.

        Raises:
            RequestError: See `search`.
        """
        with self._reading() as now:
            ids, images = split_unlike(pictures)
            stored = now._like(ids).vectors
            return np.concatenate([stored, now._embed(images).vectors])

    def search(
        self,
        images: Images | None = None,
        *,
        vectors: Any = None,
        k: SupportsIndex = 10,
        exclude: Exclude = None,
        like: Any = None,
        nprobe: SupportsIndex | None = None,
        rerank: SupportsIndex | None = None,
        where: str | None = None,
        crop: Any = None,
        unlike: Any = None,
        together: str | None = None,
        weights: Mapping[str, float] | str | None = None,
        min_score: float | None = None,
        group_by: str | None = None,
        per_group: SupportsIndex | None = None,
        diversify: float | bool | None = None,
        exclude_self: bool = False,
    ) -> list[Neighbours]:
        """The neighbours of pictures, of vectors or of rows, with everything known about them.

        Scores are exact, however it is asked. `docs/python-api.md` has an example of each way.

        Args:
            images: One, or any iterable of: paths or URIs (str, PathLike), the bytes of files
                (bytes, bytearray, memoryview, …), file objects opened for bytes, which are read
                from where they stand, Pillow images, and arrays of gray (h, w), RGB (h, w, 3) or
                RGBA (h, w, 4), of uint8 or of floats from 0 to 1.
            vectors: (n, dim), or (dim,) for one, in place of images: an array, or any iterable.
            k: Neighbours per query.
            like: Rows of the store in place of images: uris or ids, one or any iterable.
            exclude: See `search_vectors`; of `together`, for all pictures or for none.
            nprobe: See `search_vectors`.
            rerank: See `search_vectors`.
            where: See `search_vectors`.
            crop: The part of each picture to search by: x, y, w, h of the upright picture in
                pixels, or in shares of its sides where none is above 1; four numbers or a text.
            unlike: Pictures as in `images`, or ids of rows, that answers shall be unlike: half of
                their mean direction is taken from that of the query. For cosine, inner_product.
            together: All pictures are one query: "mean", by the mean of their vectors (under
                cosine of unit length), or "max", by the best of a row's scores to each.
            weights: Of all features by name, in place of the store's, which has several: a score
                is the mean of the features' cosines by these. For cosine, inner_product.
            min_score: The worst score of a neighbour; for l2 that is the largest distance.
            group_by: A column, of which each value (null is one) has at most
            per_group: so many neighbours (1).
            diversify: Choose the k by maximal marginal relevance from the 10 k nearest (100 at
                least): lambda, from 0 (diverse) to 1 (near), True for 0.5. They come in the order
                in which they were chosen.
            exclude_self: Leave out the rows of the query's own picture, by uri and by content.

        Returns:
            One list per query, best first; none for no query. `query_uri` is the path or URI, else
            "image:<row>" or "vector:<row>". A list's `complete` is False where fewer than k were
            found by min_score, group_by or exclude_self among the 65,536 nearest.

        Raises:
            RequestError: Not one of them is given, a picture cannot be read, another argument
                cannot be used, the snapshot was made with another preprocessing or has been
                removed, or the searcher is closed.
        """
        if sum(one is not None for one in (images, vectors, like)) != 1:
            raise RequestError("give images, vectors or like to search for, and one of them only")
        if crop is not None and images is None:
            raise RequestError("crop: is of pictures, and vectors and rows of the store are none")
        ways = asked_ways(
            together=together, weights=weights, min_score=min_score, group_by=group_by,
            per_group=per_group, diversify=diversify, exclude_self=exclude_self,
        )  # fmt: skip
        with self._reading() as now:
            now.request(k, nprobe=nprobe, rerank=rerank, where=where)  # before models are loaded
            now.check_ways(ways, unlike is not None)
            if images is not None:
                queries = now._embed(images, crop)
            elif like is not None:
                queries = now._like(like)
            else:
                checked = now.check(vectors)
                queries = Queries([f"vector:{row}" for row in range(len(checked))], checked)
            away = None if unlike is None else now.unlike(unlike)
            answers = now.answer(
                queries, k, ways, away, exclude=exclude, nprobe=nprobe, rerank=rerank, where=where
            )
            return now.describe(answers.names, answers.ids, answers.scores, answers.complete)

    async def search_async(self, *images: Any, **asked: Any) -> list[Neighbours]:
        """`search`, in a thread of its own, while others of the event loop go on."""
        return await asyncio.to_thread(self.search, *images, **asked)

    def check_ways(self, ways: Ways, unlike: bool = False) -> None:
        """Whether the snapshot can be asked in these ways, before anything is read.

        Raises:
            RequestError: It cannot.
        """
        Blender(ways, self.manifest, np.empty((0, self.dim), np.float32) if unlike else None)
        if ways.group_by is not None:
            with self._reading() as now:
                check_group(ways.group_by, now._schema)

    def answer(
        self,
        queries: Queries,
        k: SupportsIndex,
        ways: Ways,
        unlike: Vectors | None = None,
        *,
        nprobe: SupportsIndex | None = None,
        rerank: SupportsIndex | None = None,
        exclude: Exclude = None,
        where: str | None = None,
        index: Index | None = None,
    ) -> Answers:
        """What `search` answers, as arrays, of queries that were made for this snapshot.

        Args:
            queries: From `embed`, `like` or elsewhere.
            k: See `search`.
            ways: See `search`.
            unlike: From the method of that name.
            nprobe: See `search_vectors`.
            rerank: See `search_vectors`.
            exclude: See `search_vectors`.
            where: See `search_vectors`.
            index: What searches, by default this one.

        Raises:
            RequestError: See `search`.
        """
        with self._reading() as now:
            if ways.exclude_self:
                for row, name in enumerate(queries.names):
                    if not queries.own(row):
                        raise RequestError(
                            f"exclude_self: {name} has neither a name nor bytes by which to tell "
                            "its rows; give a path, a file's bytes or a uri of the store"
                        )
            blender = Blender(ways, now.manifest, unlike)
            blended = blender.blend(queries)
            checked = now.check(blended.vectors)
            without = asked_exclusions(exclude, len(checked))

            def search(rows: Any, depth: int) -> tuple[Ids, Scores]:
                request = now.request(
                    depth, nprobe=nprobe, rerank=rerank, where=where, excluded=without.shape[1]
                )
                return now._nearest(checked[rows], request, without[rows], index or now.index)

            at_most = now.request(k, where=where).k
            return Chooser(ways, blender, _Rows(now), search, at_most).answers(blended)

    def describe(
        self,
        names: Sequence[str],
        ids: Ids,
        scores: Scores,
        complete: Sequence[bool] | None = None,
    ) -> list[Neighbours]:
        """Neighbours with names, duplicates and metadata, from what `search_vectors` returned.

        Args:
            names: Of the n queries.
            ids: (n, k), -1 for nothing.
            scores: (n, k).
            complete: (n,), see `Neighbours`.

        Raises:
            RequestError: The searcher is closed, or its snapshot has been removed.
        """
        with self._reading() as now:
            return now._describe(names, ids, scores, complete or [True] * len(names))

    def _describe(
        self, names: Sequence[str], ids: Ids, scores: Scores, complete: Sequence[bool]
    ) -> list[Neighbours]:
        distinct = np.unique(ids[ids >= 0])
        rows = dict(zip(distinct.tolist(), self._reader.described(distinct), strict=True))
        duplicates = self._duplicates.of(distinct)
        described = []
        for name, own_ids, own_scores, whole in zip(
            names, ids.tolist(), scores.tolist(), complete, strict=True
        ):
            found = [pair for pair in zip(own_ids, own_scores, strict=True) if pair[0] >= 0]
            neighbours = (
                Neighbour(
                    name, rank, rows[i]["uri"], value, i, duplicates.get(i, ()),
                    {key: cell for key, cell in rows[i].items() if key not in _COLUMNS},
                )
                for rank, (i, value) in enumerate(found, start=1)
            )  # fmt: skip
            described.append(Neighbours(neighbours, name, whole))
        return described

    def search_vectors(
        self,
        queries: Any,
        k: SupportsIndex,
        *,
        nprobe: SupportsIndex | None = None,
        rerank: SupportsIndex | None = None,
        exclude: Exclude = None,
        where: str | None = None,
    ) -> tuple[Ids, Scores]:
        """The k nearest stored vectors of each query, by exact score.

        Args:
            queries: (n, dim), or (dim,) for one, as the store's features make them: an array, or
                any iterable.
            k: How many, of Python or NumPy; more than there are gives all there are.
            nprobe: Lists to scan, by default what the certificate was measured with. Queries that
                come out short scan more.
            rerank: Candidates to score exactly, at least k; by default the certificate's number,
                more in proportion for a larger k.
            exclude: Ids to leave out: an iterable of them for every query, or one for each query.
            where: Only rows that fulfil this condition over their columns, such as
                "label = 'cat' and width > 500" (see `lookalike.store.where`). Where few match, all
                of these are compared; else lists are scanned in proportion, with nprobe and rerank
                as the numbers for all rows.

        Returns:
            Ids (n, min(k, rows that match)) int64, and scores of the same shape, float32, best
            first. Where exclusions leave too few, ids end in -1 and scores in the worst score, an
            infinity.

        Raises:
            RequestError: k, nprobe, rerank, exclude, where or the queries cannot be used, the
                snapshot has been removed, or the searcher is closed.
        """
        with self._reading() as now:
            checked = now.check(queries)
            without = asked_exclusions(exclude, len(checked))
            request = now.request(
                k, nprobe=nprobe, rerank=rerank, where=where, excluded=without.shape[1]
            )
            return now._nearest(checked, request, without, now.index)

    def _nearest(
        self, queries: Vectors, request: Request, without: Ids, index: Index
    ) -> tuple[Ids, Scores]:
        ids = np.empty((len(queries), request.k), dtype=np.int64)
        scores = np.empty(ids.shape, dtype=np.float32)
        step = index.queries_at_once(request.depth)
        for start in range(0, len(queries) if request.k else 0, step):
            part = slice(start, start + step)
            ids[part], scores[part] = answer(index, queries[part], request, without[part])
        return ids, scores

    def rows(self, ids: Any, columns: Sequence[str] | None = None) -> Any:
        """Rows of the store by id.

        Args:
            ids: Any iterable of whole numbers; one may come again.
            columns: Names of some, by default all; see docs/reading-a-store.md.

        Returns:
            A `pyarrow.Table` of a row for each id, in their order.

        Raises:
            RequestError: An id is none, or is that of no row or of a deleted one; there is no such
                column; the snapshot has been removed, or the searcher is closed.
        """
        with self._reading() as now:
            wanted, known = asked_ids("rows", ids), now._schema.names
            lines = snapshots.files_of(now.manifest, "embedding")
            counts = {int(line["file_no"]): int(line["rows"]) for line in lines}
            living.check_living(wanted, counts, now._forgotten)
            names = [columns] if isinstance(columns, str) else list(columns or known)
            for name in names:
                if name not in known:
                    raise RequestError(
                        f"rows: there is no column {name!r}; the columns are {', '.join(known)}"
                    )
            return living.read_rows(now._reader, now._schema, wanted, names)

    @cached_property
    def _schema(self) -> pa.Schema:
        return living.united_schema(self._reader.schemas())

    def request(
        self,
        k: SupportsIndex,
        *,
        nprobe: SupportsIndex | None = None,
        rerank: SupportsIndex | None = None,
        where: str | None = None,
        excluded: int = 0,
    ) -> Request:
        """What `search_vectors` asks of the index for every query, each without some ids.

        Raises:
            RequestError: k, nprobe, rerank or where cannot be used.
        """
        k = whole_number("k", k)
        lists = self.default_nprobe if nprobe is None else whole_number("nprobe", nprobe)
        deepest = None if rerank is None else whole_number("rerank", rerank)
        if not isinstance(where, str | None):
            raise RequestError(f"where: needs a condition as a text, got {where!r:.80}")
        selection = None if where is None else self._filters.select(where)
        rows = self.count if selection is None else len(selection.ids)
        k = min(k, rows)  # nothing is allocated for more
        depth = min(max(deepest or self.default_rerank(k), k) + excluded, rows)
        dropped = selection is not None or self.living is not None
        return Request(
            k, min(lists, self.spec.nlist), depth, rows, self.count, selection, fill=dropped
        )

    @property
    def default_nprobe(self) -> int:
        """Lists that a search scans unless told otherwise."""
        chosen = self.manifest.get("search", {}).get("nprobe")
        return min(int(chosen or _NPROBE), self.spec.nlist)

    def default_rerank(self, k: int) -> int:
        """Candidates that a search for k neighbours scores exactly unless told otherwise."""
        if self.spec.kind == "exact":
            return exact_depth(self.metric, self.count, k)
        search = self.manifest.get("search", {})
        certified = int(self.manifest.get("certificate", {}).get("k") or 10)
        depth = int(search.get("rerank") or _RERANK_PER_K * certified)
        return max(depth, -(-k * depth // certified))

    def check(self, queries: Any) -> Vectors:
        """Query vectors (n, dim) as float32.

        Raises:
            RequestError: They have another shape, or one that no score can be computed for.
        """
        return check_vectors(asked_vectors(queries, self.dim), self.dim, self.metric)


class _Rows:
    """The rows of an open searcher, for `Chooser`."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher

    def vectors(self, ids: Ids) -> Vectors:
        return self._searcher._reader.vectors(ids)

    def columns(self, ids: Ids, names: Sequence[str]) -> Any:
        return living.read_rows(self._searcher._reader, self._searcher._schema, ids, names)

    def uris(self, ids: Ids) -> list[str]:
        return list(self.columns(ids, ["uri"])["uri"].to_pylist())
