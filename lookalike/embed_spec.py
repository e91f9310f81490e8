"""What a worker needs in order to embed: checked where it is made, not in the first bundle.

No engine is imported here; `lookalike.transforms.embed` runs what a spec says in a pipeline.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from lookalike.errors import RequestError, one_line
from lookalike.images.limits import ImageLimits
from lookalike.models.embedder import Embedder
from lookalike.models.features import (
    Feature,
    check,
    dim_of,
    folders_of,
    model_fingerprint,
    preprocessing_fingerprint,
    stored_features,
)
from lookalike.models.handles import MARKERS, marker_of
from lookalike.models.projection import MATRIX, Projection, stored_projection
from lookalike.models.resolving import (
    FeatureConfig,
    install,
    resolve_features,
    resolve_projection,
)
from lookalike.outcomes import Embedded, Failed
from lookalike.store.objects import open_store
from lookalike.store.shard_format import schema
from lookalike.store.snapshot import read_manifest
from lookalike.store.storage import is_remote, store_place
from lookalike.whole_numbers import whole_number

DTYPES = ("float32", "float16")
FAILED_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("content_sha256", pa.binary(32)),
    ]
)
"""Of what `EmbedImages` calls failed, columns as in a ledger; no hash where no byte was read."""
_NO_METADATA = pa.schema([])


@dataclass(frozen=True)
class EmbedSpec:
    """Everything a worker needs to embed; see `from_store` and `from_handles` for making one.

    Attributes:
        features: One, or several for a hybrid; each names its model folder below `store`.
        store: What holds the models, and takes what units make: a folder, under this name on the
            launching machine and on every worker; or the URI of a store on object storage, from
            which every worker fetches them.
        metric: Decides whether vectors are normalised (see `models.fusing`).
        limits: What a file may ask for before it is decoded.
        threads: TensorFlow threads per worker process.
        dtype: Vectors are stored as: float32 or float16.
        forgotten: Files below `store` that list contents which must not come back.
        projection: Behind the features, in `store` too.

    Raises:
        RequestError: A value cannot be used, or a model is not where it should be.
    """

    features: tuple[Feature, ...]
    store: str
    metric: str = "cosine"
    limits: ImageLimits = field(default_factory=ImageLimits)
    threads: int = 1
    dtype: str = "float32"
    forgotten: tuple[str, ...] = ()
    projection: Projection | None = None

    def __post_init__(self) -> None:
        """Check everything, and make what is relative absolute: a worker is elsewhere."""
        self._set("features", _features(self.features))
        check(self.features, self.metric, self.projection)
        if self.dtype not in DTYPES:
            raise RequestError(f"dtype: needs one of {', '.join(DTYPES)}, got {self.dtype!r}")
        self._set("threads", whole_number("threads", self.threads))
        if not isinstance(self.limits, ImageLimits):
            raise RequestError(f"limits: needs an ImageLimits, got {self.limits!r}")
        self._set("forgotten", tuple(self.forgotten))
        self._set("store", store_place(self.store))
        if not is_remote(self.store):
            self._check_folder(Path(self.store))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RequestError(
                f"store: {folder} is no folder here; name the store's root, or make a folder with "
                "models in it: EmbedSpec.from_handles"
            )
        for feature in self.features:
            if not marker_of(folder / feature.folder):
                raise RequestError(
                    f"store: {folder} lacks the model of feature {feature.name!r}: there is no "
                    f"{feature.folder}/{MARKERS[0]} in it; name the store that the feature was "
                    "made for, or make a folder with it: EmbedSpec.from_handles"
                )
        if self.projection and not (folder / self.projection.folder / MATRIX).is_file():
            raise RequestError(
                f"store: {folder} lacks the projection: there is no {self.projection.folder}/"
                f"{MATRIX} in it; name the store that it was made for, or make a folder with it: "
                "EmbedSpec.from_handles"
            )

    @classmethod
    def from_store(
        cls, store: str | os.PathLike[str], snapshot: str | None = None, *, threads: int = 1
    ) -> EmbedSpec:
        """The models and the preprocessing of a snapshot: vectors that its vectors compare with.

        Args:
            store: The store's folder, or its URI on object storage.
            snapshot: Another snapshot than the published one, by name.
            threads: TensorFlow threads per worker process.

        Raises:
            RequestError: Nothing is published there, its vectors were made elsewhere, or its
                pictures were prepared by another preprocessing than this version's.
        """
        place = store_place(store)
        manifest = read_manifest(open_store(place), snapshot)
        request = manifest.get("request", {})
        known = {one.name for one in fields(ImageLimits)}
        given = {key: value for key, value in request.get("images", {}).items() if key in known}
        return cls(
            tuple(stored_features(open_store(place), manifest)),
            place,
            manifest["metric"],
            ImageLimits(**given),
            threads,
            "float16" if request.get("dtype") == "float16" else "float32",
            projection=stored_projection(manifest),
        )

    @classmethod
    def from_handles(
        cls,
        handles: Sequence[str | FeatureConfig] | str,
        folder: str | os.PathLike[str],
        *,
        weights: Sequence[float] | None = None,
        metric: str = "cosine",
        limits: ImageLimits | None = None,
        threads: int = 1,
        dtype: str = "float32",
        projection: str | os.PathLike[str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> EmbedSpec:
        """Fetch models, find out how they are called, and copy them into a folder for workers.

        A model that is in the folder already is left alone, so that a pipeline may do this at
        every start.

        Args:
            handles: As in a config: `builtin:<name>`, a SavedModel folder or archive, a URL; or,
                where a model leaves something open, a `FeatureConfig`.
            folder: Where the models go; made if absent. Every worker must see it.
            weights: One for each handle; equal ones by default.
            metric: One of `metrics.METRICS`.
            limits: What a file may ask for before it is decoded.
            threads: TensorFlow threads per worker process.
            dtype: Vectors are stored as: float32 or float16.
            projection: The folder that `lookalike adapt` made for these handles and weights; it is
                copied beside the models.
            say: Told what is fetched.

        Raises:
            RequestError: A model cannot be had or used, or a value cannot.
        """
        configured = _configured(handles, weights)
        place = store_place(folder)
        if is_remote(place):
            raise RequestError(
                f"folder: models are copied into a folder that workers see, and {place} is a URI; "
                "name a folder, or publish a store there and use EmbedSpec.from_store"
            )
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"folder: {place} cannot be made: {one_line(error)}") from error
        with TemporaryDirectory(prefix="lookalike-") as work:
            behind = resolve_projection(_folder(projection), Path(work))
            features = resolve_features(configured, Path(work), say)
            check(features, metric, behind)
            install(open_store(Path(place)), features, Path(work), behind)
        return cls(
            tuple(features),
            place,
            metric,
            limits or ImageLimits(),
            threads,
            dtype,
            projection=behind,
        )

    @property
    def dim(self) -> int:
        """Components of a vector."""
        return dim_of(self.features, self.projection)

    @property
    def properties(self) -> dict[str, str]:
        """What made the vectors, as the key-value metadata of a Parquet file say it."""
        return {
            "lookalike.model_fingerprint": model_fingerprint(
                self.features, self.metric, self.projection
            ),
            "lookalike.preprocessing_fingerprint": preprocessing_fingerprint(self.features),
        }

    @property
    def schema(self) -> pa.Schema:
        """Of what `EmbedImages` calls embedded: an embedding shard's, without the id."""
        shard = schema(self.dim, _NO_METADATA, self.properties, self.dtype)
        return shard.remove(shard.get_field_index("id"))

    def record(self, uri: str, outcome: Embedded | Failed) -> dict[str, Any]:
        """A flat row: of `schema` for a vector, of `FAILED_SCHEMA` for none."""
        if isinstance(outcome, Failed):
            return {
                "uri": uri,
                "status": outcome.status,
                "reason": outcome.reason,
                "detail": outcome.detail,
                "content_sha256": outcome.sha256,
            }
        return {
            "uri": uri,
            "content_sha256": outcome.sha256,
            "width": outcome.width,
            "height": outcome.height,
            "format": outcome.format,
            "bytes": outcome.bytes,
            "embedding": outcome.vector.astype(self.dtype),
        }

    def load(self) -> Embedder:
        """The models, in this process."""
        folder = open_store(self.store).local_tree(folders_of(self.features, self.projection))
        return Embedder(
            self.features, folder, self.metric, threads=self.threads, projection=self.projection
        )


