"""Models on their way into a store: resolved once, on the launching machine, and copied in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lookalike.models import openvino_engine
from lookalike.models.engines import INSTALL, Engine, choose
from lookalike.models.features import Feature
from lookalike.models.fusing import is_normalised
from lookalike.models.prepared import belongs, read
from lookalike.models.projection import Projection
from lookalike.models.resolving import FeatureConfig
from lookalike.store import snapshot
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.objects import Store


def settings(configured: Sequence[FeatureConfig]) -> list[dict[str, Any]]:
    """What the features were asked for as, for a manifest."""
    return [
        {**asdict(one), "input_size": one.input_size and [*one.input_size]} for one in configured
    ]


def choose_engines(
    features: Sequence[Feature],
    asked: str,
    metric: str,
    root: Path,
    say: Callable[[str], None] = print,
) -> list[Feature]:
    """Choose what runs each model; the features come back with their engines.

    Args:
        features: Resolved.
        asked: The config's `engine`.
        metric: One of `metrics.METRICS`.
        root: What the features' folders are relative to: the `work` of `resolve_features`, or a
            store that has the models.
        say: Takes a line for a person.

    Raises:
        RequestError: The engine asked for by name is not installed or cannot run a model.
    """
    if asked == "auto" and openvino_engine.missing():
        say(f"engine: tensorflow (another may be faster on this machine: {INSTALL})")
        return list(features)
    lengths = not is_normalised(len(features), metric)
    chosen = []
    for feature in features:
        found = read(root / feature.folder, feature.prepared)
        engine = Engine()
        if found is not None:
            name = f"model {feature.name}"
            engine = choose(asked, name, found, lengths=lengths, say=say)
            say(f"{name}: engine {engine.name if engine.name == found.info.reference else engine}")
        chosen.append(replace(feature, engine=engine))
    return chosen


def model_lines(
    store: Store,
    features: Sequence[Feature],
    projection: Projection | None = None,
    parent: Manifest | None = None,
) -> list[FileLine]:
    """The manifest's lines for the models' files in the store; those of a parent stand."""
    known = {line["path"]: line for line in snapshot.files_of(parent, "model")} if parent else {}
    names = {
        path
        for feature in features
        for path in store.files(feature.folder)
        if belongs(path[len(feature.folder) + 1 :], feature.prepared)
    }
    if projection:
        names.update(store.files(projection.folder))
    return [known.get(name) or store.record(name).line("model") for name in sorted(names)]
