"""Embed images in parallel: whole work units into shards, or single files in your own pipeline.

What crosses between workers is names, never pixels. Models are loaded from a folder, once per
worker process, and shared by its threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import SlidingWindows
from apache_beam.typehints.typehints import TupleConstraint
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from lookalike.embed_spec import EmbedSpec
from lookalike.embed_work import Embedding, EmbedWork
from lookalike.embedding import embed_uris
from lookalike.errors import RequestError
from lookalike.outcomes import Failed
from lookalike.records import SourceFile
from lookalike.sources.locating import Locator
from lookalike.store.runs import UnitNames
from lookalike.transforms.logs import LoggedFn, count, timed
from lookalike.transforms.tasks import DoTasks
from lookalike.whole_numbers import whole_number

_RECORD = dict[str, Any]
_MOST_PLACES = 1 << 16  # elements that wait for the vectors of a batch

_Place = tuple[Any, Any, Any, Any]  # an element, its time, window and pane


@lru_cache(maxsize=64)
def shared_models(spec: EmbedSpec) -> Shared:
    """One handle for all transforms of one spec, so that a worker process loads it once."""
    return Shared()


def check_spec(spec: object) -> None:
    """Check that a transform was given what it embeds with.

    Raises:
        RequestError: It was not.
    """
    if not isinstance(spec, EmbedSpec):
        raise RequestError(
            f"spec: needs an EmbedSpec, got {spec!r:.80}; make one by EmbedSpec.from_store or "
            "EmbedSpec.from_handles"
        )


def _display(spec: EmbedSpec) -> dict[str, Any]:
    """What an engine's page shows of a spec."""
    handles = ", ".join(feature.handle for feature in spec.features)
    return {"models": handles, "store": spec.store, "metric": spec.metric, "dtype": spec.dtype}


