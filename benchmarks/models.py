"""What all ways embed with: the models, resolved once, and their engines."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

from benchmarks.task import Task
from lookalike.models.features import Feature
from lookalike.pipelines.config import Config
from lookalike.pipelines.models import choose_engines, install, resolve_features
from lookalike.store.objects import open_store


def resolve(task: Task, out: Path) -> None:
    """Leave the task with its features in out/resolved.pickle; `out` is their store."""
    config: Config = pickle.loads(task.config)
    work = out / "work"
    work.mkdir()
    features = resolve_features(config.features, work, _say)
    features = choose_engines(features, config.engine, config.metric, work, _say)
    install(open_store(out), features, work)
    by_hand = tuple(_by_hand(feature, out) for feature in features)
    resolved = replace(task, features=tuple(features), by_hand=by_hand)
    resolved = replace(resolved, batch=resolved.embedder().batch)
    (out / "resolved.pickle").write_bytes(pickle.dumps(resolved))


def _by_hand(feature: Feature, out: Path) -> Path:
    """A feature's SavedModel; of builtin:photo the network in float32, as such models are had."""
    if feature.handle != "builtin:photo":
        return out / feature.folder
    from lookalike.models import photo  # loads TensorFlow

    photo.export(out / "photo-float32", grid=None)
    return out / "photo-float32"


def _say(line: str) -> None:
    """The pipeline says the same of its own."""
