"""Open a snapshot and search it: pictures or vectors in, neighbours with all about them out.

A `Searcher` is never changed by searching, so threads may share one. TensorFlow is loaded only when
pictures are embedded, never for vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.index.metrics import Ids, Scores, Vectors, check_vectors, top_k
from lookalike.index.template import TEMPLATE_FILE, Template, load_template
from lookalike.index.vector_index import VectorIndex
from lookalike.query_images import Image, embed_images, image_name, load_embedder
from lookalike.records import Neighbour
from lookalike.store import shards
from lookalike.store import snapshot as snapshots
from lookalike.store.duplicates import DuplicateReader

if TYPE_CHECKING:
    from lookalike.models.features import Embedder, Feature

Exclude = Sequence[int] | Sequence[Sequence[int]] | Ids | None

_COLUMNS = frozenset(shards.COLUMNS)  # the others are metadata
_EXACT_MARGIN = 16  # candidates beyond k that an exact index gives, against rounding at the edge
_RERANK_PER_K = 10
_NPROBE = 16


class Searcher:
    """A snapshot, open for searching.

    Attributes:
        store: The store's root.
        manifest: As published.
        dim: Components of a vector.
        metric: cosine, inner_product, l2 or jaccard.
        rows: Vectors in the snapshot.
        spec: What its index is.
        index: The index itself, without the store's defaults.
    """

    def __init__(self, store: Path, manifest: Mapping[str, Any]) -> None:
        """Open the snapshot that a manifest describes, published or not.

        Raises:
            RequestError: A file is missing or of another size, or an index shard does not belong to
                the template.
        """
        self.store, self.manifest = Path(store), dict(manifest)
        self.dim, self.metric = int(manifest["dim"]), str(manifest["metric"])
        for kind in ("embedding", "index", "template", "duplicates"):
            for line in snapshots.files_of(manifest, kind):
                for problem in snapshots.check_file(self.store, line, contents=False):
                    raise RequestError(f"{self.store}: {problem}; run: lookalike verify")
        lines = snapshots.files_of(manifest, "embedding")
        self._reader = shards.VectorReader(
            self.store, {int(line["file_no"]): line["path"] for line in lines}
        )
        self.index = VectorIndex(self._template(), self._paths("index"), self._reader)
        self.spec, self.rows = self.index.spec, self.index.rows
        if (self.spec.dim, self.spec.metric) != (self.dim, self.metric):
            raise RequestError(
                f"{self.store}: the index is for {self.spec.dim} components and "
                f"{self.spec.metric}, the manifest says {self.dim} and {self.metric}; index again"
            )
        self._duplicates = DuplicateReader(self._paths("duplicates"))
        self._embedder: Embedder | None = None
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        store: Path | str,
        snapshot: str | None = None,
        *,
        features: Sequence[Feature] | None = None,
    ) -> Searcher:
        """Open a published snapshot; see `lookalike.open`."""
        manifest = snapshots.read_manifest(Path(store), snapshot)
        if features is not None:
            from lookalike.models.features import model_fingerprint

            given = model_fingerprint(features, manifest["metric"])
            if given != manifest["model_fingerprint"]:
                raise RequestError(
                    f"{store}: its vectors come from model {manifest['model_fingerprint']}, the "
                    f"features given are {given}; their vectors do not compare: use the features "
                    "of the store, or index again with these"
                )
        return cls(Path(store), manifest)

    def _paths(self, kind: str) -> list[Path]:
        return [self.store / line["path"] for line in snapshots.files_of(self.manifest, kind)]

    def _template(self) -> Template:
        paths = [path for path in self._paths("template") if path.name == TEMPLATE_FILE]
        if len(paths) != 1:
            raise RequestError(f"{self.store}: the manifest names {len(paths)} templates, not 1")
        return load_template(paths[0].parent, self.manifest["index"]["template"])

    @property
    def metadata_schema(self) -> Any:
        """Arrow schema of the metadata columns."""
        return self._reader.metadata_schema()

    @property
    def embedder(self) -> Embedder:
        """The models that made the stored vectors, loaded once.

        Raises:
            RequestError: The snapshot was made with another preprocessing, or without models.
        """
        with self._lock:
            if self._embedder is None:
                self._embedder = load_embedder(self.store, self.manifest)
            return self._embedder

    def embed(self, images: Sequence[Image]) -> Vectors:
        """Vectors (n, dim) of pictures, made as the stored ones were.

        Raises:
            RequestError: See `embedder`; or a picture cannot be read or embedded.
        """
        return embed_images(images, self.embedder)

    def search(
        self,
        images: Sequence[Image] | Image | None = None,
        *,
        vectors: npt.ArrayLike | None = None,
        k: int = 10,
        exclude: Exclude = None,
        nprobe: int | None = None,
        rerank: int | None = None,
    ) -> list[list[Neighbour]]:
        """The neighbours of pictures, or of vectors, with everything known about them.

        Args:
            images: Paths or URIs, encoded bytes, or uint8 arrays (h, w, 3) in RGB.
            vectors: (n, dim), in place of images.
            k: Neighbours per query.
            exclude: See `search_vectors`.
            nprobe: See `search_vectors`.
            rerank: See `search_vectors`.

        Returns:
            One list per query, best first. `query_uri` is the path or URI, else "image:<row>" or
            "vector:<row>".

        Raises:
            RequestError: Neither or both are given, a picture cannot be read, or the snapshot was
                made with another preprocessing.
        """
        if (images is None) == (vectors is None):
            raise RequestError("give images or vectors to search for, and not both")
        if images is not None:
            if isinstance(images, (str, bytes, os.PathLike, np.ndarray)):
                images = [images]
            names = [image_name(image, row) for row, image in enumerate(images)]
            queries = self.embed(images)
        else:
            queries = self._check(vectors if vectors is not None else [])
            names = [f"vector:{row}" for row in range(len(queries))]
        ids, scores = self.search_vectors(queries, k, nprobe=nprobe, rerank=rerank, exclude=exclude)
        return self.describe(names, ids, scores)

    def describe(self, names: Sequence[str], ids: Ids, scores: Scores) -> list[list[Neighbour]]:
        """Neighbours with names, duplicates and metadata, from what `search_vectors` returned.

        Args:
            names: Of the n queries.
            ids: (n, k), -1 for nothing.
            scores: (n, k).
        """
        distinct = np.unique(ids[ids >= 0])
        rows = dict(zip(distinct.tolist(), self._reader.rows(distinct.tolist()), strict=True))
        duplicates = self._duplicates.of(distinct)
        described = []
        for name, own_ids, own_scores in zip(names, ids.tolist(), scores.tolist(), strict=True):
            found = [pair for pair in zip(own_ids, own_scores, strict=True) if pair[0] >= 0]
            described.append(
                [
                    Neighbour(
                        name, rank, rows[i]["uri"], value, i, duplicates.get(i, ()),
                        {key: cell for key, cell in rows[i].items() if key not in _COLUMNS},
                    )
                    for rank, (i, value) in enumerate(found, start=1)
                ]
            )  # fmt: skip
        return described

    def search_vectors(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
        exclude: Exclude = None,
    ) -> tuple[Ids, Scores]:
        """The k nearest stored vectors of each query, by exact score.

        Args:
            queries: (n, dim), as the store's features make them.
            k: How many; more than there are gives all there are.
            nprobe: Lists to scan, by default what the certificate was measured with. Queries that
                come out short scan more.
            rerank: Candidates to score exactly, at least k; by default the certificate's number,
                more in proportion for a larger k.
            exclude: Ids to leave out: a flat sequence for every query, or one sequence per query.

        Returns:
            Ids (n, min(k, rows)) int64, and scores of the same shape, float32, best first. Where
            exclusions leave too few, ids end in -1 and scores in the worst score, an infinity.

        Raises:
            RequestError: k, nprobe, rerank or the queries cannot be used.
        """
        checked = self._check(queries)
        for name, value in (("k", k), ("nprobe", nprobe), ("rerank", rerank)):
            if value is not None and value < 1:
                raise RequestError(f"{name} must be at least 1, got {value}")
        k = min(k, self.rows)  # nothing is allocated for more
        nprobe = min(nprobe or self.default_nprobe, self.spec.nlist)
        without = _exclusions(exclude, len(checked))
        depth = max(rerank or self.default_rerank(k), k) + without.shape[1]
        depth = min(depth, self.rows)
        ids = np.empty((len(checked), k), dtype=np.int64)
        scores = np.empty((len(checked), k), dtype=np.float32)
        step = self.index.queries_at_once(depth)
        for start in range(0, len(checked) if k else 0, step):
            rows = slice(start, start + step)
            ids[rows], scores[rows] = self._search(checked[rows], k, nprobe, depth, without[rows])
        return ids, scores

    @property
    def default_nprobe(self) -> int:
        """Lists that a search scans unless told otherwise."""
        chosen = self.manifest.get("search", {}).get("nprobe")
        return min(int(chosen or _NPROBE), self.spec.nlist)

    def default_rerank(self, k: int) -> int:
        """Candidates that a search for k neighbours scores exactly unless told otherwise."""
        if self.spec.kind == "exact":
            # A histogram's overlap and the candidates' inner product rank differently.
            return self.rows if self.metric == "jaccard" else k + _EXACT_MARGIN
        search = self.manifest.get("search", {})
        certified = int(self.manifest.get("certificate", {}).get("k") or 10)
        depth = int(search.get("rerank") or _RERANK_PER_K * certified)
        return max(depth, -(-k * depth // certified))

    def _check(self, queries: npt.ArrayLike) -> Vectors:
        try:
            array = np.asarray(queries, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise RequestError(f"query vectors are not numbers: {error}") from error
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise RequestError(
                f"query vectors have shape {array.shape}, the store needs (n, {self.dim})"
            )
        return check_vectors(array, self.dim, self.metric)

    def _search(
        self, queries: Vectors, k: int, nprobe: int, depth: int, without: Ids
    ) -> tuple[Ids, Scores]:
        """One block of queries; those that come out short are searched again, more widely."""
        candidates, _ = self.index.candidates(queries, nprobe, depth)
        for column in without.T:
            candidates = np.where(candidates == column[:, None], -1, candidates)
        exact = self.index.exact_scores(queries, candidates)
        ids, scores = top_k(candidates, exact, k, self.metric)
        short = np.flatnonzero(ids[:, -1] < 0)
        if len(short) and nprobe < self.spec.nlist:
            wider = min(4 * nprobe, self.spec.nlist)
            ids[short], scores[short] = self._search(
                queries[short], k, wider, depth, without[short]
            )
        return ids, scores


def _exclusions(exclude: Exclude, queries: int) -> Ids:
    """Ids to leave out, (queries, m) int64, padded with -1."""
    if exclude is None or len(exclude) == 0:
        return np.empty((queries, 0), dtype=np.int64)
    if not np.ndim(exclude[0]):
        flat = np.unique(np.asarray(exclude, dtype=np.int64))
        return np.repeat(flat[None, :], queries, axis=0)
    rows = [np.unique(np.asarray(row, dtype=np.int64)) for row in exclude]
    if len(rows) != queries:
        raise RequestError(f"exclude has {len(rows)} sequences of ids for {queries} queries")
    padded = np.full((queries, max(len(row) for row in rows)), -1, dtype=np.int64)
    for output, row in zip(padded, rows, strict=True):
        output[: len(row)] = row
    return padded
