"""`lookalike query --beam`: an index whose searches run as Beam pipelines over its shards."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import apache_beam as beam

from lookalike.distances import Ids, Scores, Vectors
from lookalike.ivf.selections import Selection
from lookalike.pipelines.engine import run
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.search.asked import asked_exclusions
from lookalike.search.batch_search import BatchSpec, cut, read_answers, write_batch
from lookalike.search.queries import Answers, Queries, joined
from lookalike.search.searcher import Searcher
from lookalike.search.ways import Ways
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.storage import place_below
from lookalike.transforms.query import CompareBlocks, SearchBlocks

_WAVE_BYTES = 256 << 20  # of queries and answers in this process at a time


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
            searcher.store.name,
            "",
            f"templates/{name}",
            name,
            tuple(line["path"] for line in snapshot.files_of(manifest, "index")),
            {int(line["file_no"]): str(line["path"]) for line in embeddings},
            queries=0,
            block_rows=1,
            together=1,
            k=1,
            threads=runner.threads,
        )

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

    def queries_at_once(self, depth: int) -> int:
        """All there are: a job cuts them itself."""
        return sys.maxsize

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
    searcher: Searcher,
    index: BeamIndex,
    queries: Iterable[Queries],
    k: int,
    ways: Ways,
    unlike: Vectors | None = None,
    where: str | None = None,
) -> Iterator[Answers]:
    """What `Searcher.answer` gives for some queries at a time, in order.

    Queries that come out short are searched again, more widely, by another pipeline.

    Raises:
        RequestError: See `Searcher.answer`.
        EngineError: A pipeline did not end well.
    """
    most = max(1, _WAVE_BYTES // (4 * searcher.dim + 12 * max(1, searcher.request(k).k)))
    for wave in _waves(queries, most, searcher.dim):
        yield searcher.answer(wave, k, ways, unlike, where=where, index=index)


def _waves(batches: Iterable[Queries], rows: int, dim: int) -> Iterator[Queries]:
    """The same queries, `rows` or a little more at a time."""
    held: list[Queries] = []
    for some in batches:
        held.append(some)
        if sum(map(len, held)) >= rows:
            yield joined(held, dim)
            held = []
    if held:
        yield joined(held, dim)
