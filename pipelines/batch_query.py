"""`lookalike query --beam`: an index whose searches run as Beam pipelines over its shards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import apache_beam as beam
import numpy as np

from lookalike.ivf.selections import Selection
from lookalike.metrics import Ids, Scores, Vectors
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec, run
from lookalike.search.answering import answer
from lookalike.search.asked import asked_exclusions
from lookalike.search.batch_search import BatchSpec, cut, read_answers, write_batch
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.objects import open_store, place_below
from lookalike.transforms.query import CompareBlocks, SearchBlocks

_WAVE_BYTES = 256 << 20  # of queries and answers in this process at a time

Batch = tuple[list[str], Vectors]  # names (n,) and vectors (n, dim) of some queries


class BeamIndex:
    """The index of a snapshot, as `lookalike.search.vector_index.VectorIndex` but on an engine.

    Attributes:
        spec: What the index is.
    """

    def __init__(
        self, searcher: Searcher, scratch: str, runner: RunnerSpec, progress: Progress
    ) -> None:
        """Search the searcher's snapshot; workers reach its store and `scratch`, a place's name."""
        self.spec, self._living = searcher.spec, searcher.living
        self._scratch, self._runner, self._progress = scratch, runner, progress
        manifest = searcher.manifest
        name = manifest["index"]["template"]
        embeddings = snapshot.files_of(manifest, "embedding")
        self._batch = BatchSpec(
            searcher.store.name, "", f"templates/{name}", name,
            tuple(line["path"] for line in snapshot.files_of(manifest, "index")),
            {int(line["file_no"]): str(line["path"]) for line in embeddings},
            queries=0, block_rows=1, together=1, k=1, threads=runner.threads,
        )  # fmt: skip

    def search(
        self,
        queries: Vectors,
        k: int,
        nprobe: int,
        depth: int,
        without: Ids,
        selection: Selection | None = None,
    ) -> tuple[Ids, Scores, Ids]:
        """See `VectorIndex.search`."""
        spec = replace(self._batch, k=k, nprobe=nprobe, depth=depth)
        chosen = selection or self._living
        return self._run("search", spec, SearchBlocks, queries, without, chosen)

    def nearest(self, queries: Vectors, ids: Ids, k: int) -> tuple[Ids, Scores]:
        """See `VectorIndex.nearest`."""
        spec, without = replace(self._batch, k=k), asked_exclusions(None, len(queries))
        found = self._run("compare", spec, CompareBlocks, queries, without, Selection(ids))
        return found[0], found[1]

    def _run(
        self,
        stage: str,
        spec: BatchSpec,
        transform: Callable[[BatchSpec], beam.PTransform],
        queries: Vectors,
        without: Ids,
        selection: Selection | None,
    ) -> tuple[Ids, Scores, Ids]:
        width = max(spec.k, spec.depth, spec.nprobe)  # of what is held for each query
        rows, together = cut(len(queries), width, len(spec.shards), self._runner.processes)
        folder = place_below(self._scratch, f"batch-{uuid.uuid4().hex}")
        place = open_store(folder)
        spec = replace(
            spec, folder=folder, queries=len(queries), block_rows=rows, together=together
        )
        try:
            write_batch(spec, queries, without, selection)

            def build(pipeline: beam.Pipeline) -> None:
                blocks = beam.Create(range(spec.blocks), reshuffle=False)
                _ = pipeline | "Blocks" >> blocks | "Search" >> transform(spec)

            def done() -> int:
                return len(place.files("", ".npz"))

            # What is asked, a coarse step, one per shard and the ranking, for each block; or two.
            files = spec.blocks * (len(spec.shards) + 3 if spec.nprobe else 2)
            scans = spec.blocks * max(1, len(spec.shards))
            with self._progress.stage(stage, "steps", files, done):
                run(build, self._runner.at_most(scans if spec.nprobe else spec.blocks))
            return read_answers(spec)
        finally:
            place.delete_below("")


def batch_answers(
    searcher: Searcher, index: BeamIndex, queries: Iterable[Batch], k: int, where: str | None
) -> Iterator[tuple[list[str], Ids, Scores]]:
    """Names (n,), ids (n, k) and exact scores (n, k) for some queries at a time, in order.

    As `Searcher.search_vectors` gives them: queries that come out short are searched again, more
    widely, by another pipeline.

    Raises:
        RequestError: See `Searcher.search_vectors`.
        EngineError: A pipeline did not end well.
    """
    request = searcher.request(k, where=where)
    most = max(1, _WAVE_BYTES // (4 * searcher.dim + 12 * max(1, request.k)))
    for names, vectors in _waves(queries, most):
        checked, without = searcher.check(vectors), asked_exclusions(None, len(names))
        if request.k:
            yield names, *answer(index, checked, request, without)
        else:
            nothing = np.empty((len(names), 0))
            yield names, nothing.astype(np.int64), nothing.astype(np.float32)


def _waves(batches: Iterable[Batch], rows: int) -> Iterator[Batch]:
    """The same queries, `rows` or a little more at a time."""
    names: list[str] = []
    held: list[Vectors] = []
    for some, vectors in batches:
        names += some
        held.append(vectors)
        if len(names) >= rows:
            yield names, np.concatenate(held)
            names, held = [], []
    if names:
        yield names, np.concatenate(held)
