"""The process's one copy of a spec's models, for the DoFns that embed."""

from __future__ import annotations

import logging
from functools import lru_cache
from time import monotonic
from typing import Any

from apache_beam.utils.shared import Shared

from lookalike.embed_spec import EmbedSpec
from lookalike.errors import RequestError
from lookalike.images.decoding import Decoder
from lookalike.models.embedder import Embedder
from lookalike.models.features import inputs_of
from lookalike.transforms.logs import LoggedFn

_LOG = logging.getLogger(__name__)


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


def display(spec: EmbedSpec) -> dict[str, Any]:
    """What an engine's page shows of a spec."""
    handles = ", ".join(feature.handle for feature in spec.features)
    return {"models": handles, "store": spec.store, "metric": spec.metric, "dtype": spec.dtype}


def load(spec: EmbedSpec) -> Embedder:
    """Load the models, and call them for the first time, which compiles them."""
    start = monotonic()
    embedder = spec.load()
    embedder.embed([embedder.blank()] * embedder.batch)
    _LOG.info("models of %s loaded in %.1f s", spec.store, monotonic() - start)
    return embedder


class EmbedderFn(LoggedFn):
    """A DoFn with the process's one copy of the models, and a decoder process of its own."""

    def __init__(self, spec: EmbedSpec) -> None:
        self._spec, self._shared = spec, shared_models(spec)

    def setup(self) -> None:
        """Start the decoder and, beside it, load the models."""
        sizes, functions = inputs_of(self._spec.features)
        self._decoder = Decoder(sizes, self._spec.limits, functions)
        self._decoder.start()
        try:
            self._embedder: Embedder | None = self._shared.acquire(lambda: load(self._spec))
        except BaseException:
            self._decoder.close()  # teardown does not follow
            raise

    def teardown(self) -> None:
        """End the decoder, and let go of the models."""
        self._decoder.close()
        self._embedder = None
