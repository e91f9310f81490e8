"""`lookalike tune` and `adapt`: weights and a projection learned from a store's vectors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike import __version__, evaluation
from lookalike.errors import NotPublishedError, RequestError
from lookalike.json_text import to_json
from lookalike.learning.adapting import FITS, Adapted, adapt
from lookalike.learning.altered import COPIES, PICTURES, read_altered
from lookalike.learning.held_out import Gain
from lookalike.learning.labelled import Labelled, read_labelled
from lookalike.learning.tuning import Tuned, tune
from lookalike.models.features import Feature, stored_features
from lookalike.models.fusing import is_normalised
from lookalike.models.projection import Projection, open_folder, save, stored_projection
from lookalike.pipelines.outputs import free_place, new_folder, refusal
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.streams import print_as_json
from lookalike.report.text import visible
from lookalike.search.query_images import load_embedder
from lookalike.store import snapshot
from lookalike.store.manifest import Manifest
from lookalike.store.objects import Store, open_store
from lookalike.whole_numbers import whole_number


@dataclass(frozen=True)
class _Asked:
    """A store to learn from."""

    store: Store
    manifest: Manifest
    features: Sequence[Feature]

    @classmethod
    def of(cls, given: argparse.Namespace, what: str) -> _Asked:
        """Check that its vectors are such as can be learned from."""
        store = open_store(given.store)
        manifest = snapshot.read_manifest(store, given.snapshot)
        features = stored_features(store, manifest)
        projection, metric = stored_projection(manifest), str(manifest["metric"])
        if projection:
            raise RequestError(
                f"{given.store}: the vectors of {manifest['name']} are behind the projection "
                f"{projection.handle}, and {what} needs those from before it; "
                + _before_it(store, projection)
            )
        if metric == "jaccard" or not is_normalised(len(features), metric):
            raise RequestError(
                f"{given.store}: {what} needs vectors of unit length, and those of "
                f"{manifest['name']} come from one feature under the metric {metric}; "
                "index with metric: cosine"
            )
        return cls(store, manifest, features)

    @property
    def dims(self) -> list[int]:
        """Components of each feature's block."""
        return [feature.info.dim for feature in self.features]

    @property
    def weights(self) -> list[float]:
        return [feature.weight for feature in self.features]

    def data(self, given: argparse.Namespace) -> Labelled:
        """Labelled vectors."""
        if given.labels is None:
            embedder = load_embedder(self.store, self.manifest)
            number = PICTURES if given.sample is None else given.sample
            return read_altered(self.store, self.manifest, embedder, number, _say)
        if given.sample is not None:
            raise RequestError("--sample: only with --self, which reads pictures")
        folders = given.labels == "folders"
        label_of = evaluation.folder_label if folders else evaluation.file_labels(given.labels)
        return read_labelled(self.store, self.manifest, label_of)


def _before_it(store: Store, projection: Projection) -> str:
    """What to do where vectors are behind a projection: it cannot be undone."""
    there = (snapshot.read_manifest(store, name) for name in reversed(snapshot.names(store)))
    fits = (one["name"] for one in there if one["model_fingerprint"] == projection.features)
    if name := next(fits, None):
        return (
            f"{name} has them: learn from it (--snapshot {name}), and roll back to it before the "
            "index run that takes up what was learned, or that run embeds everything anew"
        )
    return (
        "no snapshot of this store has them any more: index without `projection:`, which embeds "
        "everything anew, and learn from that"
    )


def _k(given: argparse.Namespace) -> int:
    """Of precision at k: with --self, there are as many right answers as altered copies."""
    default = COPIES if given.labels is None else 10
    return default if given.k is None else whole_number("-k", given.k)


def run_tune(given: argparse.Namespace) -> int:
    """Find weights, say what they gain, and write a config with them.

    Raises:
        RequestError: The request is wrong, or there is too little to learn from.
        NotPublishedError: They gain nothing for certain, and nothing was written.
    """
    path = free_place("--write", given.write) if given.write else None
    asked = _Asked.of(given, "tune")
    if len(asked.features) < 2:
        raise RequestError(
            f"{asked.store}: there is one feature, whose weight makes no difference; index with "
            "several, or see lookalike adapt"
        )
    k = _k(given)
    data = asked.data(given)
    found = tune(data, asked.dims, asked.weights, str(asked.manifest["metric"]), k)
    text = config_text(asked.manifest, asked.features, found.weights, found.gain)
    written = path is not None and (found.gain.helps or given.force)
    if path is not None and written:
        _write(path, text)
    _report(given, asked, data, found.gain, _tuned(asked, found), str(path) if written else None)
    if not given.json and path is None:
        print(text, end="")
    if path is not None and not written:
        raise NotPublishedError(refusal(path, "these weights", found.gain))
    return 0


def run_adapt(given: argparse.Namespace) -> int:
    """Learn a projection, say what it gains, and write it.

    Raises:
        RequestError: The request is wrong, or there is too little to learn from.
        NotPublishedError: It gains nothing for certain, and nothing was written.
    """
    path = free_place("--output", given.output)
    asked = _Asked.of(given, "adapt")
    k, dim = _k(given), sum(asked.dims)
    if given.components is not None and not 1 <= given.components <= dim:
        raise RequestError(f"--components {given.components}: needs a number from 1 to {dim:,}")
    data, fitted = asked.data(given), list[None]()
    progress = Progress(quiet=given.json)
    with progress.stage("adapt", "fits", FITS, lambda: len(fitted)):
        found = adapt(data, asked.dims, k, given.components, lambda: fitted.append(None))
    written = found.gain.helps or given.force
    if written:
        _save(path, asked, found, given)
    learned = _learned(asked, found, given)
    _report(given, asked, data, found.gain, learned, str(path) if written else None)
    if not written:
        raise NotPublishedError(refusal(path, "the projection", found.gain))
    if not given.json:
        print(
            f"add this line to the config that {asked.manifest['name']} was made with, and index "
            f"again; no picture is embedded again:\nprojection: {to_json(str(path))}"
        )
    return 0


