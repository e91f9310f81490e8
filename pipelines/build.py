"""From embedding shards to a certified index: train, encode, group, certify.

Every stage leaves finished files and says so last. They lie in a folder named by the index's spec,
so that a run continued with other settings keeps its embeddings and only these stages are done
again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import apache_beam as beam

from lookalike.errors import NotPublishedError
from lookalike.lists.encoding import EncodeTask, fitness_of, total_fitness
from lookalike.lists.grouping import GroupTask, list_ranges, list_sizes
from lookalike.planning.planner import HELD_OUT, IndexSpec, plan
from lookalike.quality.advice import advise
from lookalike.quality.certificate import certify
from lookalike.quality.recall import ExactNeighbours
from lookalike.search import Searcher
from lookalike.store import snapshot
from lookalike.store.runs import Run
from lookalike.store.storage import file_record, read_json, write_bytes, write_json
from lookalike.store.vector_reader import VectorReader
from lookalike.training import template as templates
from lookalike.training.fitness import compare
from lookalike.training.sampling import Sample, all_ids, sample_ids
from lookalike.training.template import Template, load_template
from lookalike.training.train import train
from pipelines.config import Config
from pipelines.progress import Progress, duration, timed
from pipelines.runner import run
from transforms.encode import EncodeParts, GroupLists

QUERIES = 1000  # held out; ± about 1.5 points at 95% recall
TRUTH_K = 100
_FIT_ROWS = 16  # per list, of the new vectors that an old template is tried on

Line = dict[str, Any]


@dataclass
class IndexBuild:
    """The index stages of one run.

    Attributes:
        store: The store's root.
        scratch: The run.
        config: As checked.
        progress: Where to say what happens.
        manifest: Of the snapshot that is being made, with its embedding files; the index is added.
        parent: The published manifest, whose template may serve again.
    """

    store: Path
    scratch: Run
    config: Config
    progress: Progress
    manifest: dict[str, Any]
    parent: Mapping[str, Any] | None

    def run(self) -> None:
        """Add template, index shards, search parameters and certificate to the manifest.

        Raises:
            NotPublishedError: The recall's lower bound is under `publish.min_recall`.
        """
        for reason in self.spec.reasons:
            self.progress.say(f"index: {reason}")
        for stage in (self._train, self._encode, self._group, self._certify):
            with timed(self.manifest["stages"], stage.__name__.strip("_")):
                stage()

    @cached_property
    def spec(self) -> IndexSpec:
        """What is planned for these vectors."""
        manifest = self.manifest
        return plan(
            manifest["counts"]["vectors"], manifest["dim"], manifest["metric"], self.config.index
        )

    @cached_property
    def folder(self) -> str:
        """Of what these stages leave for each other, relative to the store."""
        text = json.dumps(self.spec.to_json(), sort_keys=True)
        return f"{self.scratch.folder}/index-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @cached_property
    def _shards(self) -> list[Line]:
        return snapshot.files_of(self.manifest, "embedding")

    # --- train --------------------------------------------------------------------------------

    def _train(self) -> None:
        """Hold out queries; take the parent's template if it still fits, else train one."""
        done = self.store / self.folder / "trained.json"
        if not done.exists():
            spec, files = self.spec, {line["file_no"]: line["path"] for line in self._shards}
            paths, reader = list(files.values()), VectorReader(self.store, files)
            held_out = sample_ids(all_ids(self.store, paths), self._queries(), spec.seed + 1)
            queries = ExactNeighbours(reader.vectors(held_out), held_out, TRUTH_K, spec.metric)
            write_bytes(self.store, f"{self.folder}/queries.npz", queries.to_bytes())
            ids = sample_ids(all_ids(self.store, paths), spec.train_rows, spec.seed, held_out)
            sample = Sample(reader, ids)
            found = self._reuse(sample) or self._train_anew(sample)
            write_json(self.store, f"{self.folder}/trained.json", found)
        found = read_json(done)
        self.manifest["files"] += found["files"]
        # What was planned, but for what the template has settled.
        described = templates.load_spec(self.store / f"templates/{found['template']}")
        used = replace(self.spec, nlist=described.nlist, train_rows=described.train_rows)
        self.manifest["index"] = {
            **used.to_json(), **{key: found[key] for key in ("template", "training", "reused")}
        }  # fmt: skip

    def _queries(self) -> int:
        """How many to hold out: never many of the vectors that there are to train on."""
        most, rows = int(self.config.index.get("queries", QUERIES)), self._rows
        return min(most, rows if self.spec.kind == "exact" else max(1, rows // HELD_OUT))

    @property
    def _rows(self) -> int:
        return int(self.manifest["counts"]["vectors"])

    def _reuse(self, sample: Sample) -> dict[str, Any] | None:
        """The parent's template, where it is of the kind planned and fits the new vectors."""
        if self.spec.kind == "exact" or self.parent is None:
            return None
        name = self.parent["index"]["template"]
        folder = self.store / "templates" / name
        old = templates.load_spec(folder)
        if not _alike(old, self.spec, self.config.index):
            return None
        template = load_template(folder, name)
        training = self.parent["index"]["training"]
        found = compare(training, fitness_of(template, sample, _FIT_ROWS * old.nlist).measures())
        change = (
            f"on the new vectors its error is {found['error_ratio']:.2f} times, its imbalance "
            f"{found['imbalance_ratio']:.2f} times that of its training"
        )
        if not found["fits"]:
            self.progress.say(f"train: anew, template {name[:12]} no longer fits: {change}")
            return None
        self.progress.say(f"train: template {name[:12]} serves again: {change}")
        lines = snapshot.files_of(self.parent, "template")
        return {"template": name, "files": lines, "training": training, "reused": True}

    def _train_anew(self, sample: Sample) -> dict[str, Any]:
        data, training = train(self.spec, sample)
        name = templates.template_hash(data)
        described = {**self.spec.to_json(), "training": training}
        lines = self._commit_template(f"templates/{name}", data, described)
        if self.spec.kind != "exact":
            self.progress.say(
                f"train: {self.spec.nlist:,} lists, {self.spec.code_bytes} code bytes, on "
                f"{training['rows']:,} vectors in {duration(training['seconds'])}"
            )
        return {"template": name, "files": lines, "training": training, "reused": False}

    def _commit_template(self, folder: str, data: bytes, described: Line) -> list[Line]:
        """Write a template, spec last; one that is there is never written again."""
        spec = f"{folder}/{templates.SPEC_FILE}"
        if not (self.store / spec).exists():
            write_bytes(self.store, f"{folder}/{templates.TEMPLATE_FILE}", data)
            write_json(self.store, spec, described)
        return [
            {**file_record(self.store, path).to_json(), "kind": "template"}
            for path in (f"{folder}/{templates.TEMPLATE_FILE}", spec)
        ]

    # --- encode and group ---------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return str(self.manifest["index"]["template"])

    @cached_property
    def _template(self) -> Template:
        return load_template(self.store / f"templates/{self._name}", self._name)

    def _output(self, number: int) -> str:
        """Of an index shard; other settings give another name, as files never change."""
        return f"index/{self.scratch.name}-{self.folder.rpartition('-')[2]}-{number:05d}.lists"

    @cached_property
    def _parts(self) -> list[EncodeTask]:
        groups = list(_groups(self._shards, self.spec.part_rows))
        whole = len(groups) == 1
        return [
            EncodeTask(
                number,
                tuple(line["path"] for line in group),
                output=self._output(0) if whole else f"{self.folder}/parts/{number:05d}.part",
                truth=f"{self.folder}/truth/{number:05d}.npz",
                done=f"{self.folder}/encoded/{number:05d}.json",
                whole=whole,
            )
            for number, group in enumerate(groups)
        ]

    def _encode(self) -> None:
        """Parts of the index, in parallel; a part that is alone is the finished shard."""
        runner = self.config.runner
        encode = EncodeParts(
            str(self.store), f"templates/{self._name}", self._name, f"{self.folder}/queries.npz",
            runner.threads,
        )  # fmt: skip
        self._run_tasks("encode", "parts", self._parts, encode)
        done = [read_json(self.store / task.done) for task in self._parts]
        rows = sum(one["header"]["rows"] for one in done)
        assert rows == self._rows, f"{self._rows} vectors, {rows} of them encoded"
        if self.spec.kind != "exact":
            index = self.manifest["index"]
            found = total_fitness(self.store, done, self._template).measures()
            index["fitness"] = {**found, **compare(index["training"], found)}

    def _group(self) -> None:
        """Index shards by list, out of the parts."""
        if self._parts[0].whole:
            tasks: Sequence[Any] = self._parts
        else:
            parts = tuple(task.output for task in self._parts)
            ranges = list_ranges(list_sizes(self.store, parts, self._template), self.spec.shards)
            tasks = [
                GroupTask(
                    number, first, last, parts, self._output(number),
                    done=f"{self.folder}/grouped/{number:05d}.json",
                )
                for number, (first, last) in enumerate(ranges)
            ]  # fmt: skip
            group = GroupLists(str(self.store), f"templates/{self._name}", self._name)
            self._run_tasks("group", "index shards", tasks, group)
        lines = [read_json(self.store / task.done)["shard"] for task in tasks]
        rows = sum(line["rows"] for line in lines)
        assert rows == self._rows, f"{self._rows} vectors, {rows} of them in index shards"
        self.manifest["files"] += lines

    def _run_tasks(
        self, name: str, unit: str, tasks: Sequence[Any], transform: beam.PTransform
    ) -> None:
        """Run the tasks that are not done, and show how far they are."""
        pending = [task for task in tasks if not (self.store / task.done).exists()]
        if not pending:
            return

        def build(pipeline: beam.Pipeline) -> None:
            _ = pipeline | "Tasks" >> beam.Create(pending, reshuffle=False) | "Run" >> transform

        def done() -> int:
            return sum((self.store / task.done).exists() for task in tasks)

        with self.progress.stage(name, unit, len(tasks), done, done()):
            run(build, self.config.runner.at_most(len(pending)))  # one needs no worker processes

    # --- certify ------------------------------------------------------------------------------

    def _certify(self) -> None:
        truth = ExactNeighbours.from_bytes((self.store / f"{self.folder}/queries.npz").read_bytes())
        for task in self._parts:
            truth.merge(ExactNeighbours.from_bytes((self.store / task.truth).read_bytes()))
        target = float(self.config.index.get("target_recall", 0.95))
        certificate = certify(Searcher(self.store, self.manifest), truth, target=target)
        self.manifest["certificate"] = certificate
        self.manifest["search"] = {name: certificate[name] for name in ("nprobe", "rerank")}
        found = (
            f"recall@{certificate['k']} {certificate['recall']:.3f} "
            f"({certificate['low']:.3f} to {certificate['high']:.3f}, "
            f"{certificate['queries']:,} queries)"
        )
        floor = self.config.publish.min_recall
        if certificate["low"] < floor:
            raise NotPublishedError(
                f"not published: {found}; its lower bound is under publish.min_recall {floor}; "
                f"{advise(certificate, self.spec, floor)}"
            )
        short = f"; target_recall {target} is not certain: {certificate['advice']}"
        self.progress.say(f"certify: {found}{'' if certificate['reached'] else short}")


def _alike(old: IndexSpec, planned: IndexSpec, options: Mapping[str, Any]) -> bool:
    """Whether a template of one spec can serve where the other is planned."""
    settled = ("kind", "dim", "metric", "code_bytes", "nbits", "rotation_dim", "seed")
    if any(getattr(old, name) != getattr(planned, name) for name in settled):
        return False
    if options.get("nlist") not in (None, "auto"):
        return old.nlist == planned.nlist
    return planned.nlist / 2 <= old.nlist <= planned.nlist * 2


def _groups(shards: Sequence[Line], rows: int) -> Iterator[list[Line]]:
    """Consecutive embedding shards, `rows` or a little more together; what is left over is less."""
    group: list[Line] = []
    for line in shards:
        group.append(line)
        if sum(one["rows"] for one in group) >= rows:
            yield group
            group = []
    if group:
        yield group
