"""Features, what they make together, and the fingerprints of that.

A feature is a model with a weight. Several make a hybrid (see `lookalike.models.fusing`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.images.functions import Function
from lookalike.models.engines import REFERENCE, Engine
from lookalike.models.fusing import is_normalised
from lookalike.models.projection import Projection
from lookalike.models.saved_model import ModelInfo
from lookalike.store.manifest import Manifest

if TYPE_CHECKING:
    from lookalike.store.objects import Store


@dataclass(frozen=True)
class Feature:
    """One model of a configuration, resolved.

    Attributes:
        name: The user's word for it, unique among the features.
        handle: What it was asked for as.
        weight: Its part in a hybrid, relative to the other features' weights.
        fingerprint: What the model computes (`handles.ResolvedModel.fingerprint`).
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
