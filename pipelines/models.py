"""Models on their way into a store: resolved once, on the launching machine, and copied in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lookalike.features import Feature
from lookalike.handles import model_files, resolve
from lookalike.inspection import inspect
from lookalike.storage import file_record, write_file
from pipelines.config import FeatureConfig


def resolve_features(
    configured: Sequence[FeatureConfig], work: Path, say: Callable[[str], None] = print
) -> list[Feature]:
    """Resolve and inspect every feature's model; nothing is written outside `work`.

    The folder of a resolved model is remembered beside it, in work/<fingerprint>, for `install`.

    Raises:
        RequestError: A model cannot be had, or cannot be used as configured.
    """
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
        link = work / model.fingerprint
        if not link.is_symlink():
            link.symlink_to(model.folder.resolve())
        folder = f"models/{model.fingerprint}"
        features.append(Feature(one.name, one.handle, one.weight, model.fingerprint, info, folder))
    return features


def install(store: Path, features: Sequence[Feature], work: Path) -> None:
    """Copy the models into the store, each file whole or absent; those there are left alone."""
    for feature in features:
        source = work / feature.fingerprint
        # saved_model.pb last: a folder that has it has all of the model
        names = sorted(model_files(source), key=lambda name: (name == "saved_model.pb", name))
        if (store / feature.folder / "saved_model.pb").exists():
            continue
        for name in names:
            with (
                write_file(store, f"{feature.folder}/{name}") as pending,
                open(source / name, "rb") as file,
            ):
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
