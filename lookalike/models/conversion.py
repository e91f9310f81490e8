"""New vectors out of stored ones, where other weights or a projection are all that changes.

The blocks of a hybrid lie in its vector at unit length, each scaled by the root of its weight's
share. So the vector by other weights follows from the stored one without a look at the picture, up
to rounding; and a projection is applied to what features and weights gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lookalike.distances import Vectors
from lookalike.models.features import Feature, blocks_of, model_fingerprint
from lookalike.models.fusing import fuse, is_normalised
from lookalike.models.projection import Projection, project, read_matrix, stored_projection
from lookalike.store.attempts import Record
from lookalike.store.converting import ConvertTask, convert_shard
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store


@dataclass(frozen=True)
class Conversion:
    """What makes new vectors of stored ones."""

    dims: tuple[int, ...]
    weights: tuple[float, ...]
    metric: str
    projection: Projection | None
    why: str

    @property
    def dim(self) -> int:
        """Components of the new vectors."""
        return self.projection.dim if self.projection else sum(self.dims)

    def load(self, store: Store) -> Callable[[Vectors], Vectors]:
        """A function from stored vectors (n, sum of dims) to new ones (n, dim)."""
        matrix = (
            read_matrix(store.local_folder(self.projection.folder)) if self.projection else None
        )

        def convert(vectors: Vectors) -> Vectors:
            found = rescale(vectors, self.dims, self.weights, self.metric)
            return found if matrix is None else project(matrix, found)

        return convert


@dataclass(frozen=True)
class Converting:
    """`convert_shard`, as the work of tasks wherever they run."""

    conversion: Conversion
    properties: Mapping[str, str]

    def __call__(self, task: ConvertTask, store: Store) -> Record:
        """Do one task."""
        convert = self.conversion.load(store)
        return convert_shard(task, store, convert, self.conversion.dim, self.properties)


def rescale(
    vectors: Vectors, dims: Sequence[int], weights: Sequence[float], metric: str
) -> Vectors:
    """The vectors (n, d) of a hybrid as other weights would have made them, (n, d) float32."""
    blocks = np.split(vectors, np.cumsum(dims)[:-1], axis=1)
    found, _ = fuse(blocks, weights, metric)
    return found


def conversion(
    made: Manifest,
    features: Sequence[Feature],
    projection: Projection | None,
    metric: str,
) -> Conversion | None:
    """How to make vectors of a snapshot's; None where that cannot be done, or need not."""
    old = [Feature.from_json(line) for line in made.get("features") or []]
    before = stored_projection(made)
    alike = made["metric"] == metric and blocks_of(old) == blocks_of(features)
    if not alike or not is_normalised(len(features), metric) or before is not None:
        return None  # what was projected does not tell what it was before
    if model_fingerprint(old, metric) != made["model_fingerprint"]:
        return None  # made by a version that joined blocks in another way
    if model_fingerprint(features, metric, projection) == made["model_fingerprint"]:
        return None
    changes = []
    if model_fingerprint(features, metric) != made["model_fingerprint"]:
        changes.append(f"weights {_shares(features)}, before {_shares(old)}")
    if projection is not None:
        changes.append(
            f"projection {projection.handle}, {projection.inputs:,} to {projection.dim:,} "
            "components"
        )
    return Conversion(
        tuple(feature.info.dim for feature in features),
        tuple(feature.weight for feature in features),
        metric,
        projection,
        "; ".join(changes),
    )


def _shares(features: Sequence[Feature]) -> str:
    total = sum(feature.weight for feature in features)
    return ", ".join(f"{feature.name} {feature.weight / total:.3g}" for feature in features)
