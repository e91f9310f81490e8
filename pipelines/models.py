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
from lookalike.models.inspection import inspect
from lookalike.models.saved_model import ModelInfo, configure_threads
from lookalike.store.storage import file_record, read_json, write_file, write_json
from pipelines.config import FeatureConfig


def resolve_features(
    configured: Sequence[FeatureConfig],
    work: Path,
    say: Callable[[str], None] = print,
    threads: int | None = None,
) -> list[Feature]:
    """Resolve and inspect every feature's model; nothing is written outside `work`.

    A resolved model can be found at work/<feature.folder> as it will be in the store.

    Args:
        configured: The features as written.
        work: A scratch folder.
        say: Takes a line for a person.
        threads: TensorFlow threads of this process, for `choose_engines` to compare engines as
            they will run in a worker; None leaves that to TensorFlow.

    Raises:
        RequestError: A model cannot be had, or cannot be used as configured.
    """
    if threads is not None:
        configure_threads(threads)
    (work / "models").mkdir(exist_ok=True)
    features = []
    for number, one in enumerate(configured):
        if not one.handle.startswith("builtin:"):
            say(f"model {one.name}: {one.handle}")
        model = resolve(one.handle, work / f"handle-{number}")
        info = inspect(
            model.folder, signature=one.signature, output=one.output, input_size=one.input_size
        )
        info = replace(info, rewritten=not model.builtin)
        if info.size_assumed:
            say(
                f"model {one.name}: takes pictures of any size; "
                f"{info.input_size[0]}x{info.input_size[1]} is used (features: input_size sets it)"
            )
        folder = f"models/{model.fingerprint}"
        link = work / folder
        if not link.is_symlink():
            link.symlink_to(model.folder.resolve())
        features.append(Feature(one.name, one.handle, one.weight, model.fingerprint, info, folder))
    return features


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


def install(store: Path, features: Sequence[Feature], work: Path) -> None:
    """Copy the models into the store, each file whole or absent; those there are left alone."""
    for feature in features:
        source = work / feature.folder
        # saved_model.pb last: a folder that has it has all of the model
        names = sorted(model_files(source), key=lambda name: (name == "saved_model.pb", name))
        if (store / feature.folder / "saved_model.pb").exists():
            continue
        for name in names:
            _copy(source / name, store, f"{feature.folder}/{name}")


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
                _copy(source.with_suffix(suffix), store, name)
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


def _copy(source: Path, store: Path, name: str) -> None:
    with write_file(store, name) as pending, open(source, "rb") as file:
        while chunk := file.read(1 << 20):
            pending.write(chunk)


def model_lines(store: Path, features: Sequence[Feature]) -> list[dict[str, Any]]:
    """The manifest's lines for the models' files."""
    lines = []
    for folder in sorted({feature.folder for feature in features}):
        for name in model_files(store / folder):
            record = file_record(store, f"{folder}/{name}")
            lines.append({**record.to_json(), "kind": "model"})
    return lines
