"""The work of embedding: what a process loads for it, and whole units of files into shards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from time import monotonic

import pyarrow as pa

from lookalike.behind import Behind
from lookalike.embed_spec import EmbedSpec
from lookalike.images.decoding import Decoder
from lookalike.models.embedder import Embedder
from lookalike.models.features import inputs_of
from lookalike.reconcile.known import read_known
from lookalike.sources.listing import as_files
from lookalike.sources.units import Units
from lookalike.store.attempts import Record
from lookalike.store.forgotten import Forgotten
from lookalike.store.ledger import LISTED
from lookalike.store.objects import open_store
from lookalike.store.runs import UnitNames
from lookalike.unit_embedding import embed_unit
from lookalike.unit_log import logged
from lookalike.work import Counts, Share, Work, alone

_LOG = logging.getLogger(__name__)


class Embedding:
    """What embeds by a spec: the process's one copy of the models, and a decoder process.

    Attributes:
        embedder: The models.
        decoder: Makes inputs of their sizes; a process of its own.
    """

    def __init__(self, spec: EmbedSpec, share: Share) -> None:
        """Start the decoder and, beside it, load the models (see `Work.set_up` of `share`)."""
        sizes, functions = inputs_of(spec.features)
        self.decoder = Decoder(sizes, spec.limits, functions)
        self.decoder.start()
        try:
            self.embedder: Embedder = share(partial(_load, spec))
        except BaseException:
            self.decoder.close()
            raise

    def close(self) -> None:
        """End the decoder."""
        self.decoder.close()


def _load(spec: EmbedSpec) -> Embedder:
    """Load the models, and call them for the first time, which compiles them."""
    start = monotonic()
    embedder = spec.load()
    embedder.embed([embedder.blank()] * embedder.batch)
    _LOG.info("models of %s loaded in %.1f s", spec.store, monotonic() - start)
    return embedder


@dataclass
class EmbedWork(Work):
    """Embeds work units by number: each into a Parquet shard, a ledger part and, last, its record.

    A unit that has a record is finished, and not done again. What a unit's known file lists is not
    embedded again. A unit's files are written beside the next unit.

    Attributes:
        spec: What to embed with.
        units: Where everything of the units lies.
        metadata: The metadata columns.
        properties: Key-value metadata of every shard.
    """

    spec: EmbedSpec
    units: UnitNames
    metadata: pa.Schema
    properties: dict[str, str]
    stage = "embed"
    _embedding: Embedding | None = field(default=None, init=False)

    def set_up(self, share: Share = alone) -> None:
        """Load everything; nothing where that was done already, in this process."""
        if self._embedding:
            return
        self._store = open_store(self.spec.store)
        self._units = Units(self.units.cut_in, self.units.cut)
        self._forgotten = Forgotten.load(self._store.local(path) for path in self.spec.forgotten)
        self._behind: Behind[Record] = Behind()
        self._embedding = Embedding(self.spec, share)

    def begin(self) -> None:
        """See `Work`; of a bundle that failed, nothing is waited for."""
        self._behind.forget()

    def do(self, number: int) -> Counts:
        """Embed a unit, and hand the rest of it over; what is counted is the unit before."""
        assert self._embedding is not None
        with ExitStack() as stack:
            counts = stack.enter_context(logged(_LOG, self.stage, number))
            rows = self._units.table(self._store, number)
            finish = embed_unit(
                self.units.unit(number),
                self._store,
                as_files(rows),
                self._embedding.embedder,
                self._embedding.decoder,
                self.metadata,
                self.properties,
                self.spec.dtype,
                read_known(self._store, self._units, number, rows),
                self._forgotten,
            )
            work = partial(_finish, finish, counts, stack.pop_all())
        return _counts(self._behind.hand_over(work))

    def end(self) -> Counts:
        """Wait for the last unit."""
        return _counts(self._behind.wait())

    def tear_down(self) -> None:
        """End the decoder and the thread behind, and let go of the models."""
        self._behind.close()
        if self._embedding:
            self._embedding.close()
        self._embedding = None


def _finish(finish: Callable[[], Record], counts: dict[str, int], log: ExitStack) -> Record:
    """Finish a unit and its line in the log; in the thread behind."""
    with log:
        done = finish()
        counts.update((name, done["counts"][name]) for name in LISTED)
    return done


def _counts(done: Record | None) -> Counts:
    """What to count of a finished unit."""
    if not done:
        return {}
    return {f"{status}-files": done["counts"][status] for status in LISTED}