def _features(given: Any) -> tuple[Feature, ...]:
    try:
        features = tuple(given)
    except TypeError:
        features = (given,)
    for one in features:
        if not isinstance(one, Feature):
            raise RequestError(
                f"features: needs Feature values, got {one!r:.80}; for handles there is "
                "EmbedSpec.from_handles, for those of a store EmbedSpec.from_store"
            )
    return features


def _configured(
    handles: Sequence[str | FeatureConfig] | str, weights: Sequence[float] | None
) -> list[FeatureConfig]:
    """The features as a config would have them: named by their handles."""
    given = [handles] if isinstance(handles, str | FeatureConfig) else list(handles)
    if weights is not None and len(weights) != len(given):
        raise RequestError(f"weights: {len(weights)} are given for {len(given)} handles")
    found: list[FeatureConfig] = []
    for number, one in enumerate(given):
        if isinstance(one, str):
            one = FeatureConfig(_name_of(one, {made.name for made in found}), one)
        if not isinstance(one, FeatureConfig):
            raise RequestError(f"handles: a handle is a text or a FeatureConfig, got {one!r:.80}")
        if weights is not None:
            one = FeatureConfig(**{**one.__dict__, "weight": weights[number]})
        found.append(one)
    return found


def _folder(projection: Any) -> str | None:
    if projection is None or isinstance(projection, str):
        return projection
    if isinstance(projection, os.PathLike):
        return str(os.fspath(projection))
    raise RequestError(f"projection: needs the name of a folder, got {projection!r:.80}")


def _name_of(handle: str, taken: set[str]) -> str:
    """A name for a feature: the end of its handle, with a number where that is taken."""
    end = handle.rstrip("/").rpartition("/")[2].rpartition(":")[2] or "feature"
    names = (end if number == 1 else f"{end}-{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
