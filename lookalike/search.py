"""Open a snapshot and search it: pictures or vectors in, neighbours with all about them out.

A `Searcher` is never changed by searching, so threads may share one. TensorFlow is loaded only when
pictures are embedded, never for vectors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.metrics import Ids, Scores, Vectors, check_vectors
from lookalike.parallel import run_all
from lookalike.query_images import Image, embed_images, image_name, load_embedder
from lookalike.records import Neighbour
from lookalike.searching.answering import Exclude, Request, answer, exclusions
from lookalike.searching.filters import Filters
from lookalike.searching.selections import Selection
from lookalike.searching.tombstones import read_tombstones
from lookalike.searching.vector_index import VectorIndex
from lookalike.store import shards
from lookalike.store import snapshot as snapshots
from lookalike.store.duplicates import DuplicateReader
from lookalike.training.template import TEMPLATE_FILE, Template, load_template

if TYPE_CHECKING:
    from lookalike.models.features import Embedder, Feature

_COLUMNS = frozenset(shards.COLUMNS)  # the others are metadata
_EXACT_MARGIN = 16  # candidates beyond k that an exact index gives, against rounding at the edge
_RERANK_PER_K = 10
_NPROBE = 16
_READ_KINDS = ("embedding", "index", "template", "duplicates", "tombstones")  # when searching


def _half_of_memory() -> int:
    """Of this machine, in bytes: what a process that does nothing but search may show."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class Searcher:
    """A snapshot, open for searching.

    Attributes:
        store: The store's root.
        manifest: As published.
        dim: Components of a vector.
        metric: cosine, inner_product, l2 or jaccard.
        rows: Vectors that can be found: those in the snapshot, less the forgotten ones.
        spec: What its index is.
        index: The index itself, without the store's defaults.
        living: The rows that searches may return, where that is not all in the snapshot.
    """

    def __init__(
        self,
        store: Path,
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
        self.store, self.manifest = Path(store), dict(manifest)
        self.dim, self.metric = int(manifest["dim"]), str(manifest["metric"])
        self._check_files(contents=check)
        lines = snapshots.files_of(manifest, "embedding")
        self._files = {int(line["file_no"]): str(line["path"]) for line in lines}
        self._reader = shards.VectorReader(self.store, self._files, resident)
        self._forgotten = self._tombstones(lines)
        self.rows = sum(int(line["rows"]) for line in lines) - len(self._forgotten)
        forgotten = self._forgotten
        self.living = Selection(forgotten, inverted=True) if len(forgotten) else None
        self.index = VectorIndex(self._template(), self._paths("index"), self._reader, self.living)
        self.spec = self.index.spec
        if (self.spec.dim, self.spec.metric) != (self.dim, self.metric):
            raise RequestError(
                f"{self.store}: the index is for {self.spec.dim} components and "
                f"{self.spec.metric}, the manifest says {self.dim} and {self.metric}; index again"
            )
        self._filters = Filters(self.store, self._files, self._forgotten)
        self._embedder: Embedder | None = None
        self._lock = Lock()

    @classmethod
    def open(
        cls,
        store: Path | str,
        snapshot: str | None = None,
        *,
        features: Sequence[Feature] | None = None,
        check: bool = False,
    ) -> Searcher:
        """Open a published snapshot; see `lookalike.open`."""
        while True:
            published = snapshots.current(Path(store)) if Path(store).is_dir() else None
            try:
                return cls._open(store, snapshot or published, features=features, check=check)
            except (RequestError, OSError):
                # Another was published meanwhile, and this one's files may be gone since.
                if snapshot is not None or snapshots.current(Path(store)) == published:
                    raise

    @classmethod
    def _open(
        cls,
        store: Path | str,
        snapshot: str | None,
        *,
        features: Sequence[Feature] | None,
        check: bool,
    ) -> Searcher:
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
        if check:
            for problem in snapshots.check_manifest(manifest):
                raise RequestError(f"{store}: {problem}; run: lookalike verify")
        return cls(Path(store), manifest, check=check, resident=_half_of_memory())

    def _check_files(self, contents: bool) -> None:
        """Files are checked before anything reads them: Faiss's formats have no checksum."""
        lines = [line for line in self.manifest["files"] if contents or line["kind"] in _READ_KINDS]

        def problem(line: Mapping[str, Any]) -> snapshots.Problem | None:
            return next(snapshots.check_file(self.store, line, contents), None)

        largest_first = sorted(lines, key=lambda line: -int(line["bytes"]))
        # Hashing takes all cores; looking at sizes is done in milliseconds.
        for one in run_all(problem, largest_first) if contents else map(problem, lines):
            if one is not None:
                raise RequestError(f"{self.store}: {one}; run: lookalike verify")

    def _tombstones(self, lines: Sequence[Mapping[str, Any]]) -> Ids:
        """Ids of the snapshot's rows that are forgotten."""
        ids = read_tombstones(self._paths("tombstones"))
        if not len(ids):
            return ids
        rows = {int(line["file_no"]): int(line["rows"]) for line in lines}
        numbers, inverse = np.unique(ids >> 32, return_inverse=True)
        ends = np.array([rows.get(number, 0) for number in numbers.tolist()], dtype=np.int64)
        return np.asarray(ids[(ids & 0xFFFFFFFF) < ends[inverse]])

    @cached_property
    def _duplicates(self) -> DuplicateReader:
        return DuplicateReader(self._paths("duplicates"))  # reads footers, so not on opening

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
        where: str | None = None,
    ) -> list[list[Neighbour]]:
        """The neighbours of pictures, or of vectors, with everything known about them.

        Args:
            images: Paths or URIs, encoded bytes, or uint8 arrays (h, w, 3) in RGB.
            vectors: (n, dim), in place of images.
            k: Neighbours per query.
            exclude: See `search_vectors`.
            nprobe: See `search_vectors`.
            rerank: See `search_vectors`.
            where: See `search_vectors`.

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
            queries = self.check(vectors if vectors is not None else [])
            names = [f"vector:{row}" for row in range(len(queries))]
        ids, scores = self.search_vectors(
            queries, k, nprobe=nprobe, rerank=rerank, exclude=exclude, where=where
        )
        return self.describe(names, ids, scores)

    def describe(self, names: Sequence[str], ids: Ids, scores: Scores) -> list[list[Neighbour]]:
        """Neighbours with names, duplicates and metadata, from what `search_vectors` returned.

        Args:
            names: Of the n queries.
            ids: (n, k), -1 for nothing.
            scores: (n, k).
        """
        distinct = np.unique(ids[ids >= 0])
        rows = dict(zip(distinct.tolist(), self._reader.described(distinct), strict=True))
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
        where: str | None = None,
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
            where: Only rows that fulfil this condition over their columns, such as
                "label = 'cat' and width > 500" (see `lookalike.store.where`). Where few match, all
                of these are compared; else lists are scanned in proportion, with nprobe and rerank
                as the numbers for all rows.

        Returns:
            Ids (n, min(k, rows that match)) int64, and scores of the same shape, float32, best
            first. Where exclusions leave too few, ids end in -1 and scores in the worst score, an
            infinity.

        Raises:
            RequestError: k, nprobe, rerank, where or the queries cannot be used.
        """
        checked = self.check(queries)
        without = exclusions(exclude, len(checked))
        request = self.request(
            k, nprobe=nprobe, rerank=rerank, where=where, excluded=without.shape[1]
        )
        ids = np.empty((len(checked), request.k), dtype=np.int64)
        scores = np.empty(ids.shape, dtype=np.float32)
        step = self.index.queries_at_once(request.depth)
        for start in range(0, len(checked) if request.k else 0, step):
            part = slice(start, start + step)
            ids[part], scores[part] = answer(self.index, checked[part], request, without[part])
        return ids, scores

    def request(
        self,
        k: int,
        *,
        nprobe: int | None = None,
        rerank: int | None = None,
        where: str | None = None,
        excluded: int = 0,
    ) -> Request:
        """What `search_vectors` asks of the index for every query, each without some ids.

        Raises:
            RequestError: k, nprobe, rerank or where cannot be used.
        """
        for name, value in (("k", k), ("nprobe", nprobe), ("rerank", rerank)):
            if value is not None and value < 1:
                raise RequestError(f"{name} must be at least 1, got {value}")
        selection = None if where is None else self._filters.select(where)
        rows = self.rows if selection is None else len(selection.ids)
        k = min(k, rows)  # nothing is allocated for more
        depth = min(max(rerank or self.default_rerank(k), k) + excluded, rows)
        nprobe = min(nprobe or self.default_nprobe, self.spec.nlist)
        dropped = selection is not None or self.living is not None
        return Request(k, nprobe, depth, rows, self.rows, selection, fill=dropped)

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

    def check(self, queries: npt.ArrayLike) -> Vectors:
        """Query vectors (n, dim) as float32.

        Raises:
            RequestError: They have another shape, or one that no score can be computed for.
        """
        try:
            array = np.asarray(queries, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise RequestError(f"query vectors are not numbers: {error}") from error
        if array.ndim != 2 or array.shape[1] != self.dim:
            raise RequestError(
                f"query vectors have shape {array.shape}, the store needs (n, {self.dim})"
            )
        return check_vectors(array, self.dim, self.metric)
