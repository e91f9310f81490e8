"""One scheduled run: scan -> embed -> train -> shard -> certify -> publish.

Each stage leaves finished files and says so last, so a run killed at any instant is continued by
the same command. The driver holds counts and names; vectors, paths and ledger rows stay in files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq

from lookalike import __version__
from lookalike.errors import RequestError
from lookalike.models.features import Feature, model_fingerprint, preprocessing_fingerprint
from lookalike.records import SourceFile
from lookalike.sources import units
from lookalike.sources.kinds import Source, metadata_schema, open_source
from lookalike.store import snapshot
from lookalike.store.ledger import Counts, check_balance
from lookalike.store.runs import Plan, Run, hold, listing_digest
from lookalike.store.storage import is_remote, path_from_uri, read_bytes, remove_tree
from lookalike.store.unit_duplicates import have_containers, merge_duplicates
from lookalike.unit_embedding import Unit
from pipelines import checks, finish, models
from pipelines.config import Config
from pipelines.engine import EngineError, WorkerDiedError
from pipelines.progress import Progress
from pipelines.runner import run
from transforms.embed import EmbedSpec, EmbedUnits

_TRIES = 3  # of the embed stage, when workers are lost


class NothingToIndexError(RequestError):
    """There are files, but no image among them."""


def run_index(
    config: Config, images: Sequence[str], store_name: str, progress: Progress
) -> dict[str, Any]:
    """Bring a store up to date with its sources, and publish.

    Returns:
        What `lookalike index --json` prints: snapshot, whether it is new, counts, certificate.

    Raises:
        RequestError: The request is wrong; the store is as it was.
        NotPublishedError: A limit stopped publication; the last snapshot stands.
        StoreBusyError: Another run holds the store.
    """
    store = checks.check_store(store_name, images)
    sources = [open_source(spec) for spec in images]
    checks.check_images(sources)
    parent = snapshot.read_manifest(store) if snapshot.current(store) else None
    with TemporaryDirectory(prefix="lookalike-") as work:
        notes: list[str] = []  # a person sees them at once; in a log, a wrong request is one line
        say = progress.say if progress.live else notes.append
        features = models.resolve_features(config.features, Path(work), say, config.runner.threads)
        if config.engine != "auto":  # one that is named may change what vectors mean
            features = models.choose_engines(
                features, config.engine, config.metric, Path(work), Path(work), say
            )
        checks.check_same_models(store, parent, features, config.metric)
        for note in notes:
            progress.say(note)
        existed = store.exists()
        with hold(store):
            for leftover in store.rglob(".*.tmp"):  # a killed run's; nobody else writes now
                leftover.unlink(missing_ok=True)
            models.install(store, features, Path(work))
            job = Job(config, sources, store, features, parent, progress, Path(work))
            try:
                return job.run()
            except NothingToIndexError:
                job.scratch.finish()
                if not existed:  # leave all as it was: not there
                    remove_tree(store)
                raise


@dataclass
class Job:
    """A run that has been checked and holds its store."""

    config: Config
    sources: Sequence[Source]
    store: Path
    features: Sequence[Feature]
    parent: dict[str, Any] | None
    progress: Progress
    work: Path

    def __post_init__(self) -> None:
        """Find the run that this request starts or continues."""
        fingerprints = [
            model_fingerprint(self.features, self.config.metric),
            preprocessing_fingerprint(self.features),
        ]
        self.properties = {
            "lookalike.model_fingerprint": fingerprints[0],
            "lookalike.preprocessing_fingerprint": fingerprints[1],
        }
        settings = {
            "metric": self.config.metric,
            "images": self.config.limits.__dict__,
            "sources": [_absolute(source.spec) for source in self.sources],
            "fingerprints": fingerprints,
        }
        self.settings = settings
        parent = self.parent["name"] if self.parent else None
        self.scratch = Run.for_request(self.store, {**settings, "parent": parent})

    def run(self) -> dict[str, Any]:
        """All stages; each is skipped as far as its files say that it is done."""
        plan = self.scan()
        if self.parent and self.parent.get("request") == self._request(plan):
            self.scratch.finish()
            self.progress.say(
                f"nothing changed since {self.parent['name']}: {plan.listed:,} files, it stands"
            )
            return finish.summary(self.parent, new=False)
        self.embed(plan)
        self.merge(plan)
        counts, files = self.collect(plan)
        if not files and not counts.by_status["rejected"]:
            raise NothingToIndexError(
                f"none of the {plan.listed:,} files is an image (by content or by name)"
            )
        finish.check_rejects(counts, self.config.publish, self.scratch, plan)
        manifest = self.manifest(plan, counts, files)
        stages = finish.IndexStages(self.store, self.scratch, plan, self.config, self.progress)
        stages.build(manifest)
        stages.publish(manifest)
        self.scratch.finish()
        return finish.summary(manifest, new=True)

    def scan(self) -> Plan:
        """List the sources and cut the listing into work units."""
        found = self.scratch.plan()
        if found is not None and self._rejected(found):
            self.progress.say("the last run rejected too many files; scanning and reading anew")
            found = None
        if found is not None:
            self.progress.say(
                f"continuing the run scanned at {found.started}: {found.listed:,} files in "
                f"{found.units:,} units"
            )
            return found
        self.scratch.start()
        started = datetime.now(timezone.utc)
        metadata = metadata_schema(list(self.sources))
        listing = units.write_listing(
            self.store,
            f"{self.scratch.folder}/listing",
            self._files(),
            units.listing_schema(metadata),
            self.progress.say,
        )
        unit_rows = self.config.unit_files or units.unit_rows_for(
            listing.rows, self.config.runner.processes
        )
        folder = f"{self.scratch.folder}/units"
        cut = list(units.cut_units(self.store, listing, folder, unit_rows, read_bytes))
        plan = Plan(
            snapshot=f"{started:%Y%m%dT%H%M%SZ}-{self.scratch.name[:6]}",
            started=started.isoformat(timespec="seconds"),
            listed=sum(rows for _, rows in cut),
            listing_digest=listing_digest(pq.read_table(self.store / name) for name, _ in cut),
            units=len(cut),
            first_file_no=self.parent["next_file_no"] if self.parent else 0,
            metadata=metadata,
        )
        self.scratch.commit_plan(plan)
        self.progress.say(f"scan: {plan.listed:,} files in {plan.units:,} work units")
        return plan

    def _rejected(self, plan: Plan) -> bool:
        """Has the run to be continued ended by the reject limit, and would it do so again?

        Then its sources are to be read again, as they may have been mended, and what it made goes.
        """
        done = self.scratch.done("embedded")
        if len(done) < plan.units:
            return False
        counts = Counts()
        for unit in done.values():
            counts.merge(unit["counts"])
        if not finish.too_many_rejected(counts, self.config.publish):
            return False
        for unit in done.values():
            if unit["shard"]:
                (self.store / unit["shard"]["path"]).unlink(missing_ok=True)
        return True

    def _files(self) -> Iterator[SourceFile]:
        for source in self.sources:
            yield from source.files(self.progress.say)

    def embed(self, plan: Plan) -> None:
        """Embed the units that are not done, in parallel; again where a worker was lost."""
        self.features = self._with_engines(plan)
        for tries_left in reversed(range(_TRIES)):
            done = self.scratch.done("embedded")
            pending = [self.scratch.unit(i, plan) for i in range(plan.units) if i not in done]
            if not pending:
                return
            try:
                self._embed_units(pending, plan)
            except WorkerDiedError as error:
                if not tries_left:
                    raise EngineError(
                        f"{error}, for the {_TRIES}. time; run the same command again, it "
                        "continues where it was"
                    ) from error
                self.progress.say(f"embed: {error}; going on with the units that are not done")

    def _with_engines(self, plan: Plan) -> Sequence[Feature]:
        """The features with what runs them: chosen once in a run, when there is work for it."""
        folder = f"{self.scratch.folder}/engines"
        chosen = models.installed_engines(self.store, folder, self.features)
        if chosen is None and len(self.scratch.done("embedded")) < plan.units:
            features = self.features
            if self.config.engine == "auto":
                features = models.choose_engines(
                    features, "auto", self.config.metric, self.store, self.work, self.progress.say
                )
            chosen = models.install_engines(self.store, folder, features)
        return chosen or self.features

    def _embed_units(self, pending: Sequence[Unit], plan: Plan) -> None:
        start = self.scratch.files_done()
        if start:
            self.progress.say(f"embed: {start:,} files are done already")
        spec = EmbedSpec(
            tuple(self.features),
            str(self.store),
            self.config.metric,
            self.config.limits,
            self.config.runner.threads,
        )
        metadata = plan.metadata.serialize().to_pybytes()

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Units" >> beam.Create(pending, reshuffle=False)
                | "Embed" >> EmbedUnits(spec, metadata, self.properties)
            )

        with self.progress.stage("embed", "files", plan.listed, self.scratch.files_done, start):
            run(build, self.config.runner)

    def merge(self, plan: Plan) -> None:
        """Make duplicates of equal files in different units, where there are shards or tables."""
        numbered = [self.scratch.unit(number, plan) for number in range(plan.units)]
        if len(self.scratch.done("embedded")) == plan.units and have_containers(
            self.store, numbered
        ):
            found = merge_duplicates(self.store, numbered, f"{self.scratch.folder}/merge")
            if found:
                self.progress.say(f"merge: {found:,} more duplicates, across work units")

    def collect(self, plan: Plan) -> tuple[Counts, list[dict[str, Any]]]:
        """Totals and files of all units; every listed file must be in the ledger."""
        counts, files = Counts(), []
        done = self.scratch.done("embedded")
        missing = [number for number in range(plan.units) if number not in done]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {plan.units} units did not finish (the first is "
                f"{missing[0]}); run the same command again"
            )
        for unit in done.values():
            counts.merge(unit["counts"])
            if unit["shard"]:
                files.append(unit["shard"])
        check_balance(plan.listed, counts)
        return counts, files

    def manifest(self, plan: Plan, counts: Counts, files: list[dict[str, Any]]) -> dict[str, Any]:
        """What is known before the index is built."""
        return {
            "name": plan.snapshot,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "scanned": plan.started,
            "lookalike": __version__,
            "parent": self.parent["name"] if self.parent else None,
            "request": self._request(plan),
            "sources": [source.spec for source in self.sources],
            "features": [feature.to_json() for feature in self.features],
            "metric": self.config.metric,
            "dim": sum(feature.info.dim for feature in self.features),
            "model_fingerprint": self.properties["lookalike.model_fingerprint"],
            "preprocessing_fingerprint": self.properties["lookalike.preprocessing_fingerprint"],
            "counts": {**counts.to_json(), "vectors": sum(line["rows"] for line in files)},
            "next_file_no": plan.first_file_no + plan.units,
            "files": [*models.model_lines(self.store, self.features), *files],
        }

    def _request(self, plan: Plan) -> dict[str, Any]:
        index = dict(self.config.index)
        return {**self.settings, "index": index, "listing": plan.listing_digest}


def _absolute(spec: str) -> str:
    return spec if is_remote(spec) else os.path.abspath(os.fsdecode(path_from_uri(spec)))
