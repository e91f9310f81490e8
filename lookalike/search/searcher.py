"""Open a snapshot and search it, by pictures or by vectors.

Searching does not change a `Searcher`, so threads may share one. `refresh` goes to another
snapshot for the searches that begin afterwards; those under way end in the old one. TensorFlow is
loaded only when pictures are embedded, never for vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from lookalike.distances import Ids, Scores, Vectors
from lookalike.errors import RequestError
from lookalike.images.cropping import asked_crop
from lookalike.search.answering import Index
from lookalike.search.asked import (
    Exclude,
    Images,
    asked_exclusions,
    asked_ids,
    asked_images,
)
from lookalike.search.choosing import Chooser, check_group
from lookalike.search.like import asked_rows, rows_named, split_unlike
from lookalike.search.neighbour import Neighbour, Neighbours
from lookalike.search.queries import Answers, Queries
from lookalike.search.query_images import embed_images
from lookalike.search.vector_searcher import VectorSearcher
from lookalike.search.ways import Blender, Ways, asked_ways
from lookalike.store import living
from lookalike.store.column_reader import Row
from lookalike.store.shard_format import COLUMNS

_COLUMNS = frozenset(COLUMNS)  # the others are metadata


class Searcher(VectorSearcher):
    """A snapshot, open for searching; closes itself at the end of a `with` block.

    What it holds is described at `OpenSnapshot`.
    """

    def embed(self, images: Images, crop: Any = None) -> Vectors:
        """Vectors (n, dim) float32 of pictures, made as the stored ones were; see `search`.

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
            distinct = np.unique(ids[ids >= 0])
            rows = dict(zip(distinct.tolist(), now._reader.described(distinct), strict=True))
            duplicates = now._duplicates.of(distinct)
            found = zip(
                names, ids.tolist(), scores.tolist(), complete or [True] * len(names), strict=True
            )
            return [
                Neighbours(_neighbours(name, own, values, rows, duplicates), name, whole)
                for name, own, values, whole in found
            ]


def _neighbours(
    name: str,
    ids: Sequence[int],
    scores: Sequence[float],
    rows: Mapping[int, Row],
    duplicates: Mapping[int, tuple[str, ...]],
) -> Iterator[Neighbour]:
    """One query's neighbours, of ids and scores that are best first; an id of -1 is nothing."""
    found = [pair for pair in zip(ids, scores, strict=True) if pair[0] >= 0]
    for rank, (i, score) in enumerate(found, start=1):
        metadata = {key: cell for key, cell in rows[i].items() if key not in _COLUMNS}
        yield Neighbour(name, rank, rows[i]["uri"], score, i, duplicates.get(i, ()), metadata)


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
