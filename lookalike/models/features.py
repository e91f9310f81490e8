"""From models to one vector per image: features, their fusion, and the fingerprints of both.

A feature is a model with a weight. Several make a hybrid: each block is brought to unit length and
scaled by the square root of its weight's share, then the blocks are put side by side. The inner
product of two such vectors is the weighted mean of the blocks' cosines, so that fusing vectors and
fusing scores are the same thing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import METRICS, too_long
from lookalike.errors import RequestError
from lookalike.images.cropping import Crop
from lookalike.images.functions import Function, Functions
from lookalike.models import python_files
from lookalike.models.engines import REFERENCE, Engine, open_model
from lookalike.models.projection import Projection, project, read_matrix
from lookalike.models.saved_model import Model, ModelInfo
from lookalike.store.manifest import Manifest

if TYPE_CHECKING:
    from lookalike.store.objects import Store

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Inputs = tuple[npt.NDArray[Any], ...]
"""Of one image: (h, w, 3) uint8 for each size that models take, (dim,) float32 per function."""


@dataclass(frozen=True)
class Feature:
    """One model of a configuration, resolved.

    Attributes:
        name: The user's word for it, unique among the features.
        handle: What it was asked for as.
        weight: Its part in a hybrid, relative to the other features' weights.
        fingerprint: What the model computes (`handles.ResolvedModel.fingerprint`).
        info: How it is called.
        folder: Where the store keeps it, relative to the store: `models/<fingerprint>`.
        engine: What runs it.
        prepared: Key of the files beside the model that spare TensorFlow (`prepared.key_of`); ""
            in stores of older versions.

    Raises:
        RequestError: The name is empty, or the weight is not a positive finite number.
    """

    name: str
    handle: str
    weight: float
    fingerprint: str
    info: ModelInfo
    folder: str
    engine: Engine = field(default_factory=Engine)
    prepared: str = ""

    def __post_init__(self) -> None:
        """Check what the user wrote."""
        if not self.name:
            raise RequestError(f"the feature {self.handle} needs a name")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise RequestError(
                f"the weight of feature {self.name!r} must be a positive number, not {self.weight}"
            )

    def to_json(self) -> dict[str, Any]:
        """As the manifest lists it."""
        return {
            "name": self.name,
            "handle": self.handle,
            "weight": self.weight,
            "fingerprint": self.fingerprint,
            "info": self.info.to_json(),
            "folder": self.folder,
            "engine": self.engine.to_json(),
            "prepared": self.prepared,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Feature:
        """Undo `to_json`."""
        engine = Engine.from_json(data.get("engine", {"name": REFERENCE}))
        return cls(**{**data, "info": ModelInfo.from_json(data["info"]), "engine": engine})


def inputs_of(
    features: Sequence[Feature],
) -> tuple[tuple[tuple[int, int], ...], tuple[Function, ...]]:
    """What a decoder makes of each image: sizes of models' inputs, and functions, each once."""
    functions = {feature: function_of(feature.info) for feature in features}
    sizes = [one.info.input_size for one, function in functions.items() if not function]
    return (
        tuple(dict.fromkeys(sizes)),
        tuple(dict.fromkeys(one for one in functions.values() if one)),
    )


def function_of(info: ModelInfo) -> Function | None:
    """The user's function that a feature is; None for a model."""
    module, _, name = info.function.partition(":")
    return Function(module, name, info.params, info.input_size, info.dim) if module else None


def check(features: Sequence[Feature], metric: str, projection: Projection | None = None) -> None:
    """Check that features can be used together, with a projection behind them.

    Raises:
        RequestError: There are none, two share a name, the metric is unknown or is one that
            compares a single feature, or the projection was learned on vectors of others.
    """
    names = [feature.name for feature in features]
    if not names:
        raise RequestError("there is no feature; name at least one model")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"feature names must differ; used more than once: {', '.join(twice)}")
    if metric not in METRICS:
        raise RequestError(f"the metric must be one of {', '.join(METRICS)}, not {metric!r}")
    if metric == "jaccard" and len(features) > 1:
        raise RequestError(
            f"the metric jaccard compares one histogram feature, and there are {len(features)}; "
            "use cosine for a hybrid"
        )
    if projection is None:
        return
    if metric == "jaccard" or not is_normalised(len(features), metric):
        raise RequestError(
            f"projection {projection.handle}: needs vectors of unit length, and a single feature "
            f"under the metric {metric} has none; use cosine, or leave the projection out"
        )
    given = model_fingerprint(features, metric)
    if given != projection.features:
        raise RequestError(
            f"projection {projection.handle}: was learned on vectors of model "
            f"{projection.features}, the features and weights given are {given}; give those that "
            "it was learned with (its card.md names them), or learn it again"
        )


def described(features: Sequence[Feature], projection: Projection | None = None) -> str:
    """What makes the vectors, to a person: handles, with their shares of the weight."""
    total = sum(feature.weight for feature in features)
    shares = [f" {one.weight / total:.2g}" if len(features) > 1 else "" for one in features]
    named = [f"{one.handle}{share}" for one, share in zip(features, shares, strict=True)]
    behind = f", projection {projection.handle}" if projection else ""
    return (" + ".join(named) or "none") + behind


def dim_of(features: Sequence[Feature], projection: Projection | None = None) -> int:
    """Components of the vectors of features, and of a projection behind them."""
    return projection.dim if projection else sum(feature.info.dim for feature in features)


def folders_of(features: Sequence[Feature], projection: Projection | None) -> list[str]:
    """Where models lie, relative to their store."""
    return [*(one.folder for one in features), *([projection.folder] if projection else [])]


