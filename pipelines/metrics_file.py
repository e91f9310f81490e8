"""The file of metrics that a run leaves for scheduled monitoring, replaced whole each time."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from lookalike.errors import RequestError
from lookalike.faults import Faults
from lookalike.pipelines.report_data import from_manifest
from lookalike.report.metrics import metrics_text
from lookalike.store import snapshot
from lookalike.store.objects import Store


def write_metrics(
    path: Path, store: Store, *, status: int, seconds: float, published: bool, name: str = ""
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
    labels = {"store": name or str(store)}
    text = Faults().spare(
        "snapshot",
        lambda: metrics_text(_published(store), run=run, labels=labels),
        "",
    ) or metrics_text({}, run=run, labels=labels)  # how the run ended is known in any case
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _published(store: Store) -> dict[str, Any]:
    """The facts of the published snapshot, as far as they can be read; {} where there is none."""
    try:
        manifest = snapshot.read_manifest(store)
    except RequestError:
        return {}  # the run itself says what is wrong with the store
    for line in snapshot.files_of(manifest, "report"):
        if line["path"].endswith("/report.json"):
            try:
                known = json.loads(store.read_bytes(line["path"]))
            except (OSError, ValueError):
                continue
            if isinstance(known, dict):
                return known
    return from_manifest(manifest)


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
