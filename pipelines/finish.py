"""The last stages of a run: train, shard, certify, publish."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import apache_beam as beam

from lookalike.errors import NotPublishedError
from lookalike.index import template as index
from lookalike.index.certificate import certify
from lookalike.index.encoding import EncodeTask
from lookalike.index.planning import HELD_OUT, IndexSpec, plan
from lookalike.index.recall import ExactNeighbours
from lookalike.index.sampling import all_ids, read_sample, sample_ids
from lookalike.pages.report import render_report
from lookalike.search import Searcher
from lookalike.store import snapshot
from lookalike.store.duplicates import write_duplicates
from lookalike.store.ledger import Counts, LedgerRow, read_ledger, write_ledger
from lookalike.store.other_names import other_names
from lookalike.store.runs import Plan, Run
from lookalike.store.storage import file_record, read_json, write_bytes, write_json
from lookalike.unit_embedding import Unit
from pipelines.config import Config, PublishConfig
from pipelines.progress import Progress
from pipelines.runner import run
from transforms.encode import EncodeShards

QUERIES = 1000  # held out; ± about 1.5 points at 95% recall
TRUTH_K = 100
_LEDGER_FILE_ROWS = 1_000_000
_EXAMPLES = 4  # per reason


def too_many_rejected(counts: Counts, limits: PublishConfig) -> bool:
    """Whether what was rejected stops publication."""
    return counts.rejected_share > limits.max_rejected_share or not counts.by_status["embedded"]


def check_rejects(counts: Counts, limits: PublishConfig, scratch: Run, plan: Plan) -> None:
    """Stop a run that rejected too much: a broken mount must not become an empty index.

    Raises:
        NotPublishedError: With the share, the limit and the most frequent reasons.
    """
    if not too_many_rejected(counts, limits):
        return
    rejected, share = counts.by_status["rejected"], counts.rejected_share
    images = counts.listed - counts.by_status["ignored"]
    reasons = ", ".join(f"{name} {count:,}" for name, count in counts.by_reason.most_common(5))
    example = next((row for row in _ledger_rows(scratch, plan) if row.status == "rejected"), None)
    shown = f"; for example {example.uri}: {example.reason}: {example.detail}" if example else ""
    raise NotPublishedError(
        f"not published: {rejected:,} of {images:,} images were rejected ({share:.1%}), "
        f"publish.max_rejected_share is {limits.max_rejected_share:.1%}; {reasons}{shown}"
    )


def summary(manifest: Mapping[str, Any], new: bool) -> dict[str, Any]:
    """What `lookalike index --json` prints."""
    keys = ("counts", "index", "search", "certificate", "metric", "dim", "features", "parent")
    return {
        "snapshot": manifest["name"],
        "new": new,
        **{key: manifest[key] for key in keys},
    }


@dataclass
class IndexStages:
    """Train, encode, certify and publish what a run has embedded.

    The files of these stages lie in a folder named by the index settings, so that a run continued
    with other settings keeps its embeddings and only these stages are done again.
    """

    store: Path
    scratch: Run
    plan: Plan
    config: Config
    progress: Progress

    def build(self, manifest: dict[str, Any]) -> None:
        """Add template, index shards, search parameters and certificate to the manifest.

        Raises:
            NotPublishedError: The recall's lower bound is under `publish.min_recall`.
        """
        shards = [line["path"] for line in snapshot.files_of(manifest, "embedding")]
        vectors = manifest["counts"]["vectors"]
        spec = plan(
            vectors, manifest["dim"], manifest["metric"], self.config.index, files=len(shards)
        )
        self.progress.say(f"index: {spec.reason}")
        key = hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode()).hexdigest()[:12]
        folder = f"{self.scratch.folder}/index-{key}"
        template, lines = self._train(spec, shards, vectors, folder)
        manifest["index"] = {**spec.to_json(), "template": template}
        manifest["files"] += lines
        manifest["files"] += self._encode(template, shards, folder)
        self._certify(manifest, folder)

    def _train(
        self, spec: IndexSpec, shards: list[str], vectors: int, folder: str
    ) -> tuple[str, list[dict[str, Any]]]:
        """Held-out queries and the template; returns the template's hash and its files' lines."""
        done = self.store / folder / "trained.json"
        if not done.exists():
            queries = sample_ids(
                all_ids(self.store, shards), _queries(spec, vectors, self.config), spec.seed + 1
            )
            held_out = ExactNeighbours(
                read_sample(self.store, shards, queries), queries, TRUTH_K, spec.metric
            )
            write_bytes(self.store, f"{folder}/queries.npz", held_out.to_bytes())
            ids = sample_ids(all_ids(self.store, shards), spec.train_rows, spec.seed, queries)
            data, stats = index.train(spec, read_sample(self.store, shards, ids))
            name = index.template_hash(data)
            described = {**spec.to_json(), "training": stats}
            lines = self._commit_template(f"templates/{name}", data, described)
            write_json(self.store, str(done.relative_to(self.store)), [name, lines])
            if spec.train_rows:
                self.progress.say(
                    f"train: {spec.nlist:,} lists, {spec.code_bytes} code bytes, on "
                    f"{stats['rows']:,} vectors in {stats['seconds']:.1f} s"
                )
        name, lines = read_json(done)
        return name, lines

    def _commit_template(
        self, folder: str, data: bytes, described: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Write a template, spec last; one that is there is never written again."""
        spec = f"{folder}/{index.SPEC_FILE}"
        if not (self.store / spec).exists():
            write_bytes(self.store, f"{folder}/{index.TEMPLATE_FILE}", data)
            write_json(self.store, spec, described)
        return [
            {**file_record(self.store, path).to_json(), "kind": "template"}
            for path in (f"{folder}/{index.TEMPLATE_FILE}", spec)
        ]

    def _encode(self, template: str, shards: list[str], folder: str) -> list[dict[str, Any]]:
        """Index shards, in parallel; returns their lines."""
        spec = index.load_spec(self.store / f"templates/{template}")
        count = min(spec.shards, len(shards))
        groups = [shards[i * len(shards) // count : (i + 1) * len(shards) // count]
                  for i in range(count)]  # fmt: skip
        stem = f"{self.scratch.name}-{folder.rpartition('-')[2]}"
        tasks = [
            EncodeTask(
                number,
                tuple(group),
                output=f"index/{stem}-{number:05d}.lists",
                truth=f"{folder}/truth/{number:05d}.npz",
                done=f"{folder}/encoded/{number:05d}.json",
            )
            for number, group in enumerate(groups)
        ]
        pending = [task for task in tasks if not (self.store / task.done).exists()]

        runner = self.config.runner.at_most(len(pending))  # one task needs no worker processes

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Tasks" >> beam.Create(pending, reshuffle=False)
                | "Encode"
                >> EncodeShards(
                    str(self.store),
                    f"templates/{template}",
                    template,
                    f"{folder}/queries.npz",
                    runner.threads,
                )
            )

        def encoded() -> int:
            return sum((self.store / task.done).exists() for task in tasks)

        if pending:
            with self.progress.stage("encode", "index shards", len(tasks), encoded, encoded()):
                run(build, runner)
        done = [read_json(self.store / task.done) for task in tasks]
        return [one["shard"] for one in done]

    def _certify(self, manifest: dict[str, Any], folder: str) -> None:
        truth = ExactNeighbours.from_bytes((self.store / f"{folder}/queries.npz").read_bytes())
        for path in sorted((self.store / folder / "truth").glob("*.npz")):
            truth.merge(ExactNeighbours.from_bytes(path.read_bytes()))
        target = float(self.config.index.get("target_recall", 0.95))
        searcher = Searcher(self.store, manifest)
        certificate = certify(searcher, truth, target=target)
        manifest["certificate"] = certificate
        manifest["search"] = {name: certificate[name] for name in ("nprobe", "rerank")}
        floor = self.config.publish.min_recall
        found = (
            f"recall@{certificate['k']} {certificate['recall']:.3f} "
            f"({certificate['low']:.3f} to {certificate['high']:.3f}, "
            f"{certificate['queries']:,} queries)"
        )
        if certificate["low"] < floor:
            raise NotPublishedError(
                f"not published: {found}; its lower bound is under publish.min_recall {floor}; "
                "raise index.code_bytes or index.memory, or lower the floor"
            )
        short = "" if certificate["reached"] else f"; target_recall {target} is not certain"
        self.progress.say(f"certify: {found}{short}")

    def publish(self, manifest: dict[str, Any]) -> None:
        """Ledger, duplicates and report; then the manifest; then CURRENT."""
        folder = f"snapshots/{manifest['name']}"
        manifest["files"] += self._write_ledger(folder)
        manifest["files"] += self._write_duplicates(folder)
        examples = _examples(_ledger_rows(self.scratch, self.plan))
        report = write_bytes(
            self.store, f"{folder}/report.html", render_report(manifest, examples).encode()
        )
        manifest["files"].append({**report.to_json(), "kind": "report"})
        snapshot.publish(self.store, manifest)
        counts = manifest["counts"]
        parts = ", ".join(f"{counts[name]:,} {name}" for name in
                          ("embedded", "duplicate", "rejected", "ignored"))  # fmt: skip
        self.progress.say(f"published {manifest['name']}: {counts['listed']:,} files: {parts}")

    def _write_ledger(self, folder: str) -> list[dict[str, Any]]:
        rows = _ledger_rows(self.scratch, self.plan)
        lines: list[dict[str, Any]] = []
        first = next(rows, None)
        while first is not None:
            part = chain([first], islice(rows, _LEDGER_FILE_ROWS - 1))
            path = f"{folder}/ledger/{len(lines):05d}.parquet"
            record, count = write_ledger(self.store, path, part)
            lines.append({**record.to_json(), "kind": "ledger", "rows": count})
            first = next(rows, None)
        return lines

    def _write_duplicates(self, folder: str) -> list[dict[str, Any]]:
        names = other_names(
            self.store, self._units(), f"{self.scratch.folder}/names", crossing=True
        )
        record, rows = write_duplicates(self.store, f"{folder}/duplicates.parquet", names)
        return [{**record.to_json(), "kind": "duplicates", "rows": rows}]

    def _units(self) -> list[Unit]:
        return [self.scratch.unit(number, self.plan) for number in range(self.plan.units)]


def _queries(spec: IndexSpec, vectors: int, config: Config) -> int:
    """How many queries to hold out: never many of the vectors that there are to train on."""
    most = int(config.index.get("queries", QUERIES))
    return min(most, vectors if spec.kind == "exact" else max(1, vectors // HELD_OUT))


def _examples(rows: Iterable[LedgerRow]) -> list[tuple[str, str, str]]:
    """A few rejected files of every reason, for the report."""
    shown: dict[str, list[tuple[str, str, str]]] = {}
    for row in rows:
        if row.status == "rejected" and len(shown.setdefault(row.reason, [])) < _EXAMPLES:
            shown[row.reason].append((row.uri, row.reason, row.detail))
    return [example for reason in sorted(shown) for example in shown[reason]]


def _ledger_rows(scratch: Run, plan: Plan) -> Iterator[LedgerRow]:
    for number in range(plan.units):
        yield from read_ledger(scratch.store / scratch.unit(number, plan).ledger)
