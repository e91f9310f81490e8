"""From embedding shards to a certified index: new rows are added to the parent's, if that will do.

Where it will not, all rows are encoded again by the same trained index, or another is trained;
every run says which, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from lookalike.distances import Ids
from lookalike.errors import NotPublishedError
from lookalike.ivf.drawing import Draw, Span
from lookalike.ivf.planner import HELD_OUT
from lookalike.ivf.spec import IndexSpec
from lookalike.ivf.tasks import MEASURED_ROWS
from lookalike.ivf.trained_index import TrainedIndex, load_spec, load_trained_index
from lookalike.pipelines.config import Config
from lookalike.pipelines.index_update import APPEND, REENCODE, RETRAIN, IndexUpdate
from lookalike.pipelines.progress import timed
from lookalike.pipelines.reuse import FIT_ROWS, differs, drift, misfit, plan_next
from lookalike.pipelines.samples import Sampler, Samples
from lookalike.pipelines.tasks import TaskRunner
from lookalike.pipelines.truth import ENOUGH, carried, draw_of_new, with_new
from lookalike.recall.advice import advise
from lookalike.recall.truth import Truth
from lookalike.store import snapshot
from lookalike.store.compacting import needs_compaction
from lookalike.store.manifest import Certificate, FileLine, Manifest
from lookalike.store.moving import Moved
from lookalike.store.tombstones import write_tombstones

QUERIES = 1000  # held out; ± about 1.5 points at 95% recall
_MADE_OF = ("dim", "metric", "model_fingerprint", "preprocessing_fingerprint")


@dataclass
class IndexBuild:
    """The index stages of one run.

    Attributes:
        task_runner: Has tasks of the run done.
        config: As checked.
        manifest: Of the snapshot that is being made, with its embedding files and, where any row is
            deleted, its tombstones; the index is added.
        parent: The published manifest, whose index may be added to.
        added: Embedding shards that the parent's index does not hold; by default those that are not
            the parent's.
        deleted: Deleted ids among the rows of the manifest's embedding shards, (n,) int64,
            ascending.
        moved: New ids of rows, where embeddings were compacted.
    """

    task_runner: TaskRunner
    config: Config
    manifest: Manifest
    parent: Manifest | None
    added: Sequence[FileLine] | None = None
    deleted: Ids = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    moved: Moved | None = None

    def __post_init__(self) -> None:
        """Name the store's root."""
        self.store = self.task_runner.store

    def run(self) -> None:
        """Add trained index, shards, truth, search parameters and certificate to the manifest.

        Raises:
            NotPublishedError: The recall's lower bound is under `publish.min_recall`.
        """
        if len(self.deleted) and not snapshot.files_of(self.manifest, "tombstones"):
            path = f"snapshots/{self.manifest['name']}/tombstones.npy"
            record = write_tombstones(self.store, path, self.deleted)
            self.manifest["files"].append(record.line("tombstones"))
        with timed(self.manifest["stages"], "plan"):
            way, why = self._way()
        made = self._attempt(way, why)
        lacking = "" if way == RETRAIN else self._lacking(made.certificate)
        if lacking:
            made = self._attempt(RETRAIN, lacking)
        self._commit(made)

    # --- which way ----------------------------------------------------------------------------

    def _way(self) -> tuple[str, str]:
        """How to make the index, and why so."""
        if self.parent is None or self._old is None:
            return RETRAIN, "its vectors are of another model" if self.parent else ""
        name = f"trained index {self.parent['index']['template'][:12]}"
        other = differs(self._old, self.spec, self.config.index)
        if other:
            return RETRAIN, f"{name} does not serve: {other}"
        exact = self.spec.kind == "exact"
        queries = 0 if self._truth is None else len(self._truth)
        if queries < ENOUGH * self._queries:
            if not exact:  # others would be among the rows that it was trained on
                return RETRAIN, f"{queries:,} queries are left of the {self._queries:,} wanted"
            self._truth = None
        if not exact and self._drift["drifted"]:
            return RETRAIN, (
                f"{name} no longer fits: of {self._drift['rows']:,} vectors added since it was "
                f"trained, codes lose {self._drift['error_ratio']:.2f} times what they lost then"
            )
        again = self._why_again()
        if not again:
            return APPEND, ""
        if exact:
            return REENCODE, again
        spec, spans = self._trained.spec, [Span.of(line) for line in self._shards]
        wanted = Draw.among(self._rows, spec.seed, FIT_ROWS * spec.nlist)
        sample = self._sampler.draw(spans, spec.part_rows, wanted)[0]
        fits, change = misfit(self.parent["index"]["training"], self._trained, sample)
        return (REENCODE if fits else RETRAIN), f"{again}; {name} {change}"

    def _why_again(self) -> str:
        """Why the parent's index shards cannot stay; "" if they can."""
        assert self.parent is not None
        there = {line["path"] for line in self._shards}
        if not there.issuperset(self._parents):
            return "embeddings were compacted"
        limits = self.config.compact
        found = needs_compaction(self.parent, self._shards, self._added, self.deleted, limits)
        return "; ".join(found)

    def _lacking(self, certificate: Certificate) -> str:
        """Why an index that goes on from the parent's will not do, where a new one may; or ""."""
        assert self.parent is not None
        if self.spec.kind == "exact":
            return ""
        low, floor = certificate["low"], self.config.publish.min_recall
        if low < floor:
            return f"the recall's lower bound {low:.3f} is under publish.min_recall {floor}"
        if not certificate["reached"] and self.parent["certificate"]["reached"]:
            target = certificate["target"]
            return f"the recall's lower bound {low:.3f} is under target_recall {target}"
        return ""

    # --- what there is ------------------------------------------------------------------------

    @cached_property
    def spec(self) -> IndexSpec:
        """What is planned for these vectors."""
        manifest = self.manifest
        return plan_next(
            self._rows, manifest["dim"], manifest["metric"], self.config.index, self._old
        )

    @cached_property
    def _old(self) -> IndexSpec | None:
        """What the parent's index is, where that is of vectors of the same kind."""
        before: Mapping[str, Any] | None = self.parent
        now: Mapping[str, Any] = self.manifest
        if before is None or any(before[one] != now[one] for one in _MADE_OF):
            return None
        return load_spec(self.store.local_folder(f"templates/{before['index']['template']}"))

    @property
    def _rows(self) -> int:
        return int(self.manifest["counts"]["vectors"])

    @cached_property
    def _queries(self) -> int:
        """How many to hold out: never many of the vectors that there are to train on."""
        most, rows = int(self.config.index.get("queries", QUERIES)), self._rows
        return min(most, rows if self.spec.kind == "exact" else max(1, rows // HELD_OUT))

    @cached_property
    def _shards(self) -> list[FileLine]:
        return snapshot.files_of(self.manifest, "embedding")

    @cached_property
    def _parents(self) -> frozenset[str]:
        """Paths of the parent's embedding shards."""
        lines = snapshot.files_of(self.parent, "embedding") if self.parent else []
        return frozenset(line["path"] for line in lines)

    @cached_property
    def _added(self) -> list[FileLine]:
        if self.added is not None:
            return list(self.added)
        return [line for line in self._shards if line["path"] not in self._parents]

    @cached_property
    def _new(self) -> list[Span]:
        """The rows that the parent did not have."""
        if self.moved is None:
            return [Span.of(line) for line in self._added]
        paths = {int(line["file_no"]): str(line["path"]) for line in self._shards}
        spans = [
            Span.of(line)
            for line in self._shards
            if line["path"] not in self._parents and line["file_no"] not in self.moved.targets
        ]
        for line in self.moved.sources:
            if line["path"] not in self._parents:
                file_no, first, rows = self.moved.place(line)
                spans += [Span(paths[file_no], file_no, rows, first)] if rows else []
        return spans

    @cached_property
    def _new_rows(self) -> int:
        """How many of them live."""
        return sum(span.living(self.deleted) for span in self._new)

    @cached_property
    def _sampler(self) -> Sampler:
        removed = next((one["path"] for one in snapshot.files_of(self.manifest, "tombstones")), "")
        return Sampler(self.task_runner, int(self.manifest["dim"]), self.deleted, removed)

    @cached_property
    def _drawn(self) -> Samples:
        """Of the rows that are new: those that are queries, and those to measure drift on."""
        assert self._carried is not None
        queries = draw_of_new(self._carried, self._queries, self.spec)
        measured = Draw.among(self._new_rows, self.spec.seed, MEASURED_ROWS)
        draws = [queries] if self.spec.kind == "exact" else [queries, measured]
        return self._sampler.draw(self._new, self.spec.part_rows, *draws)

    @cached_property
    def _carried(self) -> Truth | None:
        """The parent's queries that live."""
        if self.parent is None or self._old is None:
            return None
        return carried(self.store, self.parent, self.deleted, self.moved)

    @cached_property
    def _truth(self) -> Truth | None:
        """The parent's queries that live, and those of the rows that are new."""
        if self._carried is None:
            return None
        return with_new(self._carried, self._drawn[0], self._queries, self.spec)

    @cached_property
    def _trained(self) -> TrainedIndex:
        """The parent's."""
        assert self.parent is not None
        name = str(self.parent["index"]["template"])
        return load_trained_index(self.store.local_folder(f"templates/{name}"), name)

    @cached_property
    def _drift(self) -> dict[str, Any]:
        assert self.parent is not None
        return drift(self.parent["index"], self._trained, self._new_rows, self._drawn[1])

    # --- making it ----------------------------------------------------------------------------

    def _attempt(self, way: str, why: str) -> IndexUpdate:
        before = (self.parent or {}).get("name")
        said = {
            APPEND: f"{self._new_rows:,} vectors are added to that of {before}",
            REENCODE: f"all {self._rows:,} vectors are encoded again, as trained for {before}",
            RETRAIN: f"anew, of {self._rows:,} vectors",
        }[way]
        self.task_runner.progress.say(f"index: {said}{'; ' if why else ''}{why}")
        for reason in self.spec.reasons if way == RETRAIN else ():
            self.task_runner.progress.say(f"index: {reason}")
        made = IndexUpdate(
            self.task_runner,
            self.config,
            self.manifest,
            self.spec,
            way,
            self._queries,
            self._added,
            self.deleted,
            self._sampler,
            self.parent,
            None if way == RETRAIN else self._truth,
        )
        made.run(self.manifest["stages"])
        made.index |= {"way": way, "why": why}
        if way != RETRAIN and self.spec.kind != "exact":
            made.index["drift"] = self._drift
        return made

    def _commit(self, made: IndexUpdate) -> None:
        """Take into the manifest what will do."""
        certificate, manifest = made.certificate, self.manifest
        floor, k = self.config.publish.min_recall, certificate["k"]
        found = (
            f"recall@{k} {certificate['recall']:.3f} ({certificate['low']:.3f} to "
            f"{certificate['high']:.3f}, {certificate['queries']:,} queries)"
        )
        if certificate["low"] < floor:
            raise NotPublishedError(
                f"not published: {found}; its lower bound is under publish.min_recall {floor}; "
                f"{advise(certificate, self.spec, floor)}"
            )
        assert made.result is not None
        path = f"snapshots/{manifest['name']}/truth.npz"
        record = snapshot.replace(self.store, path, made.result.to_bytes())
        manifest["files"] += [*made.files, record.line("truth")]
        manifest |= {
            "index": made.index,
            "certificate": certificate,
            "search": {"nprobe": certificate["nprobe"], "rerank": certificate["rerank"]},
        }
        target = certificate["target"]
        short = f"; target_recall {target} is not certain: {certificate['advice']}"
        self.task_runner.progress.say(f"certify: {found}{'' if certificate['reached'] else short}")
