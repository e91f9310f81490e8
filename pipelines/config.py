"""The config: one YAML file, checked on load: a wrong key fails in a second, not in an hour."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lookalike.distances import METRICS
from lookalike.errors import RequestError
from lookalike.images.limits import ImageLimits
from lookalike.ivf.spec import KINDS
from lookalike.models.engines import CHOICES
from lookalike.models.fusing import is_normalised
from lookalike.models.onnx_preprocessing import OPTIONS, checked
from lookalike.models.python_files import checked_params
from lookalike.models.resolving import DEFAULT_FEATURES, FeatureConfig
from lookalike.pipelines import config_values as values
from lookalike.pipelines.engines import ENGINES
from lookalike.pipelines.runner import RunnerSpec
from lookalike.sources.selection import Selection

DTYPES = ("auto", "float32", "float16")


@dataclass(frozen=True)
class PublishConfig:
    """Limits under which a run does not publish (exit status 3), and what it publishes.

    Attributes:
        min_recall: Of the certificate.
        max_rejected_share: Of the files tried.
        max_shrink_share: Of the files known.
        max_unreadable_share: Of the files known.
        report: Whether there is a report; no key of a config: nobody reads that of a cached store.
    """

    min_recall: float = 0.90
    max_rejected_share: float = 0.5
    max_shrink_share: float = 0.5
    max_unreadable_share: float = 0.5
    report: bool = True


@dataclass(frozen=True)
class CompactConfig:
    """From when on a run writes embeddings and index anew, in place of adding to them."""

    max_delta_share: float = 0.25
    max_tombstone_share: float = 0.2
    max_deltas: int = 16


@dataclass(frozen=True)
class Config:
    """A checked config; `index` holds the planner's options by name."""

    features: tuple[FeatureConfig, ...]
    metric: str = "cosine"
    index: Mapping[str, Any] = field(default_factory=dict)
    publish: PublishConfig = field(default_factory=PublishConfig)
    compact: CompactConfig = field(default_factory=CompactConfig)
    runner: RunnerSpec = field(default_factory=RunnerSpec)
    limits: ImageLimits = field(default_factory=ImageLimits)
    unit_files: int = 0
    engine: str = "auto"
    dtype: str = "auto"
    selection: Selection = field(default_factory=Selection)
    projection: str | None = None


def load_config(
    path: str, beam_arguments: list[str] | None = None, *, vectors: bool = False
) -> Config:
    """Read and check a config file; with `vectors`, one for vectors made elsewhere.

    Raises:
        RequestError: It cannot be read, or a key, a type, a value or a combination is wrong; the
            message names the key, the rule and the value.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        raw = yaml.load(text, _OnceEach)
    except RequestError as error:
        raise RequestError(f"config {path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise RequestError(f"config {path}: {reason}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date 2024-99-99 is the second
        raise RequestError(f"config {path}: not YAML: {' '.join(str(error).split())}") from error
    try:
        return parse_config(raw, beam_arguments or [], Path(path).resolve().parent, vectors)
    except RequestError as error:
        raise RequestError(f"config {path}: {error}") from error


class _OnceEach(yaml.SafeLoader):
    """YAML in which a key is given once: else the last one counts, and nobody is told."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node.

        Raises:
            RequestError: A key is given twice.
        """
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                before = seen.setdefault(key.value, value)
                if before is not value:
                    lines = (before.start_mark.line + 1, value.start_mark.line + 1)
                    given = (getattr(one, "value", None) for one in (before, value))
                    first, second = (one if isinstance(one, str) else "…" for one in given)
                    raise RequestError(
                        f"{key.value}: given twice, as {first} in line {lines[0]} and as {second} "
                        f"in line {lines[1]}; keep one"
                    )
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def parse_config(
    raw: Any, beam_arguments: list[str], folder: Path | None = None, vectors: bool = False
) -> Config:
    """Check what YAML gave; `folder` is where relative model paths may also start."""
    top = values.mapping("the config", raw)
    known = (
        "features",
        "projection",
        "metric",
        "engine",
        "index",
        "publish",
        "compact",
        "runner",
        "images",
        "embed",
    )
    values.known_keys("", top, known)
    metric = values.one_of("metric", top.get("metric", "cosine"), METRICS)
    features = DEFAULT_FEATURES
    if vectors:
        features = _no_features(top)
    elif "features" in top:
        features = _features(top["features"], folder)
    if metric == "jaccard" and len(features) > 1:
        raise RequestError(
            f"metric: jaccard compares one histogram feature, and features lists {len(features)}; "
            "use cosine for a hybrid"
        )
    limits, selection = _images(top.get("images", {}))
    projection = values.text("projection", top.get("projection"))
    if projection is not None and (metric == "jaccard" or not is_normalised(len(features), metric)):
        raise RequestError(
            f"projection: needs vectors of unit length, and a single feature under metric {metric} "
            "has none; use cosine, or remove projection"
        )
    unit_files, dtype = _embed(top.get("embed", {}))
    return Config(
        features,
        metric,
        _index(top.get("index", {})),
        _publish(top.get("publish", {})),
        _compact(top.get("compact", {})),
        _runner(top.get("runner", {}), beam_arguments),
        limits,
        unit_files,
        values.one_of("engine", top.get("engine", "auto"), CHOICES),
        dtype,
        selection,
        projection and _beside_config(projection, folder),
    )


def _no_features(top: Mapping[str, Any]) -> tuple[FeatureConfig, ...]:
    for key in ("features", "projection", "engine", "images"):
        if key in top:
            raise RequestError(
                f"{key}: vectors made elsewhere (--embeddings) need no models, and {key} is "
                f"{values.shown(top[key])}; remove it, or index pictures with --images"
            )
    return ()


def _features(value: Any, folder: Path | None) -> tuple[FeatureConfig, ...]:
    if not isinstance(value, list) or not value:
        raise RequestError(
            "features: needs a list of at least one feature, for example "
            f"- {{name: low, handle: builtin:color-texture}}; got {values.shown(value)}"
        )
    features = tuple(_feature(f"features[{i}]", one, folder) for i, one in enumerate(value))
    names = [one.name for one in features]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"features: the name {name!r} is given twice; names must differ")
    return features


def _feature(key: str, value: Any, folder: Path | None) -> FeatureConfig:
    raw = values.mapping(key, value)
    values.known_keys(
        key,
        raw,
        ("name", "handle", "weight", "signature", "output", "input_size", *OPTIONS, "params"),
    )
    for needed in ("name", "handle"):
        if not isinstance(raw.get(needed), str) or not raw[needed].strip():
            raise RequestError(f"{key}.{needed}: needs a text, got {values.shown(raw.get(needed))}")
    options = {name: raw[name] for name in OPTIONS if name in raw}
    checked(options, key)
    if "params" in raw:
        options["params"] = checked_params(raw["params"], key)
    return FeatureConfig(
        raw["name"],
        _beside_config(raw["handle"], folder),
        values.number(f"{key}.weight", raw.get("weight", 1.0), low=0, above=True),
        values.text(f"{key}.signature", raw.get("signature")),
        values.text(f"{key}.output", raw.get("output")),
        values.pair_of_sides(f"{key}.input_size", raw.get("input_size")),
        options,
    )


def _beside_config(handle: str, folder: Path | None) -> str:
    """A relative model path may be meant from here or from the config's folder."""
    relative = not re.match(r"^[a-z0-9+.-]+:", handle) and not handle.startswith(("/", "~"))
    if relative and folder and not Path(handle).exists() and (folder / handle).exists():
        return str(folder / handle)
    return handle


