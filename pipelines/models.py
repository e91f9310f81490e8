"""Models on their way into a store: resolved once, on the launching machine, and copied in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lookalike import __version__
from lookalike.models import openvino_engine
from lookalike.models.engine_choice import choose
from lookalike.models.engines import INSTALL, Engine
from lookalike.models.features import Feature, is_normalised
from lookalike.models.handles import builtin_fingerprint, model_files, resolve
from lookalike.models.resolving import FeatureConfig, copy_into
from lookalike.models.resolving import install as install
from lookalike.models.resolving import resolve_features as resolve_features
from lookalike.models.saved_model import ModelInfo
from lookalike.store.storage import file_record, read_json, write_json


def settings(configured: Sequence[FeatureConfig]) -> list[dict[str, Any]]:
    """What the features were asked for as, for a manifest: see `known_features`."""
    return [
        {**asdict(one), "input_size": one.input_size and [*one.input_size]} for one in configured
    ]


def known_features(
    configured: Sequence[FeatureConfig], store: Path, parent: Mapping[str, Any] | None, work: Path
) -> list[Feature] | None:
    """The features of a published snapshot where they are those configured, and None elsewhere.

    Models are told by their fingerprints alone, so that a night without work needs no TensorFlow.

    Args:
        configured: The features as written.
        store: The store's root.
        parent: The published manifest.
        work: A scratch folder for models that must be fetched or unpacked.

    Raises:
        RequestError: A model cannot be had.
    """
    if parent is None or parent["lookalike"] != __version__:
        return None
    if parent["request"].get("models") != settings(configured):
        return None
    found = [replace(Feature.from_json(one), engine=Engine()) for one in parent["features"]]
    for number, feature in enumerate(found):
        handle, there = feature.handle, store / feature.folder / "saved_model.pb"
        if handle.startswith("builtin:"):
            fingerprint = builtin_fingerprint(handle)
        else:
            fingerprint = resolve(handle, work / f"handle-{number}").fingerprint
        if fingerprint != feature.fingerprint or not there.is_file():
            return None
    return found


def choose_engines(
    features: Sequence[Feature],
    asked: str,
    metric: str,
    root: Path,
    work: Path,
    say: Callable[[str], None] = print,
) -> list[Feature]:
    """Choose what runs each model; the features come back with their engines.

    Args:
        features: Resolved.
        asked: The config's `engine`.
        metric: One of `metrics.METRICS`.
        root: What the features' folders are relative to: the `work` of `resolve_features`, or a
            store that has the models.
        work: A scratch folder for converted models.
        say: Takes a line for a person.

    Raises:
        RequestError: The engine asked for by name is not installed or cannot run a model.
    """
    if asked == "auto" and openvino_engine.missing():
        say(f"engine: tensorflow (another may be faster on this machine: {INSTALL})")
        return list(features)
    lengths = not is_normalised(len(features), metric)
    chosen: dict[tuple[str, ModelInfo], Engine] = {}
    for feature in features:
        key = (feature.folder, feature.info)
        if key not in chosen:
            target = work / f"{feature.fingerprint}-{len(chosen)}.xml"
            folder = root / feature.folder
            chosen[key] = choose(asked, folder, feature.info, target, lengths=lengths, say=say)
            say(f"model {feature.name}: engine {chosen[key]}")
    return [replace(one, engine=chosen[one.folder, one.info]) for one in features]


def install_engines(store: Path, folder: str, features: Sequence[Feature]) -> list[Feature]:
    """Copy converted models into the store, each file whole or absent, for workers to load.

    Args:
        store: The store.
        folder: Where to, relative to the store: scratch of the run.
        features: As `choose_engines` gave them.

    Returns:
        The features, naming the copies.
    """
    installed = []
    for feature in features:
        engine = feature.engine
        if engine.path:
            source = Path(engine.path)
            for suffix in (".bin", ".xml"):
                name = f"{folder}/{source.stem}{suffix}"
                copy_into(store, name, source.with_suffix(suffix))
            engine = replace(engine, path=f"{folder}/{source.name}")
        installed.append(replace(feature, engine=engine))
    write_json(store, f"{folder}/engines.json", [asdict(one.engine) for one in installed])
    return installed


def installed_engines(
    store: Path, folder: str, features: Sequence[Feature]
) -> list[Feature] | None:
    """The features as `install_engines` returned them; None where it has not finished."""
    path = store / folder / "engines.json"
    if not path.exists():
        return None
    engines = [Engine(**one) for one in read_json(path)]
    return [replace(one, engine=engine) for one, engine in zip(features, engines, strict=True)]


def model_lines(store: Path, features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The manifest's lines for the models' files."""
    lines = []
    for folder in sorted({feature.folder for feature in features}):
        for name in model_files(store / folder):
            record = file_record(store, f"{folder}/{name}")
            lines.append({**record.to_json(), "kind": "model"})
    return lines