# --- what is written --------------------------------------------------------------------------


def config_text(
    manifest: Manifest, features: Sequence[Feature], weights: Sequence[float], gain: Gain
) -> str:
    """A config, YAML as `index` takes it: as a snapshot was made, but for the weights."""
    request = manifest.get("request") or {}
    asked = request.get("models") or [
        {"name": one.name, "handle": one.handle} for one in features
    ]  # of the first versions
    lines = [
        f"# weights found by lookalike tune on {manifest['name']}: {gain}",
        "# all else as that snapshot was made; publish, compact and runner are as by default",
        "features:",
    ]
    for one, weight in zip(asked, weights, strict=True):
        said = {name: value for name, value in one.items() if value is not None}
        said |= said.pop("options", {})  # which a config has beside the others
        lines.append(f"  - {_yaml({**said, 'weight': round(float(weight), 6)})}")
    lines.append(f"metric: {manifest['metric']}")
    engines = {one.engine.name for one in features if one.engine.deviates}
    lines += [f"engine: {name}" for name in sorted(engines)[:1]]
    images = {**request.get("images", {}), **request.get("selection", {})}
    for key, value in (("index", request.get("index")), ("images", images)):
        if value:
            lines.append(f"{key}: {_yaml({k: v for k, v in value.items() if v is not None})}")
    if request.get("dtype"):
        lines.append(f"embed: {_yaml({'dtype': request['dtype']})}")
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    """JSON is YAML."""
    return to_json(value, ascii_only=False)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _save(path: Path, asked: _Asked, found: Adapted, given: argparse.Namespace) -> None:
    """The model's folder, whole or not at all."""
    features, learned = str(asked.manifest["model_fingerprint"]), _learned(asked, found, given)
    with new_folder("--output", path) as folder:
        save(folder, features, found.matrix, _card(asked, found, learned), learned)
    open_folder(str(path))


def _learned(asked: _Asked, found: Adapted, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "lookalike": __version__,
        "features": [
            {
                "name": one.name,
                "handle": one.handle,
                "weight": one.weight,
                "fingerprint": one.fingerprint,
                "dim": one.info.dim,
            }
            for one in asked.features
        ],
        "labels": "self" if given.labels is None else "given",
        "images": found.images,
        "classes": found.classes,
        "strength": found.strength,
        "components": found.components,
    }


def _card(asked: _Asked, found: Adapted, learned: Mapping[str, Any]) -> str:
    """For people; it names no picture and no label."""
    features = "\n".join(
        f"- `{one['handle']}`, weight {one['weight']:g}, {one['dim']:,} components, fingerprint "
        f"`{one['fingerprint']}`"
        for one in learned["features"]
    )
    by = "altered copies of the pictures themselves" if learned["labels"] == "self" else "labels"
    return f"""# A projection learned by lookalike {__version__}

Centres vectors, evens out the spread within a kind of thing (regularised with strength
{found.strength:g} in every block), and keeps {found.components:,} of {sum(asked.dims):,}
components.

Learned on {found.images:,} pictures of {found.classes:,} kinds, told apart by {by}. Held out by
kind, four folds: {found.gain}.

It is for vectors of these features and weights alone, metric {asked.manifest["metric"]}:

{features}

To use it, name this folder in the config beside the same features: `projection: FOLDER`. It knows
what the pictures that it was learned on show; on others it may gain nothing, which
`lookalike evaluate` measures.
"""


# --- what is said -----------------------------------------------------------------------------


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr)


def _tuned(asked: _Asked, found: Tuned) -> dict[str, Any]:
    total = sum(asked.weights)
    return {
        "weights": {
            one.name: round(weight, 6)
            for one, weight in zip(asked.features, found.weights, strict=True)
        },
        "before": {one.name: round(one.weight / total, 6) for one in asked.features},
        "tried": [
            {"weights": [round(one, 6) for one in choice], "precision": precision}
            for choice, precision in found.tried
        ],
    }


def _report(
    given: argparse.Namespace,
    asked: _Asked,
    data: Labelled,
    gain: Gain,
    found: Mapping[str, Any],
    written: str | None,
) -> None:
    used = int((data.labels >= 0).sum())
    if given.json:
        print_as_json(
            {
                "snapshot": asked.manifest["name"],
                "images": used,
                "of": data.of,
                "labels": data.classes,
                "held_out": gain.to_json(),
                "found": found,
                "written": written,
            }
        )
        return
    what = "pictures and altered copies" if given.labels is None else "labelled images"
    print(f"learned from {used:,} {what} of {data.classes:,} labels ({asked.manifest['name']})")
    if "weights" in found:
        now, then = found["weights"], found["before"]
        print(visible("weights: " + ", ".join(f"{k} {then[k]:g} -> {now[k]:g}" for k in now)))
    else:
        print(
            f"projection: {sum(asked.dims):,} to {found['components']:,} components, strength "
            f"{found['strength']:g}"
        )
    print(f"held out: {gain}")
    if not gain.helps:
        print("this does not help for certain: the gain's interval reaches 0")
    if written:
        print(visible(f"written: {written}"))
