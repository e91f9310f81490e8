"""Open a snapshot and search it, by pictures or by vectors.

Searching does not change a `Searcher`, so threads may share one. `refresh` goes to another
snapshot for the searches that begin afterwards; those under way end in the old one. TensorFlow is
loaded only when pictures are embedded, never for vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa

from lookalike.distances import Ids, Scores, Vectors, check_vectors
from lookalike.errors import RequestError
from lookalike.images.cropping import asked_crop
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
from lookalike.search.like import asked_rows, rows_named, split_unlike
from lookalike.search.neighbour import Neighbour, Neighbours
from lookalike.search.opened import OpenSnapshot
from lookalike.search.queries import Answers, Queries
from lookalike.search.query_images import embed_images
from lookalike.search.reranking import exact_depth
from lookalike.search.ways import Blender, Ways, asked_ways
from lookalike.store import living
from lookalike.store import snapshot as snapshots
from lookalike.store.shard_format import COLUMNS
from lookalike.whole_numbers import whole_number

_COLUMNS = frozenset(COLUMNS)  # the others are metadata
_RERANK_PER_K = 10
_NPROBE = 16


class Searcher(OpenSnapshot):
    """A snapshot, open for searching; closes itself at the end of a `with` block.

    What it holds is described at `OpenSnapshot`.
    """

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
                    f"like: {name or repr(name)} is no picture of this snapshot; give a uri as "
                    "answers show it, or the picture itself in place of its name"
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
            together=together,
            weights=weights,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            diversify=diversify,
            exclude_self=exclude_self,
        )
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
        apart: bool = False,
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
            apart: Whether the index is asked for each query by itself: then an answer does not
                depend on the other queries, not by a bit.

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
                return now._nearest(
                    checked[rows], request, without[rows], index or now.index, apart
                )

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
                    name,
                    rank,
                    rows[i]["uri"],
                    value,
                    i,
                    duplicates.get(i, ()),
                    {key: cell for key, cell in rows[i].items() if key not in _COLUMNS},
                )
                for rank, (i, value) in enumerate(found, start=1)
            )
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
        self,
        queries: Vectors,
        request: Request,
        without: Ids,
        index: Index,
        apart: bool = False,
    ) -> tuple[Ids, Scores]:
        ids = np.empty((len(queries), request.k), dtype=np.int64)
        scores = np.empty(ids.shape, dtype=np.float32)
        step = 1 if apart else index.queries_at_once(request.depth)
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
