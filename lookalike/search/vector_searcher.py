"""Search an open snapshot by vectors: ids and exact scores, and rows by id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa

from lookalike.distances import Ids, Scores, Vectors, check_vectors
from lookalike.errors import RequestError
from lookalike.search.answering import Index, Request, answer
from lookalike.search.asked import Exclude, asked_exclusions, asked_ids, asked_vectors
from lookalike.search.opened import OpenSnapshot
from lookalike.search.reranking import exact_depth
from lookalike.store import living
from lookalike.store import snapshot as snapshots
from lookalike.whole_numbers import whole_number

_RERANK_PER_K = 10
_NPROBE = 16


class VectorSearcher(OpenSnapshot):
    """A snapshot that is searched by vectors alone."""

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
