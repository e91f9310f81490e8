"""A model handler for Beam's RunInference, of any features: pictures in, vectors out.

`EmbedImages` does more (it names what became of every file, and decodes in a process apart). This
one is for pipelines that have pictures as arrays or bytes, and other models run by RunInference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from lookalike.embed_spec import EmbedSpec
from lookalike.models.embedder import Embedder
from lookalike.search.asked import asked_images
from lookalike.search.query_images import embed_images
from lookalike.transforms.embed import check_spec

Picture = bytes | npt.NDArray[np.uint8]
"""The bytes of an image file, or (h, w, 3) uint8 RGB of any size."""


class EmbedModelHandler(ModelHandler[Picture, PredictionResult, Embedder]):
    """Runs the features of a spec: `RunInference(EmbedModelHandler(spec))`.

    PCollection of pictures -> PCollection[PredictionResult], whose `inference` is the vector:
    (dim,) float32, of unit length for a hybrid and under cosine. A picture that cannot be decoded
    or embedded fails its batch; `.with_exception_handling()` gives such batches an output of their
    own.
    """

    def __init__(self, spec: EmbedSpec, batch: int = 32) -> None:
        """Embed as `spec` says.

        Args:
            spec: Features of a store, or of any handles (`EmbedSpec.from_handles`).
            batch: Pictures per call, at most.

        Raises:
            RequestError: The spec is none.
        """
        super().__init__()
        check_spec(spec)
        self._spec, self._batch = spec, batch

    def load_model(self) -> Embedder:
        """Load the models, once per process."""
        return self._spec.load()

    def run_inference(
        self,
        batch: Sequence[Picture],
        model: Embedder,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Compute the vectors of a batch."""
        vectors = embed_images(asked_images(list(batch)), lambda: model, model.dim).vectors
        return [PredictionResult(one, row) for one, row in zip(batch, vectors, strict=True)]

    def get_num_bytes(self, batch: Sequence[Picture]) -> int:
        """Of the pictures; Beam's own would pickle the batch to tell."""
        return sum(len(one) if isinstance(one, bytes) else one.nbytes for one in batch)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Batches up to `batch`."""
        return {"min_batch_size": 1, "max_batch_size": self._batch}
