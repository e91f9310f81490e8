"""Metrics as text, in a form that is OpenMetrics and Prometheus' own format at once.

What a run leaves are gauges, and no sample has a time of its own: so node_exporter's textfile
collector, which reads Prometheus' format alone, takes the same file as any reader of OpenMetrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from lookalike.report.text import as_mapping, as_number, visible

_STATUSES = ("embedded", "unchanged", "duplicate", "rejected", "ignored", "removed", "unknown")
_CHANGES = ("previous", "unchanged", "changed", "removed", "unknown", "added", "renamed")

Sample = tuple[Mapping[str, str], "float | None"]
Family = tuple[str, str, Iterable[Sample]]


def metrics_text(
    facts: Mapping[str, Any],
    *,
    run: Mapping[str, float | None] | None = None,
    labels: Mapping[str, str] | None = None,
) -> str:
    """The metrics of a snapshot and of a run; what is not known is left out.

    Args:
        facts: As in report.json, {} for no snapshot.
        run: `exit_status`, `published` (0 or 1), `seconds`, and `finished` and `succeeded` in
            seconds since 1970: the last run, and the last that ended with status 0.
        labels: Of every sample, such as the store's name.
    """
    pieces = [
        family_text(
            name,
            meaning,
            [({**(labels or {}), **own}, value) for own, value in samples],
        )
        for name, meaning, samples in (*_of_run(run or {}), *_of_snapshot(facts))
    ]
    return "".join(pieces) + "# EOF\n"


def family_text(name: str, meaning: str, samples: Iterable[Sample], kind: str = "gauge") -> str:
    """A metric with its samples, as text; "" where no value is known.

    Args:
        name: Of the metric.
        meaning: One line.
        samples: Labels and values; None is left out.
        kind: gauge or counter.
    """
    lines = [
        f"{name}{_labels(own)} {_number(value)}\n" for own, value in samples if value is not None
    ]
    return "".join([f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n", *lines] if lines else [])


def _of_run(run: Mapping[str, float | None]) -> Iterator[Family]:
    for key, name, meaning in (
        ("exit_status", "exit_status", "Exit status of the last run, 0 to 4."),
        ("published", "published", "Whether the last run published a snapshot."),
        ("seconds", "duration_seconds", "Seconds that the last run took."),
        ("finished", "finished_timestamp_seconds", "When the last run ended."),
        ("succeeded", "last_success_timestamp_seconds", "When a run last ended with status 0."),
    ):
        yield f"lookalike_run_{name}", meaning, [({}, run.get(key))]


def _of_snapshot(facts: Mapping[str, Any]) -> Iterator[Family]:
    if not facts:
        return
    counts, index = as_mapping(facts.get("counts")), as_mapping(facts.get("index"))
    certificate = as_mapping(facts.get("certificate"))
    named = {
        "snapshot": str(facts.get("name") or ""),
        "parent": str(facts.get("parent") or ""),
        "metric": str(facts.get("metric") or ""),
        "index": str(index.get("kind") or ""),
        "model": str(facts.get("model_fingerprint") or "")[:16],
    }
    yield "lookalike_snapshot_info", "The published snapshot.", [(named, 1)]
    for key in ("created", "scanned"):
        yield (
            f"lookalike_snapshot_{key}_timestamp_seconds",
            f"When the snapshot was {key}.",
            [({}, _seconds(facts.get(key)))],
        )
    yield "lookalike_files_listed", "Files that the scan listed.", [_plain(counts.get("listed"))]
    yield "lookalike_files", "Files by what became of them.", _by("status", counts, _STATUSES)
    reasons = as_mapping(counts.get("rejected_by_reason"))
    yield "lookalike_rejected_files", "Rejected files by reason.", _by("reason", reasons, reasons)
    changes = as_mapping(facts.get("changes"))
    yield (
        "lookalike_changes",
        "Files against the snapshot before: previous = unchanged + changed + removed + unknown.",
        _by("change", changes, _CHANGES),
    )
    yield "lookalike_vectors", "Vectors that searches find.", [_plain(counts.get("vectors"))]
    yield "lookalike_tombstones", "Rows that are deleted.", [_plain(facts.get("tombstones"))]
    k = {"k": str(certificate.get("k") or "")}
    for key, name, meaning in (
        ("recall", "recall_ratio", "Recall by the certificate."),
        ("low", "recall_low_ratio", "Lower bound of the recall, 95 percent."),
        ("high", "recall_high_ratio", "Upper bound of the recall, 95 percent."),
        ("target", "recall_target_ratio", "Recall that the index was planned for."),
    ):
        yield f"lookalike_{name}", meaning, [(k, as_number(certificate.get(key)))]
    lists, fitness = as_mapping(facts.get("lists")), as_mapping(index.get("fitness"))
    yield (
        "lookalike_list_imbalance_ratio",
        "How uneven the lists of the index are, 1 when equal.",
        [_plain(lists.get("imbalance"))],
    )
    yield (
        "lookalike_drift_ratio",
        "What codes lose of the vectors over what they lost in training.",
        [_plain(fitness.get("error_ratio"))],
    )
    near = as_mapping(facts.get("neighbourhoods"))
    yield (
        "lookalike_near_duplicates_ratio",
        "Share of the vectors looked at that have a near-duplicate.",
        [_plain(near.get("share"))],
    )
    stages = {
        key: as_mapping(one).get("seconds") for key, one in as_mapping(facts.get("stages")).items()
    }
    yield "lookalike_stage_seconds", "Seconds by stage.", _by("stage", stages, stages)
    sizes = {
        key: as_mapping(one).get("bytes") for key, one in as_mapping(facts.get("files")).items()
    }
    yield "lookalike_snapshot_bytes", "Bytes of the snapshot by kind.", _by("kind", sizes, sizes)


def _plain(value: object) -> Sample:
    return {}, as_number(value)


def _by(label: str, values: Mapping[str, object], keys: Iterable[str]) -> list[Sample]:
    return [({label: str(key)}, as_number(values.get(key))) for key in keys]


def _seconds(moment: object) -> float | None:
    try:
        return datetime.fromisoformat(str(moment).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    r"""A label's value; a lone surrogate, which no file can hold, as \\udc80 and the like."""
    return visible(value).replace("\\", r"\\").replace('"', r"\"")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