def _index(value: Any) -> dict[str, Any]:
    raw = dict(values.mapping("index", value))
    checks: dict[str, Callable[[str, Any], Any]] = {
        "kind": lambda key, given: values.one_of(key, given, ("auto", *KINDS)),
        "target_recall": lambda key, given: values.number(key, given, low=0, high=1, above=True),
        "memory": values.byte_count,
        "nlist": values.positive,
        "code_bytes": values.positive,
        "nbits": values.positive,
        "shards": values.positive,
        "seed": lambda key, given: values.integer(key, given, low=0),
        "queries": values.positive,
    }
    values.known_keys("index", raw, tuple(checks))
    checked = {name: checks[name](f"index.{name}", given) for name, given in raw.items()}
    if checked.get("kind") == "exact":
        for name in ("nlist", "code_bytes", "nbits"):
            if name in checked:
                raise RequestError(
                    f"index.{name}: an exact index has no {name}; remove it or set kind: ivf_pq"
                )
    return checked


def _publish(value: Any) -> PublishConfig:
    raw = values.mapping("publish", value)
    shares = ("max_rejected_share", "max_shrink_share", "max_unreadable_share")
    values.known_keys("publish", raw, ("min_recall", *shares))
    limits: dict[str, Any] = {
        name: values.number(f"publish.{name}", given, low=0, high=1) for name, given in raw.items()
    }
    return PublishConfig(**limits)


def _compact(value: Any) -> CompactConfig:
    raw = values.mapping("compact", value)
    checks: dict[str, Callable[[str, Any], Any]] = {
        "max_delta_share": values.share,
        "max_tombstone_share": values.share,
        "max_deltas": values.positive,
    }
    values.known_keys("compact", raw, tuple(checks))
    return CompactConfig(
        **{name: checks[name](f"compact.{name}", one) for name, one in raw.items()}
    )


def _runner(value: Any, beam_arguments: list[str]) -> RunnerSpec:
    raw = dict(values.mapping("runner", value))
    name = values.one_of("runner.name", raw.pop("name", "direct"), tuple(ENGINES))
    workers = values.integer("runner.workers", raw.pop("workers", 0), low=0)
    return RunnerSpec(name, workers, raw, tuple(beam_arguments))


def _images(value: Any) -> tuple[ImageLimits, Selection]:
    raw = values.mapping("images", value)
    checks: dict[str, Callable[[str, Any], Any]] = {
        "max_pixels": values.positive,
        "max_bytes": values.byte_count,
        "max_memory": values.byte_count,
        "max_frames": values.positive,
        "max_seconds": lambda key, given: values.number(key, given, low=0, above=True),
        "truncated": lambda key, given: values.one_of(key, given, ("reject", "accept")),
    }
    selection = ("exclude", "hidden")
    values.known_keys("images", raw, (*checks, *selection))
    limits = {name: checks[name](f"images.{name}", raw[name]) for name in checks if name in raw}
    return ImageLimits(**limits), _selection(raw.get("exclude", []), raw.get("hidden", True))


def _selection(exclude: Any, hidden: Any) -> Selection:
    if not isinstance(exclude, list) or not all(isinstance(one, str) and one for one in exclude):
        raise RequestError(
            "images.exclude: needs a list of patterns, as in a .gitignore, for example "
            f"[cache/, '*.tmp']; got {values.shown(exclude)}"
        )
    if not isinstance(hidden, bool):
        raise RequestError(f"images.hidden: needs true or false, got {values.shown(hidden)}")
    selection = Selection(tuple(exclude), hidden)
    selection.check()
    return selection


def _embed(value: Any) -> tuple[int, str]:
    raw = values.mapping("embed", value)
    values.known_keys("embed", raw, ("unit_files", "dtype"))
    unit_files = values.integer("embed.unit_files", raw.get("unit_files", 0), low=0)
    return unit_files, values.one_of("embed.dtype", raw.get("dtype", "auto"), DTYPES)
