"""From handles to models in a folder for workers: resolved once, on the launching machine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lookalike.models.features import Feature
from lookalike.models.handles import MARKERS, ResolvedModel, marker_of, model_files, resolve
from lookalike.models.onnx_files import link_to
from lookalike.models.preparation import Task, is_current, models_cache, prepare
from lookalike.models.prepared import card, files, key_of, read
from lookalike.models.projection import ABOUT, CARD, MATRIX, Projection, open_folder
from lookalike.store.objects import Store


@dataclass(frozen=True)
class FeatureConfig:
    """One feature as written: a handle, its weight, and what its model leaves open.

    `options` holds what only some kinds of models take: `onnx_preprocessing.OPTIONS`,
    and `python_files.OPTIONS`.
    """

    name: str
    handle: str
    weight: float = 1.0
    signature: str | None = None
    output: str | None = None
    input_size: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


DEFAULT_FEATURES: tuple[FeatureConfig, ...] = (
    FeatureConfig("deep", "builtin:photo", 0.7),
    FeatureConfig("low", "builtin:color-texture", 0.3),
)
"""What pictures are compared by unless a config says: what they show, then how it looks."""


def resolve_features(
    configured: Sequence[FeatureConfig],
    work: Path,
    say: Callable[[str], None] = print,
    store: Store | None = None,
) -> list[Feature]:
    """Resolve every feature's model, and find out how it is called.

    What was found out before, on this machine or for this store, is not found out again. Nothing is
    written outside `work` and the cache. A resolved model can be found at work/<feature.folder> as
    it will be in the store, but for what the store has already.

    Raises:
        RequestError: A model cannot be had, or cannot be used as configured.
    """
    cache = models_cache(work)
    resolved: list[ResolvedModel] = []
    for number, one in enumerate(configured):
        if not one.handle.startswith("builtin:"):
            say(f"model {one.name}: {one.handle}")
        workdir = cache if one.handle.startswith("builtin:") else work / f"handle-{number}"
        resolved.append(resolve(one.handle, workdir, one.options, one.input_size, say))
    keys = [key_of(one.signature, one.output, one.input_size) for one in configured]
    ready = [
        _where_ready(model, key, cache, work, store)
        for model, key in zip(resolved, keys, strict=True)
    ]
    tasks = {
        (model.fingerprint, key): Task(
            one.handle if one.handle.startswith(("builtin:", "python:")) else "",
            str(model.folder),
            str(cache / model.fingerprint),
            key,
            one.signature,
            one.output,
            one.input_size,
            dict(one.options),
        )
        for one, model, key, place in zip(configured, resolved, keys, ready, strict=True)
        if place is None
    }
    if tasks:
        say("making the models ready: once for each, some seconds")
        prepare(list(tasks.values()))
    return [
        _feature(one, model, place or cache / model.fingerprint, key, work, say)
        for one, model, key, place in zip(configured, resolved, keys, ready, strict=True)
    ]


def _where_ready(
    model: ResolvedModel, key: str, cache: Path, work: Path, store: Store | None
) -> Path | None:
    """The folder that says what is known of a model; a shipped one must be at hand itself.

    The store is asked for what the cache lacks. What it knows is fetched; its model is not, as
    perhaps nothing is to be embedded.
    """
    there = cache / model.fingerprint
    whole = not model.builtin or bool(marker_of(there))
    if whole and is_current(read(there, key)):
        return there
    if store is None:
        return None
    folder = f"models/{model.fingerprint}"
    names = set(store.files(folder))
    known = f"{folder}/{card(key)}"
    whole = not model.builtin or any(f"{folder}/{marker}" in names for marker in MARKERS)
    if not whole or known not in names:
        return None
    there = work / "known" / model.fingerprint
    (there / card(key)).parent.mkdir(parents=True, exist_ok=True)
    (there / card(key)).write_bytes(store.read_bytes(known))
    return there if is_current(read(there, key)) else None


def _feature(
    one: FeatureConfig,
    model: ResolvedModel,
    place: Path,
    key: str,
    work: Path,
    say: Callable[[str], None],
) -> Feature:
    """A feature, and the files gathered in `work` that the store may lack."""
    found = read(place, key)
    if found is None:
        raise RuntimeError(f"{place} lacks what was found out about {one.handle}")
    info = found.info
    if info.size_assumed:
        say(
            f"model {one.name}: takes pictures of any size; "
            f"{info.input_size[0]}x{info.input_size[1]} is used (features: input_size sets it)"
        )
    if not model.range_known and info.unit_range:
        say(
            f"model {one.name}: nothing says what range of values it takes; it is given those of 0 "
            "to 1 (features: mean and std, or a preprocessor_config.json beside it, set that)"
        )
    folder = f"models/{model.fingerprint}"
    source = place if model.builtin else model.folder
    for name in model_files(source):
        link_to(work / folder / name, source / name)
    for name in files(place, key):
        link_to(work / folder / name, place / name)
    return Feature(one.name, one.handle, one.weight, model.fingerprint, info, folder, prepared=key)


def resolve_projection(handle: str | None, work: Path) -> Projection | None:
    """The projection asked for, if any; its files can be found in `work` as in a store.

    Raises:
        RequestError: It is not there, or not what it says.
    """
    if handle is None:
        return None
    found = open_folder(handle)
    for name in projection_files(Path(handle)):
        link_to(work / found.folder / name, Path(handle) / name)
    return found


def projection_files(folder: Path) -> list[str]:
    """The files of a projection, relative to its folder; the one that marks it whole last."""
    return [name for name in (CARD, MATRIX, ABOUT) if (folder / name).is_file()]


def installed_files(root: Path, feature: Feature) -> list[str]:
    """The files of a feature's model, relative to its folder; the one that marks a model last."""
    folder = root / feature.folder
    names = [*model_files(folder), *files(folder, feature.prepared)]
    return sorted(names, key=lambda name: name in MARKERS)


def install(
    store: Store, features: Sequence[Feature], work: Path, projection: Projection | None = None
) -> None:
    """Copy the models into the store, each file whole or absent; those there are left alone."""
    names = [f"{one.folder}/{name}" for one in features for name in installed_files(work, one)]
    if projection:
        names += [
            f"{projection.folder}/{name}" for name in projection_files(work / projection.folder)
        ]
    for name in names:
        if not store.has(name):
            copy_into(store, name, work / name)


def copy_into(store: Store, name: str, source: Path) -> None:
    """Copy one file into the store, whole or not at all."""
    with store.write(name) as pending, open(source, "rb") as file:
        shutil.copyfileobj(file, pending, 1 << 20)