@beam.typehints.with_input_types(int)
@beam.typehints.with_output_types(int)
class EmbedUnits(DoTasks):
    """Embed work units by number: each into a Parquet shard, a ledger part and, last, its record.

    PCollection[int] -> PCollection[int]. Files are named by their content, and of a unit's
    attempts, also at once, the first one's record counts; a unit that has one is finished, and not
    done again. What a unit's known file lists is not embedded again.

    A unit's files are written beside the next unit. Yields the number of each unit that is
    embedded; it is finished when its record is there, which it is before the bundle ends, or the
    bundle fails.
    """

    def __init__(
        self,
        spec: EmbedSpec,
        units: UnitNames,
        metadata: pa.Schema | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Embed units.

        Args:
            spec: What to embed with.
            units: Where everything of the units lies.
            metadata: The metadata columns; by default none.
            properties: Key-value metadata of every shard; by default what made the vectors.

        Raises:
            RequestError: The spec is none.
        """
        check_spec(spec)
        schema = pa.schema([]) if metadata is None else metadata
        told = spec.properties if properties is None else properties
        super().__init__(EmbedWork(spec, units, schema, dict(told)), shared=shared_models(spec))
        self.spec = spec

    def display_data(self) -> dict[str, Any]:
        """What an engine's page shows."""
        return _display(self.spec)


@dataclass
class EmbedImages(beam.PTransform):
    """Embed single files, for a pipeline of your own.

    Takes paths and URIs, or (key, uri) pairs with keys of any kind, and gives two collections by
    name: `embedded`, of flat records of `spec.schema`, and `failed`, of
    `embed_spec.FAILED_SCHEMA`. What came of a pair is a pair (key, record). Key and uri are given
    back as they came, in the window, at the time and of the pane of the element that bore them;
    every element has exactly one record in each of its windows. A file that is named more than once
    in a batch is embedded once.

        spec = EmbedSpec.from_store("photos.store")
        outputs = uris | EmbedImages(spec)
        outputs["embedded"] | WriteToParquet("vectors", spec.schema)

    Attributes:
        spec: What to embed with.
        batch: Files taken at a time, within a bundle. With 1 a record leaves when its element came,
            as it must where an engine drops what a bundle's end gives: Dask's does, and there it is
            always 1.
        max_wait: Seconds after which files wait no longer for a batch to be full. It is heeded
            whenever an element comes; the end of a bundle takes all that are left.
    """

    spec: EmbedSpec
    batch: int = 64
    max_wait: float = 10.0

    def __post_init__(self) -> None:
        """Check what was given."""
        super().__init__()
        check_spec(self.spec)
        self.batch = whole_number("batch", self.batch)
        if not isinstance(self.max_wait, int | float) or not self.max_wait >= 0:
            raise RequestError(f"max_wait: needs a number of seconds from 0, got {self.max_wait!r}")

    def default_type_hints(self) -> Any:
        """Paths or URIs, alone or with keys; what comes of them has its own hints."""
        return beam.typehints.decorators.IOTypeHints.empty().with_input_types(str | tuple[Any, str])

    def display_data(self) -> dict[str, Any]:
        """What an engine's page shows."""
        return {**_display(self.spec), "batch": self.batch, "max_wait": self.max_wait}

    def expand(self, uris: beam.PCollection[Any]) -> dict[str, beam.PCollection[Any]]:
        """PCollection[str | tuple[K, str]] -> two PCollections by name."""
        batch = 1 if type(uris.pipeline.runner).__name__ == "DaskRunner" else self.batch
        if not isinstance(uris.windowing.windowfn, SlidingWindows):
            # A Reshuffle takes an element apart by window, each to be embedded somewhere else.
            uris = uris | "SpreadFiles" >> beam.Reshuffle()
        kind = _record_type(uris.element_type)
        embed = _EmbedFilesFn(self.spec, batch, self.max_wait)
        # One output to choose from: tagged ones are not right on every engine.
        records = uris | "EmbedFiles" >> beam.ParDo(embed).with_output_types(kind)
        return {
            "embedded": records | "Embedded" >> beam.Filter(_is_embedded).with_output_types(kind),
            "failed": records | "Failed" >> beam.Filter(_is_failed).with_output_types(kind),
        }


def _record_type(element: Any) -> Any:
    """The type of what comes of elements of a type: it decides how an engine encodes it."""
    if element is str:
        return _RECORD
    if isinstance(element, TupleConstraint) and len(element.tuple_types) == 2:
        return beam.typehints.Tuple[element.tuple_types[0], _RECORD]
    return Any


def _is_embedded(output: Any) -> bool:
    return "embedding" in (output[1] if isinstance(output, tuple) else output)


def _is_failed(output: Any) -> bool:
    return not _is_embedded(output)


class _EmbedFilesFn(LoggedFn):
    """Files wait for one another whatever their windows, as a model does not mind these.

    What becomes of a file is kept until the next batch, since an element comes once for each of its
    windows.
    """

    def __init__(self, spec: EmbedSpec, batch: int, max_wait: float) -> None:
        self._spec, self._shared = spec, shared_models(spec)
        self._batch, self._max_wait = batch, max_wait

    def setup(self) -> None:
        self._embedding: Embedding | None = Embedding(self._spec, self._shared.acquire)
        self._locator = Locator()

    def start_bundle(self) -> None:
        self._waiting: dict[str, list[_Place]] = {}
        self._places, self._since = 0, 0.0
        self._last: dict[str, _RECORD] = {}

    def process(
        self,
        element: Any,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[WindowedValue]:
        place = (element, timestamp, window, pane)
        uri = _uri_of(element)
        if not isinstance(uri, str):
            count("embed", "rejected-files")
            yield _put(self._spec.record("", _no_name(element)), place)
        elif uri in self._last:
            yield _put(self._last[uri], place)
        else:
            if not self._waiting:
                self._since = monotonic()
            self._waiting.setdefault(uri, []).append(place)
            self._places += 1
            if self._is_due():
                yield from self._flush()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        yield from self._flush()
        self._last = {}

    def teardown(self) -> None:
        if self._embedding:
            self._embedding.close()
        self._embedding = None

    def _is_due(self) -> bool:
        full = len(self._waiting) >= self._batch or self._places >= _MOST_PLACES
        return full or monotonic() - self._since >= self._max_wait

    def _flush(self) -> Iterator[WindowedValue]:
        if not self._waiting:
            return
        waiting, self._waiting, self._places, self._last = self._waiting, {}, 0, {}
        assert self._embedding is not None
        embedder, decoder = self._embedding.embedder, self._embedding.decoder
        with timed("embed"):  # in order of names, which is that of members in a container
            outcomes = list(embed_uris(sorted(waiting), embedder, decoder, self._locator.find))
        for uri, outcome in outcomes:
            status = outcome.status if isinstance(outcome, Failed) else "embedded"
            count("embed", f"{status}-files")
            self._last[uri] = self._spec.record(uri, outcome)
        for uri, places in waiting.items():
            for place in places:
                yield _put(self._last[uri], place)


def _uri_of(element: Any) -> Any:
    return element[1] if _is_pair(element) else element


def _is_pair(element: Any) -> bool:
    return isinstance(element, tuple) and len(element) == 2


def _put(record: _RECORD, place: _Place) -> WindowedValue:
    """A record in the place of an element, with its key; a copy, which may be kept and changed."""
    element, timestamp, window, pane = place
    record = deepcopy(record)
    value = (element[0], record) if _is_pair(element) else record
    return WindowedValue(value, timestamp, (window,), pane)


def _no_name(element: Any) -> Failed:
    detail = f"needs a path or URI, or (key, path or URI), as str; got {element!r:.200}"
    return Failed(SourceFile("", -1, ""), "rejected", "unreadable", detail)
