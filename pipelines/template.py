"""Templates: whether the parent's serves again, and training another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import hypot
from typing import Any

import numpy as np

from lookalike.errors import RequestError
from lookalike.ivf.encoding import fitness_of
from lookalike.ivf.fitness import MOST_ERROR, compare
from lookalike.ivf.planner import EXACT_BELOW, IndexSpec, plan
from lookalike.ivf.selections import difference
from lookalike.ivf.template import Template, write_template
from lookalike.ivf.train import train
from lookalike.metrics import Ids
from lookalike.sampling import Sample, sample_ids
from lookalike.store.objects import Store
from lookalike.store.shard_format import make_id
from lookalike.store.vector_reader import VectorReader

Line = dict[str, Any]

_SETTLED = ("kind", "dim", "metric", "code_bytes", "nbits", "rotation_dim", "seed")
_UNDECIDED = (0.8, 1.25)  # times EXACT_BELOW, within which an index stays of the kind that it is
_FIT_ROWS = 16  # per list, that a template is tried on
_DRIFT_ROWS = 4096  # of those added in a run, whose error is measured
_NOTHING = 1e-6  # what float32 cannot tell from no error at all
_DRIFT_SHARE = 0.05  # of the rows trained on; fewer rows added tell little


def plan_next(
    rows: int, dim: int, metric: str, options: Mapping[str, Any], old: IndexSpec | None
) -> IndexSpec:
    """What to make of so many vectors, where `old` is what there is of those of the parent.

    About where the kind of an index changes it stays as it is: not every night another one.
    """
    low, high = (EXACT_BELOW * times for times in _UNDECIDED)
    free = options.get("kind") in (None, "auto")
    if old is not None and free and low <= rows <= high:
        try:
            kept = plan(rows, dim, metric, {**options, "kind": old.kind})
            why = (reason.replace(", as asked for", ", as it was") for reason in kept.reasons)
            return replace(kept, reasons=tuple(why))
        except RequestError:  # an exact one may no longer fit into memory
            pass
    return plan(rows, dim, metric, options)


def differs(old: IndexSpec, planned: IndexSpec, options: Mapping[str, Any]) -> str:
    """Why a template of one spec cannot serve where the other is planned; "" if it can."""
    for name in _SETTLED:
        before, after = getattr(old, name), getattr(planned, name)
        if before != after:
            return f"its {name} is {before}, planned is {after}"
    fixed = options.get("nlist") not in (None, "auto")
    low, high = (1, 1) if fixed else (0.5, 2)
    if not low * planned.nlist <= old.nlist <= high * planned.nlist:
        return f"it has {old.nlist:,} lists, planned are {planned.nlist:,}"
    return ""


def living_ids(lines: Sequence[Mapping[str, Any]], dead: Ids) -> Iterator[Ids]:
    """Ids of the living rows of embedding shards, a shard at a time; `dead` is ascending."""
    for line in lines:
        first = make_id(int(line["file_no"]), 0)
        ids = np.arange(first, first + int(line["rows"]), dtype=np.int64)
        begin, end = np.searchsorted(dead, [first, first + len(ids)])
        yield difference(ids, dead[begin:end])


def reader_of(store: Store, lines: Sequence[Mapping[str, Any]]) -> VectorReader:
    """Of the vectors of embedding shards."""
    return VectorReader(store, {line["file_no"]: line["path"] for line in lines})


def drift(
    index: Mapping[str, Any],
    template: Template,
    reader: VectorReader,
    added: Callable[[], Iterable[Ids]],
) -> dict[str, Any]:
    """What codes lose of the vectors added since training, those of this run included.

    That is held against what they lost of rows held out from training, not of those trained on, to
    which a template fits better than to any other.

    Args:
        index: The parent's manifest["index"].
        template: Its template.
        reader: Of the rows added.
        added: Gives the ids of the rows that this run adds, in blocks.

    Returns:
        `rows` added since training, their mean `error` and its `standard_error`, `error_ratio` to
        that of rows held out, and whether that is too much (`drifted`), by more than chance.
    """
    before = index.get("drift") or {"rows": 0, "error": 0.0, "standard_error": 0.0}
    rows, error, spread = int(before["rows"]), before["error"], before["standard_error"]
    new = sum(len(ids) for ids in added())
    if new:
        ids = sample_ids(added(), _DRIFT_ROWS, template.spec.seed)
        found = fitness_of(template, Sample(reader, ids), _DRIFT_ROWS)
        share = new / (rows + new)
        error = (1 - share) * error + share * found.measures()["quantisation_error"]
        spread = hypot((1 - share) * spread, share * found.standard_error())
        rows += new
    training = index["training"]
    usual = max(training["held_out_error"], _NOTHING)
    chance = 2 * hypot(spread, training["held_out_standard_error"]) / usual
    ratio = round(max(error, _NOTHING) / usual, 4) if rows else 1.0
    enough = rows >= _DRIFT_SHARE * int(training["rows"])
    return {
        "rows": rows, "error": error, "standard_error": spread, "error_ratio": ratio,
        "drifted": bool(enough and ratio > MOST_ERROR + chance),
    }  # fmt: skip


def misfit(
    training: Mapping[str, Any], template: Template, living: Iterable[Ids], reader: VectorReader
) -> tuple[bool, str]:
    """Whether a template still fits, on a sample of all living rows, and how well."""
    spec = template.spec
    most = _FIT_ROWS * spec.nlist
    sample = Sample(reader, sample_ids(living, most, spec.seed))
    found = compare(training, fitness_of(template, sample, most).measures())
    word = "serves again" if found["fits"] else "no longer fits"
    return found["fits"], (
        f"{word}: on all vectors its error is {found['error_ratio']:.2f} times, its imbalance "
        f"{found['imbalance_ratio']:.2f} times that of its training"
    )


def train_template(store: Store, spec: IndexSpec, sample: Sample, held_out: Sample) -> Line:
    """Train, and commit what came of it: `template` (its name), `files` and `training`.

    Args:
        store: The store's root.
        spec: As planned.
        sample: Of the rows to train on.
        held_out: Rows that are not among them, on which the template's error is measured.
    """
    data, training = train(spec, sample)
    if spec.kind != "exact":
        measured = fitness_of(Template(data, spec), held_out, _DRIFT_ROWS)
        training["held_out_error"] = measured.measures()["quantisation_error"]
        training["held_out_standard_error"] = measured.standard_error()
    name, paths = write_template(store, spec, data, training)
    lines = [{**store.record(path).to_json(), "kind": "template"} for path in paths]
    return {"template": name, "files": lines, "training": training}