def stored_features(store: Store, manifest: Manifest) -> list[Feature]:
    """The features that made a snapshot's vectors, to make others that compare with them.

    Raises:
        RequestError: The snapshot was made with another preprocessing, or without models.
    """
    features = [Feature.from_json(line) for line in manifest.get("features") or []]
    if not features:
        raise RequestError(
            f"{store}: its vectors were made elsewhere, without models, so pictures cannot be "
            "embedded; search it with vectors (query --vectors)"
        )
    here, there = preprocessing_fingerprint(features), manifest["preprocessing_fingerprint"]
    if here != there:
        raise RequestError(
            f"{store}: its pictures were prepared with preprocessing {there}, this lookalike "
            f"prepares others with {here}; use the version that made the store, or index again"
        )
    return features


def is_normalised(blocks: int, metric: str) -> bool:
    """Tell whether vectors have unit length: hybrids always, one feature under cosine."""
    return blocks > 1 or metric == "cosine"


def fuse(blocks: Sequence[Vectors], weights: Sequence[float], metric: str) -> tuple[Vectors, Mask]:
    """Join the vectors of several features into one vector per image.

    A hybrid, or any feature under cosine, gives unit rows. Where a block of a hybrid is zero (a
    descriptor that found nothing) it stays zero and the other blocks share its weight, so that the
    row has unit length all the same. A single feature under another metric passes as it is.

    Args:
        blocks: One (n, d_i) float array per feature.
        weights: One positive number per feature; only their shares of the sum matter.
        metric: One of `METRICS`.

    Returns:
        (n, sum of d_i) float32, and (n,) bool: whether the row can be used. It cannot when any
        value is not finite, when all are zero, for jaccard when one is negative, or, where the row
        keeps its length, when that is more than `metrics.LONGEST`; such rows are zeros.
    """
    rows = len(blocks[0])
    fused = np.empty((rows, sum(block.shape[1] for block in blocks)), np.float32)
    ok = np.ones(rows, np.bool_)
    for block in blocks:
        ok &= np.isfinite(block).all(axis=1)
        if metric == "jaccard":
            ok &= (block >= 0).all(axis=1)
        if not is_normalised(len(blocks), metric):
            ok &= ~too_long(block, metric)
    norms = [_norms(block, ok) for block in blocks]
    # Shares of the weight of those blocks of a row that are not zero.
    total = sum((w * (norm > 0) for w, norm in zip(weights, norms, strict=True)), np.zeros(rows))
    ok &= total > 0

    start = 0
    for block, weight, norm in zip(blocks, weights, norms, strict=True):
        end = start + block.shape[1]
        use = ok & (norm > 0)
        factor = np.zeros(rows)
        if is_normalised(len(blocks), metric):
            np.divide(np.sqrt(weight / np.where(use, total, 1)), norm, out=factor, where=use)
        else:
            factor[use] = 1
        usable = np.where(use[:, None], block, 0)
        np.multiply(usable, factor[:, None], out=fused[:, start:end], casting="same_kind")
        start = end
    return fused, ok


def _norms(block: Vectors, ok: Mask) -> npt.NDArray[np.float64]:
    """Lengths of the rows; 0 for rows not ok, and for those too short to have a direction."""
    # In double precision, where no square of a float32 overflows or vanishes.
    squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
    norms = np.sqrt(np.where(ok, squares, 0))
    return np.where(norms >= np.finfo(np.float32).tiny, norms, 0)


def preprocessing_fingerprint(features: Sequence[Feature]) -> str:
    """Identify everything between an image file and the models' inputs: 64 hex digits.

    Covers decoding and resizing (`images.PREPROCESSING`), and each feature's input size and value
    range, in order.
    """
    from lookalike.images import preparing as images  # Pillow is not needed for anything else here

    inputs = [[*feature.info.input_size, feature.info.input_dtype] for feature in features]
    ranges = {"float32": [0, 1], "uint8": [0, 255]}
    return _digest({"pixels": images.PREPROCESSING, "inputs": inputs, "ranges": ranges})


def model_fingerprint(
    features: Sequence[Feature], metric: str, projection: Projection | None = None
) -> str:
    """Identify everything between the models' inputs and an image's vector: 64 hex digits.

    Covers each model's own fingerprint, what is called and taken from it, an engine whose vectors
    are not the reference's, how blocks are joined (weights by their shares), and the projection by
    its fingerprint. Names and handles do not enter, nor what is a matter of speed alone: freezing,
    and other engines.
    """
    normalised = is_normalised(len(features), metric)
    total = sum(feature.weight for feature in features)
    blocks = [
        {
            **block,
            # Equal shares must give equal text, whatever the division left in the last digit.
            "share": f"{feature.weight / total:.12g}",
        }
        for feature, block in zip(features, blocks_of(features), strict=True)
    ]
    behind = {"projection": projection.fingerprint} if projection else {}
    return _digest(
        {"blocks": blocks, "fusion": "unit-blocks-1" if normalised else "raw-1", **behind}
    )


def blocks_of(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """What makes each block of a vector, but for its weight."""
    return [
        {
            "model": feature.fingerprint,
            "signature": feature.info.signature,
            "output": feature.info.output,
            "pooled": feature.info.pooled,
            "dim": feature.info.dim,
            **({"engine": feature.engine.name} if feature.engine.deviates else {}),
        }
        for feature in features
    ]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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

        Args:
            prepared: What `prepare` returned, for n images.

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
