"""Embed images in parallel: whole work units into shards, or single files in your own pipeline.

What crosses between workers is names, never pixels. Models are loaded from a folder, once per
worker process, and shared by its threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from lookalike.changes.known import read_known
from lookalike.embedding import embed_files
from lookalike.models.features import Embedder, Feature
from lookalike.outcomes import Failed
from lookalike.pictures.decoding import Decoder
from lookalike.pictures.images import ImageLimits
from lookalike.records import Unit
from lookalike.sources.kinds import look_up
from lookalike.sources.units import read_files
from lookalike.store.forgotten import Forgotten
from lookalike.unit_embedding import embed_unit
from transforms.counters import count, timed


@dataclass(frozen=True)
class EmbedSpec:
    """Everything a worker needs to embed.

    Attributes:
        features: One, or several for a hybrid; each names its model folder below `store`.
        store: The store's root, reachable from every worker.
        metric: Decides whether vectors are normalised (see features.fuse).
        limits: What a file may ask for before it is decoded.
        threads: TensorFlow threads per worker process.
        dtype: Vectors are stored as: float32 or float16.
        forgotten: Files below `store` that list contents which must not come back.
    """

    features: tuple[Feature, ...]
    store: str
    metric: str = "cosine"
    limits: ImageLimits = field(default_factory=ImageLimits)
    threads: int = 1
    dtype: str = "float32"
    forgotten: tuple[str, ...] = ()


def _load(spec: EmbedSpec) -> Embedder:
    return Embedder(spec.features, Path(spec.store), spec.metric, threads=spec.threads)


class _EmbedderFn(beam.DoFn):
    """A DoFn with the process's one copy of the models, and a decoder process of its own."""

    def __init__(self, spec: EmbedSpec, shared: Shared | None = None) -> None:
        self._spec = spec
        self._shared = shared or Shared()

    def setup(self) -> None:
        sizes = dict.fromkeys(feature.info.input_size for feature in self._spec.features)
        self._decoder = Decoder([*sizes], self._spec.limits)
        self._decoder.start()  # beside the loading of the models
        try:
            self._embedder: Embedder = self._shared.acquire(partial(_load, self._spec))
        except BaseException:
            self._decoder.close()  # teardown does not follow
            raise

    def teardown(self) -> None:
        self._decoder.close()


@dataclass
class EmbedUnits(beam.PTransform):
    """Embed work units, each into one Parquet shard, a ledger part and a done file.

    A unit's files have settled names and are written whole, so a retry overwrites itself and a
    finished unit is known by its done file. What a unit's known file lists is not embedded again.
    Yields the number of each finished unit.

    Attributes:
        spec: What to embed with.
        metadata: Serialized Arrow schema of the metadata columns.
        properties: Key-value metadata of every shard.
    """

    spec: EmbedSpec
    metadata: bytes
    properties: dict[str, str]

    def __post_init__(self) -> None:
        """Name what the processes share."""
        super().__init__()
        self._shared = Shared()
        self._loaded: Embedder | None = None  # else nothing would hold it

    def load(self) -> None:
        """Load the models now, in this process, for an engine that runs the units in it."""
        self._loaded = self._shared.acquire(partial(_load, self.spec))
        sizes = self._loaded.sizes
        self._loaded.embed([tuple(np.zeros((*size, 3), np.uint8) for size in sizes)])  # compiles

    def expand(self, units: beam.PCollection[Unit]) -> beam.PCollection[int]:
        """PCollection[Unit] -> PCollection[int]."""
        return (
            units
            | "SpreadUnits" >> beam.Reshuffle()
            | "EmbedUnit"
            >> beam.ParDo(_EmbedUnitFn(self.spec, self.metadata, self.properties, self._shared))
        )


class _EmbedUnitFn(_EmbedderFn):
    def __init__(
        self, spec: EmbedSpec, metadata: bytes, properties: dict[str, str], shared: Shared
    ) -> None:
        super().__init__(spec, shared)
        self._metadata, self._properties = metadata, properties

    def setup(self) -> None:
        store = Path(self._spec.store)
        self._forgotten = Forgotten.load(store / path for path in self._spec.forgotten)
        super().setup()

    def process(self, unit: Unit) -> Iterator[int]:
        store = Path(self._spec.store)
        with timed("embed"):
            done = embed_unit(
                unit,
                read_files(store / unit.source),
                store,
                self._embedder,
                self._decoder,
                pa.ipc.read_schema(pa.py_buffer(self._metadata)),
                self._properties,
                self._spec.dtype,
                read_known(store, unit.source),
                self._forgotten,
            )
        for status in ("embedded", "unchanged", "duplicate", "rejected", "ignored"):
            count("embed", f"{status}-files", done["counts"][status])
        yield unit.number


@dataclass
class EmbedImages(beam.PTransform):
    """Embed single files, for a pipeline of your own.

    PCollection[str] of paths or URIs -> {"embedded": PCollection[Embedded], "failed":
    PCollection[Failed]}. Every uri comes out exactly once: repeated bytes are embedded again, since
    there is no unit within which to know them.

        paths | EmbedImages(EmbedSpec(features, store="/models"))

    Attributes:
        spec: What to embed with.
        batch: Files taken at a time.
    """

    spec: EmbedSpec
    batch: int = 64

    def expand(self, uris: beam.PCollection[str]) -> dict[str, Any]:
        """PCollection[str] -> two PCollections by name."""
        outputs = (
            uris
            | "SpreadFiles" >> beam.Reshuffle()
            | "EmbedFiles"
            >> beam.ParDo(_EmbedFilesFn(self.spec, self.batch)).with_outputs(
                "failed", main="embedded"
            )
        )
        return {"embedded": outputs.embedded, "failed": outputs.failed}


class _EmbedFilesFn(_EmbedderFn):
    def __init__(self, spec: EmbedSpec, batch: int) -> None:
        super().__init__(spec)
        self._batch = batch

    def start_bundle(self) -> None:
        self._uris: list[str] = []

    def process(self, uri: str) -> Iterator[Any]:
        self._uris.append(uri)
        if len(self._uris) >= self._batch:
            yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for value in self._flush():
            window = GlobalWindow()
            if isinstance(value, beam.pvalue.TaggedOutput):
                windowed = WindowedValue(value.value, window.max_timestamp(), [window])
                yield beam.pvalue.TaggedOutput(value.tag, windowed)
            else:
                yield WindowedValue(value, window.max_timestamp(), [window])

    def _flush(self) -> Iterator[Any]:
        uris, self._uris = self._uris, []
        with timed("embed"):
            files = map(look_up, uris)
            outcomes = [*embed_files(files, self._embedder, self._decoder, once=False)]
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                count("embed", f"{outcome.status}-files")
                yield beam.pvalue.TaggedOutput("failed", outcome)
            else:
                count("embed", "embedded-files")
                yield outcome
