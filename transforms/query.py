"""Search a batch of queries: what crosses between workers is numbers of blocks and shards."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.utils.shared import Shared

from lookalike.search.batch_search import Batch, BatchSpec
from lookalike.transforms.logs import LoggedFn, count, unit_of

_LOG = logging.getLogger(__name__)


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(int)
@dataclass
class SearchBlocks(beam.PTransform):
    """Queries x shards -> the best candidates of each query -> exact scores.

    Yields the number of each answered block, whose answers lie in the spec's folder. Of several
    attempts at a step the first one's file counts.

    Attributes:
        spec: Of the search.
    """

    spec: BatchSpec

    def expand(self, blocks: beam.PCollection[int]) -> beam.PCollection[int]:
        """PCollection[int] -> PCollection[int]."""
        shared = Shared()
        return (
            blocks
            | "SpreadBlocks" >> beam.Reshuffle()
            | "ChooseLists" >> beam.ParDo(_CoarseFn(self.spec, shared))
            | "BlocksByShard" >> beam.GroupByKey()
            | "ScanShard" >> beam.ParDo(_ScanFn(self.spec, shared))
            | "ShardsByBlock" >> beam.GroupByKey()
            | "RankCandidates" >> beam.ParDo(_AnswerFn(self.spec, shared))
        )


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(int)
@dataclass
class CompareBlocks(beam.PTransform):
    """Compare queries with every row of a selection, without the index; else as `SearchBlocks`.

    Attributes:
        spec: Of the search.
    """

    spec: BatchSpec

    def expand(self, blocks: beam.PCollection[int]) -> beam.PCollection[int]:
        """PCollection[int] -> PCollection[int]."""
        compare = _CompareFn(self.spec, Shared())
        return blocks | "SpreadBlocks" >> beam.Reshuffle() | "CompareRows" >> beam.ParDo(compare)


class _BatchFn(LoggedFn):
    """A DoFn with the process's one copy of trained index and selection."""

    def __init__(self, spec: BatchSpec, shared: Shared) -> None:
        self._spec, self._shared = spec, shared

    def setup(self) -> None:
        spec = self._spec

        def load() -> Batch:
            return Batch(spec)

        self._batch: Batch = self._shared.acquire(load)


class _CoarseFn(_BatchFn):
    def process(self, block: int) -> Iterator[tuple[tuple[int, int], int]]:
        with unit_of(_LOG, "coarse", block) as counts:
            shards = self._batch.coarse(block)
            counts["shards"] = len(shards)
        for shard in shards:
            yield (shard, block // self._spec.together), block


class _ScanFn(_BatchFn):
    def process(self, task: tuple[tuple[int, int], Iterable[int]]) -> Iterator[tuple[int, int]]:
        (shard, _), blocks = task
        numbers = sorted(set(blocks))
        with unit_of(_LOG, "scan", shard) as counts:
            counts["blocks"] = len(numbers)
            self._batch.scan(shard, numbers)
        count("scan", "blocks", len(numbers))
        for block in numbers:
            yield block, shard


class _AnswerFn(_BatchFn):
    def process(self, task: tuple[int, Iterable[int]]) -> Iterator[int]:
        block, shards = task
        with unit_of(_LOG, "rank", block):
            self._batch.answer(block, set(shards))
        count("rank", "blocks")
        yield block


class _CompareFn(_BatchFn):
    def process(self, block: int) -> Iterator[int]:
        with unit_of(_LOG, "compare", block):
            self._batch.compare(block)
        count("compare", "blocks")
        yield block
