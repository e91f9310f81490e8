"""The commands that only read a store: status, verify, evaluate."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from lookalike import evaluation
from lookalike.pipelines.streams import print_as_json
from lookalike.report.certificate import certificate_line, losses_line
from lookalike.report.text import visible
from lookalike.sizes import size_text
from lookalike.store import snapshot
from lookalike.store.ledger import LISTED, UNKNOWN
from lookalike.store.manifest import Manifest
from lookalike.store.objects import open_store


def status(given: argparse.Namespace) -> int:
    """Snapshots, counts, index parameters and certificate."""
    store = open_store(given.store)
    manifest = snapshot.read_manifest(store)
    finished = snapshot.names(store)
    if given.json:
        keys = (
            "name",
            "created",
            "parent",
            "lookalike",
            "sources",
            "features",
            "metric",
            "dim",
            "model_fingerprint",
            "preprocessing_fingerprint",
            "counts",
            "index",
            "search",
            "certificate",
        )
        whole: Mapping[str, Any] = manifest
        published = {key: whole[key] for key in keys}
        published["projection"] = manifest.get("projection")
        published["changes"] = manifest.get("changes")  # snapshots of the first versions have none
        published["bytes"] = _bytes_by_kind(manifest)
        print_as_json({"store": str(given.store), "snapshots": finished, "published": published})
        return 0
    counts, index = manifest["counts"], manifest["index"]
    print(f"store      {given.store}")
    print(f"published  {manifest['name']} (created {manifest['created']})")
    print(f"snapshots  {visible(', '.join(finished))}")
    for feature in manifest["features"]:
        share = f", weight {feature['weight']:g}" if len(manifest["features"]) > 1 else ""
        print(visible(f"feature    {feature['name']}: {feature['handle']}{share}"))
    if projection := manifest.get("projection"):
        name, components = projection["handle"], f"{projection['dim']:,} components"
        print(visible(f"projection {name}: {projection['inputs']:,} to {components}"))
    print(
        f"files      {counts['listed']:,} listed = "
        + " + ".join(f"{counts[name]:,} {name}" for name in LISTED)
    )
    if counts.get(UNKNOWN):
        print(f"           {counts[UNKNOWN]:,} unknown: not readable then, kept as they were")
    for reason, count in counts["rejected_by_reason"].items():
        print(f"           rejected: {count:,} {reason}")
    changes = manifest.get("changes") or {}
    if changes.get("previous"):
        kinds = ("added", "changed", "removed", "renamed")
        print(
            f"changes    since {manifest['parent']}: "
            + ", ".join(f"{changes[kind]:,} {kind}" for kind in kinds)
        )
    print(f"vectors    {counts['vectors']:,} of {manifest['dim']} dimensions, {manifest['metric']}")
    deltas = sum(bool(line.get("delta")) for line in manifest["files"])
    deleted = sum(line["rows"] for line in snapshot.files_of(manifest, "embedding"))
    deleted -= counts["vectors"]
    if deltas or deleted:
        print(
            f"           {deltas:,} deltas of the index, {deleted:,} deleted rows since compaction"
        )
    for number, reason in enumerate(index["reasons"]):
        print(f"{'' if number else 'index':<10} {reason}")
    print(
        f"search     nprobe {manifest['search']['nprobe']}, rerank {manifest['search']['rerank']}"
    )
    certificate = manifest["certificate"]
    print(f"quality    {certificate_line(certificate)}")
    losses = losses_line(certificate)
    for line in filter(None, (losses, certificate.get("advice"))):
        print(f"           {line}")
    sizes = _bytes_by_kind(manifest)
    print(f"disk       {', '.join(f'{kind} {size_text(size)}' for kind, size in sizes.items())}")
    return 0


def verify(given: argparse.Namespace) -> int:
    """Every file against the manifest; status 1 if any is not as it should be."""
    store = open_store(given.store)
    manifest = snapshot.read_manifest(store, given.snapshot)
    problems = list(snapshot.verify(store, given.snapshot))
    files = len(manifest["files"])
    if given.json:
        found = [problem.__dict__ for problem in problems]
        print_as_json(
            {
                "snapshot": manifest["name"],
                "files": files,
                "ok": not problems,
                "problems": found,
            }
        )
    else:
        for problem in problems:
            print(visible(str(problem)))
        verdict = f"{len(problems)} problems" if problems else "all as the manifest says"
        print(f"{manifest['name']}: {files:,} files checked: {verdict}")
    return 1 if problems else 0


def evaluate(given: argparse.Namespace) -> int:
    """Precision@k and mAP of the published vectors against labels."""
    store = open_store(given.store)
    manifest = snapshot.read_manifest(store, given.snapshot)
    folders = given.labels == "folders"
    label_of = evaluation.folder_label if folders else evaluation.file_labels(given.labels)
    result = evaluation.evaluate(store, manifest, label_of, given.k)
    if given.json:
        print_as_json({"snapshot": manifest["name"], **result.to_json()})
    else:
        print(
            f"P@{result.k} {result.precision_at_k:.3f}, mAP {result.mean_average_precision:.3f} "
            f"({result.queries:,} queries among {result.images:,} images of {result.labels:,} "
            "labels, each left out of its own answer; exact scores)"
        )
    return 0


def _bytes_by_kind(manifest: Manifest) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for line in manifest["files"]:
        sizes[line["kind"]] = sizes.get(line["kind"], 0) + line["bytes"]
    return dict(sorted(sizes.items()))
