"""One way of making the index of a run: train, encode, group, certify.

Every stage leaves finished files and says so last. They lie in a folder named by what decides their
content, so that a run continued with other settings keeps its embeddings, and only these stages are
done again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import ceil
from typing import Any

from lookalike.batching import at_least
from lookalike.distances import Ids
from lookalike.ivf.drawing import Draw, Span
from lookalike.ivf.encoding import EncodeTask, shard_sizes, total_fitness
from lookalike.ivf.fitness import compare, imbalance
from lookalike.ivf.index_work import EncodeWork, GroupWork
from lookalike.ivf.planner import ROWS_PER_SHARD
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.tasks import TrainTask, encode_tasks, group_tasks, train_index
from lookalike.ivf.trained_index import TrainedIndex, load_spec, load_trained_index
from lookalike.pipelines.certify import Asking
from lookalike.pipelines.config import Config
from lookalike.pipelines.progress import duration, timed
from lookalike.pipelines.samples import Sampler, Samples
from lookalike.pipelines.tasks import TaskRunner
from lookalike.pipelines.truth import Comparisons, chosen, combined, query_seed
from lookalike.recall.truth import Truth
from lookalike.store import snapshot
from lookalike.store.manifest import Certificate, FileLine, Manifest
from lookalike.work import TaskWork

_WORTH_A_PROCESS = 50_000  # rows: fewer are encoded before another process has started
APPEND, REENCODE, RETRAIN = "append", "reencode", "retrain"


@dataclass
class IndexUpdate:
    """The index of some embedding shards, made in one way.

    Attributes:
        task_runner: Has tasks of the run done.
        config: As checked.
        manifest: Of the snapshot that is being made, without an index.
        spec: As planned.
        way: APPEND (new rows are encoded with the parent's trained index and added to its shards),
            REENCODE (all rows are, in place of its shards) or RETRAIN (with another, trained on
            them).
        queries: How many to hold out, where none are given.
        added: Lines of the embedding shards that the parent's index does not hold.
        deleted: Tombstones, ascending.
        sampler: Draws samples of these vectors.
        parent: The manifest that APPEND and REENCODE go on from.
        truth: Queries and what is known of them; None to draw some.
        files: Lines of trained index and index shards, once they are there.
        index: The manifest's "index".
        certificate: Its "certificate".
        result: The truth that the certificate was measured by.
    """

    task_runner: TaskRunner
    config: Config
    manifest: Manifest
    spec: IndexSpec
    way: str
    queries: int
    added: Sequence[FileLine]
    deleted: Ids
    sampler: Sampler
    parent: Manifest | None
    truth: Truth | None
    files: list[FileLine] = field(default_factory=list)
    index: dict[str, Any] = field(default_factory=dict)
    certificate: Certificate = field(default_factory=Certificate)
    result: Truth | None = None

    def __post_init__(self) -> None:
        """Name the store's root."""
        self.store = self.task_runner.store

    def run(self, seconds: dict[str, float]) -> None:
        """All stages; adds to the seconds of each."""
        for stage in (self._train, self._encode, self._group, self._certify):
            name, now = stage.__name__.strip("_"), dict[str, float]()
            with timed(now, name):
                stage()
            seconds[name] = round(seconds.get(name, 0.0) + now[name], 3)

    @cached_property
    def folder(self) -> str:
        """Of what these stages leave for each other, relative to the store."""
        paths = [line["path"] for line in self._shards]
        decided = [self.spec.to_json(), self.way, self.queries, paths, len(self.added)]
        digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode())
        digest.update(self.deleted.tobytes())
        return f"{self.task_runner.scratch.folder}/index-{digest.hexdigest()[:12]}"

    @cached_property
    def _shards(self) -> list[FileLine]:
        return snapshot.files_of(self.manifest, "embedding")

    @cached_property
    def _encoded(self) -> list[FileLine]:
        """Embedding shards to encode."""
        return [*self.added] if self.way == APPEND else self._shards

    @cached_property
    def _comparisons(self) -> Comparisons:
        return Comparisons(self.store, self.folder)

    # --- train --------------------------------------------------------------------------------

    def _train(self) -> None:
        """Choose the queries, and for RETRAIN train on other rows."""
        samples = self._drawn if self.truth is None or self.way == RETRAIN else None
        if not self._comparisons.there:
            self._comparisons.write(self._chosen(samples))
        found = self._trained_of(samples)
        self.files += found["files"]
        # What was planned, but for what the trained index has settled.
        described = load_spec(self.store.local_folder(f"templates/{found['template']}"))
        used = replace(self.spec, nlist=described.nlist, train_rows=described.train_rows)
        kept = {name: found[name] for name in ("template", "training")}
        self.index |= {**used.to_json(), **kept, "way": self.way, "reused": self.way != RETRAIN}

    @property
    def _drawn(self) -> Samples:
        """Samples of all rows: of queries, and for RETRAIN of rows to train on."""
        spec = self.spec
        spans = [Span.of(line) for line in self._shards]
        living = sum(span.living(self.deleted) for span in spans)
        draws = [Draw.among(living, query_seed(spec), self.queries)]
        if self.way == RETRAIN and spec.train_rows:
            # Some of those that are drawn may be queries.
            draws.append(Draw.among(living, spec.seed, spec.train_rows + self.queries))
        return self.sampler.draw(spans, spec.part_rows, *draws)

    def _chosen(self, samples: Samples | None) -> Truth:
        """The queries, with what is known of them."""
        if self.truth is None:
            assert samples is not None
            living = sum(span.living(self.deleted) for span in map(Span.of, self._shards))
            return chosen(samples[0], living, self.spec)
        return self.truth if self.way == APPEND else self.truth.restarted()

    def _trained_of(self, samples: Samples | None) -> Mapping[str, Any]:
        """The parent's, or one that is trained; as `train_index` records it."""
        if self.way != RETRAIN:
            assert self.parent is not None
            index, lines = self.parent["index"], snapshot.files_of(self.parent, "template")
            return {"template": index["template"], "files": lines, "training": index["training"]}
        assert samples is not None
        spec, done = self.spec, f"{self.folder}/trained.json"
        task = TrainTask(spec, samples.done, self._comparisons.known, done)
        if spec.kind == "exact":  # nothing is trained
            return train_index(task, self.store)
        train = TaskWork("train", self.store, train_index, task.memory)
        [found] = self.task_runner.run(("train", "trainings"), [task], train)
        self.task_runner.progress.say(
            f"train: {spec.nlist:,} lists, {spec.code_bytes} code bytes, on "
            f"{found['training']['rows']:,} vectors in {duration(found['training']['seconds'])}"
        )
        return found

    @property
    def _name(self) -> str:
        return str(self.index["template"])

    @cached_property
    def _trained(self) -> TrainedIndex:
        return load_trained_index(self.store.local_folder(f"templates/{self._name}"), self._name)

    # --- encode and group ---------------------------------------------------------------------

    @cached_property
    def _parts(self) -> list[EncodeTask]:
        groups = self._groups(self._encoded)
        paths = [[line["path"] for line in group] for group in groups]
        return encode_tasks(paths, self.folder, self._output(0), self.sampler.removed)

    @cached_property
    def _compared(self) -> list[EncodeTask]:
        """Shards that are encoded already, with which some queries are to be compared."""
        if self.way != APPEND or not self._comparisons.truth.short.any():
            return []
        new = {line["path"] for line in self._encoded}
        old = [line for line in self._shards if line["path"] not in new]
        return [
            EncodeTask(
                number,
                tuple(line["path"] for line in group),
                output="",
                truth=f"{self.folder}/old-truth/{number:05d}",
                done=f"{self.folder}/compared/{number:05d}.json",
                removed=self.sampler.removed,
                queries=self._comparisons.some,
            )
            for number, group in enumerate(self._groups(old))
        ]

    def _groups(self, shards: Sequence[FileLine]) -> Iterator[tuple[FileLine, ...]]:
        """Embedding shards for one task each."""
        return at_least(((line, int(line["rows"])) for line in shards), self.spec.part_rows)

    def _output(self, number: int) -> str:
        """Of an index shard: its name but for the hash."""
        return (
            f"index/{self.task_runner.scratch.name}-{self.folder.rpartition('-')[2]}-{number:05d}"
        )

    def _encode(self) -> None:
        """Parts of the index, in parallel; a part that is alone is the finished shard."""
        queries, threads = self._comparisons.all, self.config.runner.threads
        encode = EncodeWork(self.store, self._name, threads, queries)
        tasks = [*self._parts, *self._compared]
        some = self.task_runner.worth(self._rows, _WORTH_A_PROCESS)
        records = some.run(("encode", "parts"), tasks, encode)
        self._made, self._among_old = records[: len(self._parts)], records[len(self._parts) :]
        rows = sum(one["header"]["rows"] for one in self._made)
        self._check(rows, "encoded")
        if self.spec.kind != "exact":
            self.index["fitness"] = self._fitness()

    def _check(self, rows: int, what: str) -> None:
        if rows != self._rows:
            place = self.store.shown(self.folder)
            raise RuntimeError(f"{place}: {self._rows:,} living vectors, {rows:,} of them {what}")

    @cached_property
    def _rows(self) -> int:
        """Living rows that are to be encoded."""
        return sum(Span.of(line).living(self.deleted) for line in self._encoded)

    @cached_property
    def _kept(self) -> list[FileLine]:
        """The parent's index shards that stay."""
        if self.way != APPEND:
            return []
        assert self.parent is not None
        return snapshot.files_of(self.parent, "index")

    def _fitness(self) -> dict[str, Any]:
        """How well the trained index fits what is in the index."""
        fitness = total_fitness(self.store, self._made, self._trained)
        measures = fitness.measures()
        if self.way == APPEND:
            assert self.parent is not None
            before, kept = self.parent["index"]["fitness"], sum(line["rows"] for line in self._kept)
            for name in ("quantisation_error", "rotation_error"):
                total = measures[name] * self._rows + before[name] * kept
                measures[name] = total / max(1, self._rows + kept)
            paths = [line["path"] for line in self._kept]
            sizes = fitness.sizes + shard_sizes(self.store, paths, self._trained)
            measures["imbalance"] = imbalance(sizes)
        return {**measures, **compare(self.index["training"], measures)}

    def _group(self) -> None:
        """Index shards by list, out of the parts."""
        made = self._made
        if len(made) > 1:
            shards = ceil(self._rows / ROWS_PER_SHARD) if self.way == APPEND else self.spec.shards
            tasks = group_tasks(
                self.store, self._parts, self._trained, shards, self.folder, self._output
            )
            group = GroupWork(self.store, self._name)
            made = self.task_runner.run(("group", "index shards"), tasks, group)
        lines: list[FileLine] = [record["shard"] for record in made]
        rows = sum(line["rows"] for line in lines)
        self._check(rows, "in index shards")
        if self.way == APPEND:
            lines = [{**line, "delta": True} for line in lines]
        self.files += [*self._kept, *lines]

    # --- certify ------------------------------------------------------------------------------

    def _certify(self) -> None:
        """Measure recall, of rows old and new."""
        queries = self._comparisons
        new, old = (
            combined(
                self.task_runner,
                f"{self.folder}/{name}",
                asked,
                [record["truth"]["path"] for record in records],
            )
            for name, asked, records in (
                ("merged", queries.all, self._made),
                ("merged-old", queries.some, self._among_old),
            )
        )
        self.result = queries.result(new, old)
        manifest: Manifest = {
            **self.manifest,
            "files": [*self.manifest["files"], *self.files],
            "index": self.index,
        }
        before = None
        if self.way == APPEND and self.parent is not None and self.parent["certificate"]["reached"]:
            before = (int(self.parent["search"]["nprobe"]), int(self.parent["search"]["rerank"]))
        asking = Asking(self.task_runner, f"{self.folder}/certify", manifest)
        target = float(self.config.index.get("target_recall", 0.95))
        self.certificate = asking.certificate(self.result.measured(), target, before)
