"""What is to be said about a run: the report of its snapshot, and metrics for scheduled monitoring.

One mapping of facts is written three times: report.html to look at, report.json, and metrics.txt
(OpenMetrics). The time it takes is bounded, whatever the size of the store.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.errors import RequestError
from lookalike.metrics import Ids
from lookalike.pages.metrics import metrics_text
from lookalike.pages.report import render_report
from lookalike.pictures.thumbnails import Thumbnails
from lookalike.quality.neighbourhoods import histogram, neighbourhoods, sample_rows
from lookalike.search import Searcher
from lookalike.searching.tombstones import read_tombstones
from lookalike.store import snapshot
from lookalike.store.storage import is_remote, write_bytes, write_json
from lookalike.store.vector_reader import VectorReader

FORMAT = "lookalike-report"
VERSION = 1
_SAMPLE, _FRESH = 1000, 500  # rows that are asked for their neighbours, at most
_MEASURED = 500  # of each of them, whose codes are decoded again
_SHARE = 0.02  # of the run's time, that asking for neighbours may take, within these seconds
_LEAST_S, _MOST_S = 0.15, 3.0
_PICTURES_S = 3.0  # at most; they are there in half a second where the machine has little to do
_SHOWN = {"added": 8, "changed": 8, "renamed": 6, "removed": 6, "rejected": 12}
_GROUPS, _OUTLIERS = 6, 8
_THUMBNAILS = 72
_KEPT = (
    "name", "created", "scanned", "parent", "lookalike", "sources", "metric", "dim", "features",
    "model_fingerprint", "preprocessing_fingerprint", "counts", "changes", "index", "search",
    "certificate",
)  # fmt: skip
# What a stage works on, where the manifest tells how many: the rate of the others has no meaning.
_WORKED_ON = {"scan": "listed", "embed": "embedded", "ingest": "embedded"}

_COLUMNS = ("uri", "previous", "status", "reason", "detail", "bytes", "id")  # of a sample's row

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
Line = dict[str, Any]


def write_report(
    store: Path,
    folder: str,
    manifest: Mapping[str, Any],
    parent: Mapping[str, Any] | None,
    samples: Samples,
) -> list[Line]:
    """Write report.html, report.json and metrics.txt of a snapshot that is about to be published.

    Args:
        store: The store's root.
        folder: Of the snapshot, relative to the store.
        manifest: Complete but for the report; its files are there.
        parent: The manifest of the snapshot before it.
        samples: As from `assembling.samples`.

    Returns:
        The manifest's lines of the three files.
    """
    small = Thumbnails()
    if manifest.get("features"):
        small.start()
    known = facts(store, manifest, parent, samples, Searcher(store, manifest))
    wanted = list(_pictures(known))
    if not known["features"]:  # whoever made the table chose its names; no network is asked for one
        wanted = [uri for uri in wanted if not is_remote(uri)]
    pictures = small.make(wanted[:_THUMBNAILS], _PICTURES_S)
    written = [
        write_bytes(store, f"{folder}/report.html", render_report(known, pictures).encode()),
        write_json(store, f"{folder}/report.json", known),
        write_bytes(store, f"{folder}/metrics.txt", metrics_text(known).encode()),
    ]
    return [{**record.to_json(), "kind": "report"} for record in written]


def facts(
    store: Path,
    manifest: Mapping[str, Any],
    parent: Mapping[str, Any] | None,
    samples: Samples,
    searcher: Searcher,
) -> dict[str, Any]:
    """All that the report says, as JSON; see docs/json.md."""
    lines = snapshot.files_of(manifest, "embedding")
    rows = {int(line["file_no"]): int(line["rows"]) for line in lines}
    dead = read_tombstones(
        store / line["path"] for line in snapshot.files_of(manifest, "tombstones")
    )
    sample, fresh = sample_rows(rows, dead, _SAMPLE), fresh_rows(manifest, parent, dead, samples)
    reader = VectorReader(store, {int(line["file_no"]): str(line["path"]) for line in lines})
    return {
        "format": FORMAT,
        "version": VERSION,
        **{key: manifest.get(key) for key in _KEPT},
        "before": None if parent is None else _before(parent),
        "tombstones": len(dead),
        "samples": {
            key: [
                {name: row[name] for name in _COLUMNS if row.get(name) is not None}
                for row in _some_of(samples, key)[:most]
            ]
            for key, most in _SHOWN.items()
        },
        "stages": _stages(manifest),
        "lists": _lists(searcher),
        "codes": _codes(searcher, sample, fresh),
        "neighbourhoods": neighbourhoods(
            searcher,
            reader,
            sample,
            fresh,
            seconds=_patience(manifest),
            groups=_GROUPS,
            outliers=_OUTLIERS,
        ),
        "files": _files(manifest["files"]),
    }


def fresh_rows(
    manifest: Mapping[str, Any], parent: Mapping[str, Any] | None, dead: Ids, samples: Samples
) -> Ids:
    """Ids of rows that came with this snapshot, at most _FRESH; none where all of them did.

    A run's own files come first among the new numbers, and hold what it embedded. Where they were
    merged into others since, the rows of the samples are what is known of them.
    """
    if parent is None or parent.get("model_fingerprint") != manifest.get("model_fingerprint"):
        return np.empty(0, dtype=np.int64)
    lines = snapshot.files_of(manifest, "embedding")
    embedded = int(manifest["counts"].get("embedded", 0))
    own: dict[int, int] = {}
    for line in sorted(lines, key=lambda one: int(one["file_no"])):
        if int(line["file_no"]) < int(parent["next_file_no"]):
            continue
        if sum(own.values()) + int(line["rows"]) > embedded:
            break
        own[int(line["file_no"])] = int(line["rows"])
    if own:
        return sample_rows(own, dead, _FRESH)
    rows = {int(line["file_no"]): int(line["rows"]) for line in lines}
    shown = [row.get("id") for key in ("added", "changed") for row in samples.get(key, ())]
    there = [
        one for one in shown if one is not None and (one & 0xFFFFFFFF) < rows.get(one >> 32, 0)
    ]
    return np.setdiff1d(np.array(there, dtype=np.int64), dead)


def write_metrics(
    path: Path, store: Path, *, status: int, seconds: float, published: bool, name: str = ""
) -> None:
    """Write the text of metrics about the last run and the snapshot that is published now.

    The file is replaced whole, so that whoever collects it never reads half of one; when the last
    run succeeded is carried over from it where this one did not.

    Args:
        path: The file; `node_exporter` wants its name to end in .prom.
        store: The store's root; there may be none.
        status: Exit status of the run.
        seconds: That the run took.
        published: Whether it published a snapshot.
        name: What every sample is labelled with, by default the store's folder.

    Raises:
        OSError: It cannot be written.
    """
    now = time.time()
    run = {
        "exit_status": status,
        "published": int(published),
        "seconds": round(seconds, 3),
        "finished": round(now, 3),
        "succeeded": round(now, 3) if status == 0 else _succeeded(path),
    }
    text = metrics_text(_published(store), run=run, labels={"store": name or str(store)})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _published(store: Path) -> dict[str, Any]:
    """The facts of the published snapshot, as far as they can be read; {} where there is none."""
    try:
        manifest = snapshot.read_manifest(store)
    except RequestError:
        return {}  # the run itself says what is wrong with the store
    for line in snapshot.files_of(manifest, "report"):
        if line["path"].endswith("/report.json"):
            try:
                known = json.loads((store / line["path"]).read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(known, dict):
                return known
    kept = {key: manifest.get(key) for key in _KEPT}
    return {**kept, "stages": _stages(manifest), "files": _files(manifest["files"])}


def _succeeded(path: Path) -> float | None:
    """When a run last succeeded, by the metrics file of the run before."""
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(
        r"^lookalike_run_last_success_timestamp_seconds\{.*\} ([\d.]+)$", before, re.M
    )
    return float(found[1]) if found else None


def _pictures(known: Mapping[str, Any]) -> Iterator[str]:
    """Names of files to show, the most telling first; what was removed has no picture any more."""
    for key in ("added", "changed", "rejected", "renamed"):
        yield from (row["uri"] for row in known["samples"][key])
    near = known["neighbourhoods"]
    yield from (row["uri"] for row in near["outliers"])
    yield from (row["uri"] for group in near["groups"] for row in group["members"])


def _some_of(samples: Samples, kind: str) -> list[Mapping[str, Any]]:
    """Rows of one kind; those of "rejected:<reason>" together, the reasons by turns."""
    lists = [samples[key] for key in sorted(samples) if key.partition(":")[0] == kind]
    turns = zip_longest(*lists)
    return [row for turn in turns for row in turn if row is not None]


def _patience(manifest: Mapping[str, Any]) -> float:
    """Seconds to ask for neighbours: a short run must not spend most of its time on that."""
    spent = float(sum((manifest.get("stages") or {}).values()))
    return min(_MOST_S, max(_LEAST_S, _SHARE * spent))


def _before(parent: Mapping[str, Any]) -> dict[str, Any]:
    """What a change is seen against."""
    certificate = parent.get("certificate") or {}
    return {
        "name": parent.get("name"),
        "created": parent.get("created"),
        "counts": parent.get("counts"),
        "certificate": {key: certificate.get(key) for key in ("k", "recall", "low", "high")},
    }


def _stages(manifest: Mapping[str, Any]) -> dict[str, Any]:
    stages = {}
    for name, seconds in (manifest.get("stages") or {}).items():
        count = manifest.get("counts", {}).get(_WORKED_ON.get(name, ""))
        stages[name] = {"seconds": seconds}
        if count and seconds > 0:
            stages[name] |= {"items": count, "rate": round(count / seconds, 1)}
    return stages


def _lists(searcher: Searcher) -> dict[str, Any]:
    """How the index's lists are filled; {} for an exact index, which has one."""
    sizes = searcher.index.list_sizes()
    if len(sizes) < 2:
        return {}
    marks = np.quantile(sizes, (0, 0.05, 0.5, 0.95, 1), method="nearest").tolist()
    total = float(sizes.sum()) or 1.0
    return {
        "lists": len(sizes),
        "entries": int(sizes.sum()),
        "empty": int((sizes == 0).sum()),
        **dict(zip(("min", "p05", "median", "p95", "max"), map(int, marks), strict=True)),
        "imbalance": round(float(len(sizes) * (sizes.astype(float) ** 2).sum() / total**2), 4),
        **histogram(sizes),
    }


