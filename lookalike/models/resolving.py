"""From handles to models in a folder for workers: resolved once, on the launching machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lookalike.models.features import Feature
from lookalike.models.handles import model_files, resolve
from lookalike.models.inspection import inspect
from lookalike.models.saved_model import configure_threads
from lookalike.store.storage import write_file


@dataclass(frozen=True)
class FeatureConfig:
    """One feature as written: a handle, its weight, and what its model leaves open."""

    name: str
    handle: str
    weight: float = 1.0
    signature: str | None = None
    output: str | None = None
    input_size: tuple[int, int] | None = None


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
        threads: TensorFlow threads of this process, to compare engines as they will run in a
            worker; None leaves that to TensorFlow.

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


def install(store: Path, features: Sequence[Feature], work: Path) -> None:
    """Copy the models into the store, each file whole or absent; those there are left alone."""
    for feature in features:
        source = work / feature.folder
        # saved_model.pb last: a folder that has it has all of the model
        names = sorted(model_files(source), key=lambda name: (name == "saved_model.pb", name))
        if (store / feature.folder / "saved_model.pb").exists():
            continue
        for name in names:
            copy_into(store, f"{feature.folder}/{name}", source / name)


def copy_into(store: Path, name: str, source: Path) -> None:
    """Copy one file into the store, whole or not at all."""
    with write_file(store, name) as pending, open(source, "rb") as file:
        while chunk := file.read(1 << 20):
            pending.write(chunk)
