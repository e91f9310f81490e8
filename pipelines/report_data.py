"""What is to be said about a run: the report of its snapshot.

One mapping of facts is written three times: report.html to look at, report.json, and metrics.txt
(OpenMetrics). The time it takes is bounded, whatever the size of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from lookalike.faults import Faults
from lookalike.images.thumbnails import Thumbnails
from lookalike.recall.measured import Measure, Samples, measure
from lookalike.report.metrics import metrics_text
from lookalike.report.report import render_report
from lookalike.store import snapshot
from lookalike.store.files import json_bytes
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.objects import Store
from lookalike.store.storage import is_remote

FORMAT = "lookalike-report"
VERSION = 1
_PICTURES_S = 3.0  # at most; they are there in half a second where the machine has little to do
_SHOWN = {"added": 8, "changed": 8, "renamed": 6, "removed": 6, "rejected": 12}
_THUMBNAILS = 72
_NO_PAGE = "<!doctype html>\n<title>No report</title>\n<p>It could not be made: see report.json.\n"
_NO_METRICS = "# EOF\n"
_KEPT = (
    "name",
    "created",
    "scanned",
    "parent",
    "lookalike",
    "sources",
    "metric",
    "dim",
    "features",
    "projection",
    "model_fingerprint",
    "preprocessing_fingerprint",
    "counts",
    "changes",
    "index",
    "search",
    "certificate",
)
# What a stage works on, where the manifest tells how many: the rate of the others has no meaning.
_WORKED_ON = {"scan": "listed", "embed": "embedded", "ingest": "embedded"}

_COLUMNS = ("uri", "previous", "status", "reason", "detail", "bytes", "id")  # of a sample's row


def write_report(
    store: Store,
    folder: str,
    manifest: Manifest,
    parent: Manifest | None,
    samples: Samples,
    faults: Faults,
    measure: Measure = measure,
) -> list[FileLine]:
    """Write report.html, report.json and metrics.txt of a snapshot that is about to be published.

    Whatever part of them cannot be made is left out, with a note in its place: a report informs,
    and stops no publication.

    Args:
        store: The store's root.
        folder: Of the snapshot, relative to the store.
        manifest: Complete but for the report; its files are there.
        parent: The manifest of the snapshot before it.
        samples: As from `assembling.samples`.
        faults: Takes note of what is left out.
        measure: Measures what only the index can tell, here or elsewhere.

    Returns:
        The manifest's lines of the three files.

    Raises:
        StoreWriteError: The store takes no more files, so that nothing else could be published.
        StoreBusyError: Another run has taken the store over.
    """
    small: Thumbnails | None = faults.spare("pictures", lambda: _decoder(manifest), None)
    measured = measure(store, manifest, parent, samples, faults)
    known = facts(manifest, parent, samples, measured, faults)
    pictures = {} if small is None else faults.spare("pictures", lambda: _made(small, known), {})
    page = faults.spare("the page", lambda: render_report(known, pictures, faults), _NO_PAGE)
    known["faults"] = {**known["faults"], **faults.noted}
    text = faults.spare("metrics", lambda: metrics_text(known), _NO_METRICS)
    known["faults"] |= faults.noted
    written = [
        snapshot.replace(store, f"{folder}/{name}", data)
        for name, data in (
            ("report.html", page.encode("utf-8", "backslashreplace")),
            ("report.json", json_bytes(known)),
            ("metrics.txt", text.encode("utf-8", "backslashreplace")),
        )
    ]
    return [record.line("report") for record in written]


def _decoder(manifest: Manifest) -> Thumbnails:
    """What makes thumbnails, on its way already where pictures are sure to be shown."""
    small = Thumbnails()
    if manifest.get("features"):
        small.start()
    return small


def _made(small: Thumbnails, known: Mapping[str, Any]) -> Mapping[str, bytes]:
    wanted = list(_pictures(known))
    if not known["features"]:  # whoever made the table chose its names; no network is asked for one
        wanted = [uri for uri in wanted if not is_remote(uri)]
    return small.make(wanted[:_THUMBNAILS], _PICTURES_S)


def facts(
    manifest: Manifest,
    parent: Manifest | None,
    samples: Samples,
    measured: Mapping[str, Any],
    faults: Faults,
) -> dict[str, Any]:
    """All that the report says, as JSON; see docs/json.md. What fails is in `faults`.

    Args:
        manifest: Of the snapshot.
        parent: Of the one before.
        samples: As from `assembling.samples`.
        measured: As from `measure`.
        faults: Takes note of what is left out.
    """
    known = {
        "format": FORMAT,
        "version": VERSION,
        **from_manifest(manifest),
        "before": None if parent is None else _before(parent),
        "tombstones": 0,
        "samples": faults.spare("samples", lambda: _samples(samples), {key: [] for key in _SHOWN}),
        "lists": {},
        "codes": {},
        "neighbourhoods": {},
        **measured,
    }
    return {**known, "faults": dict(faults.noted)}


def from_manifest(manifest: Manifest) -> dict[str, Any]:
    """The facts that a manifest holds by itself."""
    kept = {key: manifest.get(key) for key in _KEPT}
    return {**kept, "stages": _stages(manifest), "files": _files(manifest["files"])}


def _samples(samples: Samples) -> dict[str, Any]:
    return {
        key: [
            {name: row[name] for name in _COLUMNS if row.get(name) is not None}
            for row in _some_of(samples, key)[:most]
        ]
        for key, most in _SHOWN.items()
    }


def _pictures(known: Mapping[str, Any]) -> Iterator[str]:
    """Names of files to show, the most telling first; what was removed has no picture any more."""
    for key in ("added", "changed", "rejected", "renamed"):
        yield from (row["uri"] for row in known["samples"][key])
    near = known["neighbourhoods"]
    yield from (row["uri"] for row in near.get("outliers", ()))
    yield from (row["uri"] for group in near.get("groups", ()) for row in group["members"])


def _some_of(samples: Samples, kind: str) -> list[Mapping[str, Any]]:
    """Rows of one kind; those of "rejected:<reason>" together, the reasons by turns."""
    lists = [samples[key] for key in sorted(samples) if key.partition(":")[0] == kind]
    turns = zip_longest(*lists)
    return [row for turn in turns for row in turn if row is not None]


def _before(parent: Manifest) -> dict[str, Any]:
    """What a change is seen against."""
    certificate = parent.get("certificate") or {}
    return {
        "name": parent.get("name"),
        "created": parent.get("created"),
        "counts": parent.get("counts"),
        "certificate": {key: certificate.get(key) for key in ("k", "recall", "low", "high")},
    }


def _stages(manifest: Manifest) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    for name, seconds in (manifest.get("stages") or {}).items():
        count = manifest.get("counts", {}).get(_WORKED_ON.get(name, ""))
        stages[name] = {"seconds": seconds}
        if count and seconds > 0:
            stages[name] |= {"items": count, "rate": round(count / seconds, 1)}
    return stages


def _files(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Files, rows and bytes by kind."""
    kinds: dict[str, dict[str, int]] = {}
    for line in lines:
        kind = kinds.setdefault(str(line["kind"]), {"files": 0, "rows": 0, "bytes": 0})
        kind["files"] += 1
        kind["rows"] += int(line.get("rows") or 0)
        kind["bytes"] += int(line["bytes"])
    return dict(sorted(kinds.items()))
