"""From pixels to vectors, with the models of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.images.cropping import Crop
from lookalike.images.functions import Functions
from lookalike.models import python_files
from lookalike.models.engines import Engine, open_model
from lookalike.models.features import Feature, check, dim_of, function_of, inputs_of
from lookalike.models.fusing import Mask, fuse
from lookalike.models.projection import Projection, project, read_matrix
from lookalike.models.saved_model import Model, ModelInfo

Pixels = npt.NDArray[np.uint8]
Inputs = tuple[npt.NDArray[Any], ...]
"""Of one image: (h, w, 3) uint8 for each size that models take, (dim,) float32 per function."""


class Embedder:
    """Turns pixels into vectors with the models of a store.

    Preparing is apart from embedding, so that images can be reduced to the models' input sizes as
    they are decoded, and embedded in batches.
    """

    def __init__(
        self,
        features: Sequence[Feature],
        store_root: Path,
        metric: str,
        threads: int | None = None,
        projection: Projection | None = None,
    ) -> None:
        """Load the models.

        Args:
            features: In the order of their blocks.
            store_root: Folder that the features' folders are relative to.
            metric: One of `METRICS`.
            threads: Of this process; None leaves that to the engines. (TensorFlow keeps what it
                has where it has been started.)
            projection: Behind the features; its folder is relative to the same root.

        Raises:
            RequestError: A model cannot be loaded, the features do not go together, or an engine
                that their vectors need is not here.
        """
        check(features, metric, projection)
        self.metric = metric
        self.weights = tuple(feature.weight for feature in features)
        self.dim = dim_of(features, projection)
        self._matrix = read_matrix(store_root / projection.folder) if projection else None
        self.sizes, self.functions = inputs_of(features)
        """What `prepare` makes: pictures of these (height, width), then vectors by functions."""
        self._functions = Functions(self.functions, self.sizes)
        self.min_side = max(max(size) for size in self._functions.sizes)
        """Larger side of the largest input: how small a picture may be decoded."""
        loaded: dict[tuple[str, ModelInfo, Engine, str], Model] = {}
        self._models: list[Model | int] = []  # functions by their number
        for feature in features:
            if function := function_of(feature.info):
                python_files.check(function, store_root / feature.folder)
                self._models.append(self.functions.index(function))
                continue
            key = (feature.folder, feature.info, feature.engine, feature.prepared)
            if key not in loaded:
                loaded[key] = open_model(store_root / feature.folder, *key[1:], threads)
            self._models.append(loaded[key])
        self.batch = min((one.batch for one in loaded.values()), default=Model.batch)
        """Images per call that the engines are fastest with; any number will do."""

    def prepare(self, pixels: Pixels) -> Inputs:
        """Make the inputs of one image, (h, w, 3) uint8: of each of `sizes`, by each function.

        Raises:
            FunctionFailedError: A function gives no vector for it.
        """
        from lookalike.images import preparing as images

        return self._functions([images.resize(pixels, size) for size in self._functions.sizes])

    def prepare_file(self, data: bytes, name: str = "", crop: Crop | None = None) -> Inputs:
        """Make the inputs of one image file, or of a part of it, by the shortest way.

        Raises:
            Rejected: It is an image that cannot be used.
            NotAnImage: It is none.
            CropError: The crop leaves the picture.
            FunctionFailedError: A function gives no vector for it.
        """
        from lookalike.images import preparing as images

        sizes = self._functions.sizes
        return self._functions(images.prepare(data, name, sizes=sizes, crop=crop).arrays)

    def blank(self) -> Inputs:
        """The inputs of a black picture, for a first call, which compiles."""
        pictures = [np.zeros((*size, 3), np.uint8) for size in self.sizes]
        return (*pictures, *(np.zeros(one.dim, np.float32) for one in self.functions))

    def embed(self, prepared: Sequence[Inputs]) -> tuple[Vectors, Mask]:
        """Compute the vectors of a batch.

        Returns:
            (n, dim) float32, and (n,) bool: whether the row can be used (see `fuse`).
        """
        if not prepared:
            return np.empty((0, self.dim), np.float32), np.empty(0, np.bool_)
        stacks = {
            size: np.stack([inputs[i] for inputs in prepared]) for i, size in enumerate(self.sizes)
        }
        blocks = [
            np.stack([inputs[len(self.sizes) + model] for inputs in prepared])
            if isinstance(model, int)
            else model(stacks[model.info.input_size])
            for model in self._models
        ]
        vectors, ok = fuse(blocks, self.weights, self.metric)
        return (vectors if self._matrix is None else project(self._matrix, vectors)), ok
