"""How fast pictures become vectors here: a sample of them goes through the real steps."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from lookalike.embedding import embed_files
from lookalike.images.decoding import Decoder
from lookalike.models import resolving
from lookalike.models.embedder import Embedder
from lookalike.models.features import Feature
from lookalike.outcomes import Failed
from lookalike.pipelines import models
from lookalike.pipelines.config import Config
from lookalike.pipelines.runner import RunnerSpec
from lookalike.records import SourceFile

_MOST_S = 5.0


@dataclass(frozen=True)
class Survey:
    """What sources list.

    Attributes:
        files: How many.
        bytes: Their sizes together, of those that tell.
        sample: Some of them, each with the same chance.
    """

    files: int
    bytes: int
    sample: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Trial:
    """What became of a sample.

    Attributes:
        tried: Files.
        embedded: Of these.
        failed: The others, by status and reason.
        seconds: For all, in one worker, its models being loaded.
    """

    tried: int
    embedded: int
    failed: Counter[str]
    seconds: float

    @property
    def share(self) -> float:
        """Of files that become vectors."""
        return self.embedded / self.tried if self.tried else 0.0

    @property
    def files_per_s(self) -> float:
        """In one worker."""
        return self.tried / max(self.seconds, 1e-9)


def survey(files: Iterable[SourceFile], size: int) -> Survey:
    """List the files, keeping a uniform sample (Vitter 1985, algorithm R)."""
    rng = random.Random(0)
    count = total = 0
    sample: list[SourceFile] = []
    for file in files:
        if count < size:
            sample.append(file)
        elif (place := rng.randrange(count + 1)) < size:
            sample[place] = file
        count, total = count + 1, total + max(0, file.bytes)
    return Survey(count, total, tuple(sample))


def resolve(config: Config, work: Path, say: Callable[[str], None]) -> list[Feature]:
    """The config's models and what runs them, in `work`."""
    features = resolving.resolve_features(config.features, work, say)
    return models.choose_engines(features, config.engine, config.metric, work, say)


def embed_sample(
    sample: Sequence[SourceFile], features: Sequence[Feature], config: Config, work: Path
) -> Trial:
    """Embed files as a worker does, for some seconds at most; the first batch is a rehearsal."""
    outcomes: Counter[str] = Counter()
    with _cores_of_a_worker(config.runner):
        projection = resolving.resolve_projection(config.projection, work)
        embedder = Embedder(features, work, config.metric, config.runner.threads, projection)
        with Decoder(embedder.sizes, config.limits, embedder.functions) as decoder:
            for _ in embed_files(sample[: embedder.batch], embedder, decoder, once=False):
                pass
            began = perf_counter()
            for kind in _outcomes(sample, embedder, decoder):
                outcomes[kind] += 1
                if perf_counter() - began > _MOST_S:
                    break
            seconds = perf_counter() - began
    embedded = outcomes.pop("embedded", 0)
    return Trial(embedded + outcomes.total(), embedded, outcomes, seconds)


def _outcomes(sample: Sequence[SourceFile], embedder: Embedder, decoder: Decoder) -> Iterator[str]:
    for outcome in embed_files(sample, embedder, decoder, once=False):
        if isinstance(outcome, Failed):
            yield " ".join(filter(None, (outcome.status, outcome.reason)))
        else:
            yield "embedded"


@contextmanager
def _cores_of_a_worker(runner: RunnerSpec) -> Iterator[None]:
    """No more cores than a worker has when all run: its decoder process shares them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(mine)[: runner.threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)