def _codes(searcher: Searcher, sample: Ids, fresh: Ids) -> dict[str, Any]:
    """What codes lose of a vector, by the sample and the fresh rows; {} for an exact index."""
    if searcher.spec.kind == "exact":
        return {}
    lost = {
        name: searcher.index.lost_by_codes(_some(ids, _MEASURED))
        for name, ids in (("sample", sample), ("fresh", fresh))
        if len(ids)
    }
    top = max((float(values.max()) for values in lost.values()), default=0.0) or 1.0
    found: dict[str, Any] = {}
    for name, values in lost.items():
        counts, edges = np.histogram(values, bins=30, range=(0.0, top))
        found["edges"] = [float(f"{edge:.6g}") for edge in edges]
        found[name] = {
            "rows": len(values),
            "mean": round(float(values.mean()), 5),
            "p95": round(float(np.quantile(values, 0.95)), 5),
            "counts": counts.tolist(),
        }
    return found


def _some(ids: Ids, most: int) -> Ids:
    return ids[np.linspace(0, len(ids) - 1, min(most, len(ids))).astype(np.intp)]


def _files(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Files, rows and bytes by kind."""
    kinds: dict[str, dict[str, int]] = {}
    for line in lines:
        kind = kinds.setdefault(str(line["kind"]), {"files": 0, "rows": 0, "bytes": 0})
        kind["files"] += 1
        kind["rows"] += int(line.get("rows") or 0)
        kind["bytes"] += int(line["bytes"])
    return dict(sorted(kinds.items()))
