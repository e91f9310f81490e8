"""`lookalike index --images`: a run whose vectors are made here, by models, of files of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from lookalike.models.features import Feature, model_fingerprint, preprocessing_fingerprint
from lookalike.records import SourceFile
from lookalike.sources import units
from lookalike.sources.kinds import Source, metadata_schema, open_source
from lookalike.store import snapshot
from lookalike.store.runs import Plan, listing_digest
from lookalike.store.storage import read_bytes, remove_tree
from lookalike.store.unit_duplicates import have_containers, merge_duplicates
from pipelines import checks, models
from pipelines.config import Config
from pipelines.job import Job, NothingToIndexError, Scanned, writing
from pipelines.progress import Progress
from transforms.embed import EmbedSpec, EmbedUnits


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
        with writing(store):
            models.install(store, features, Path(work))
            job = ImageJob(config, images, store, parent, progress, sources, features, Path(work))
            try:
                return job.run()
            except NothingToIndexError:
                job.scratch.finish()
                if not existed:  # leave all as it was: not there
                    remove_tree(store)
                raise


@dataclass
class ImageJob(Job):
    """A run over files of images, embedded by models."""

    sources: Sequence[Source]
    features: Sequence[Feature]
    work: Path

    def fingerprints(self) -> tuple[str, str]:
        """Of the models, and of how pictures are prepared for them."""
        model = model_fingerprint(self.features, self.config.metric)
        return model, preprocessing_fingerprint(self.features)

    def request(self) -> dict[str, Any]:
        """Limits on files, and a type that is not the usual one."""
        usual = self.config.dtype in ("auto", "float32")
        given = {} if usual else {"dtype": self.config.dtype}
        return {"images": self.config.limits.__dict__, **given}

    def made_by(self) -> dict[str, Any]:
        """The features."""
        return {
            "features": [feature.to_json() for feature in self.features],
            "dim": sum(feature.info.dim for feature in self.features),
        }

    def more_lines(self) -> list[dict[str, Any]]:
        """Those of the models."""
        return list(models.model_lines(self.store, self.features))

    def list_units(self) -> Scanned:
        """List the sources and cut the listing into work units."""
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
        digest = listing_digest(pq.read_table(self.store / name) for name, _ in cut)
        return Scanned(sum(rows for _, rows in cut), digest, len(cut), metadata)

    def _files(self) -> Iterator[SourceFile]:
        for source in self.sources:
            yield from source.files(self.progress.say)

    def prepare(self, plan: Plan) -> None:
        """Choose what runs the models: once in a run, when there is work for it."""
        self.features = self._with_engines(plan)

    def _with_engines(self, plan: Plan) -> Sequence[Feature]:
        """The features with what runs them."""
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

    def transform(self, plan: Plan) -> EmbedUnits:
        """Units of files into shards."""
        spec = EmbedSpec(
            tuple(self.features),
            str(self.store),
            self.config.metric,
            self.config.limits,
            self.config.runner.threads,
            "float16" if self.config.dtype == "float16" else "float32",
        )
        return EmbedUnits(spec, plan.metadata.serialize().to_pybytes(), self.properties)

    def merge(self, plan: Plan) -> None:
        """Make duplicates of equal files in different units, where there are shards or tables."""
        numbered = [self.scratch.unit(number, plan) for number in range(plan.units)]
        if len(self.scratch.done("embedded")) == plan.units and have_containers(
            self.store, numbered
        ):
            found = merge_duplicates(self.store, numbered, f"{self.scratch.folder}/merge")
            if found:
                self.progress.say(f"merge: {found:,} more duplicates, across work units")
