"""`lookalike index --images`: a run whose vectors are made here, by models, of files of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from lookalike.embed_spec import EmbedSpec
from lookalike.embed_work import EmbedWork
from lookalike.images.rejections import REASONS
from lookalike.models import resolving
from lookalike.models.conversion import Conversion, Converting, conversion
from lookalike.models.features import (
    Feature,
    check,
    dim_of,
    model_fingerprint,
    preprocessing_fingerprint,
)
from lookalike.models.projection import Projection
from lookalike.pipelines import checks, models, preflight, stores
from lookalike.pipelines.config import Config
from lookalike.pipelines.flow import NothingToIndexError, run_job
from lookalike.pipelines.job import Again, Job
from lookalike.pipelines.listing import SourceListing
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.reconcile import Reconciling
from lookalike.reconcile.one_partition import LeftOut
from lookalike.sources.kinds import open_source
from lookalike.sources.listing import Listing
from lookalike.sources.source import Source
from lookalike.sources.units import unit_rows_for
from lookalike.store import snapshot
from lookalike.store.converting import convert_tasks
from lookalike.store.listed import was_listed
from lookalike.store.manifest import FileLine, Manifest
from lookalike.store.runs import Plan


def run_index(
    config: Config,
    images: Sequence[str],
    store_name: str,
    progress: Progress,
    again: Again | None = None,
) -> dict[str, Any]:
    """Bring a store up to date with its sources, and publish.

    What is in the store already and did not change is kept as it is; `again` names what to look at
    all the same. Where the models or the preprocessing are not those of the store, everything is
    embedded anew, and the published snapshot serves until the new one is; but where other weights
    or a projection are all that is new, vectors are computed from those stored.

    Returns:
        What `lookalike index --json` prints: snapshot, whether it is new, counts, certificate.

    Raises:
        RequestError: The request is wrong; the store is as it was.
        NotPublishedError: A limit stopped publication; the last snapshot stands.
        StoreBusyError: Another run holds the store.
    """
    again = again or Again()
    checks.check_reasons(again.rejects, REASONS)
    config = replace(config, runner=preflight.ready(config.runner))
    place = stores.to_write(store_name, images)
    store = place.store
    parent = snapshot.read_manifest(store) if snapshot.current(store) else None

    def is_known(name: str) -> bool:
        return parent is not None and was_listed(store, parent, name)

    sources = [open_source(spec, config.selection, is_known) for spec in images]
    if parent is not None:
        checks.check_reach(sources, is_known)
    else:
        checks.check_images(sources)
    checks.check_pictures(store, parent)
    firsts = (next(source.files(lambda _: None), None) for source in sources)
    preflight.check_places(config.runner, store, firsts)
    with TemporaryDirectory(prefix="lookalike-") as work:
        notes: list[str] = []  # a person sees them at once; in a log, a wrong request is one line
        say = progress.say if progress.live else notes.append
        features = resolving.resolve_features(config.features, Path(work), say, store)
        features = models.choose_engines(features, config.engine, config.metric, Path(work), say)
        projection = resolving.resolve_projection(config.projection, Path(work))
        check(features, config.metric, projection)
        computed = conversion(parent, features, projection, config.metric) if parent else None
        existed = store.is_there()
        with place.writing():
            place.check_parent(parent)
            resolving.install(store, features, Path(work), projection)
            job = ImageJob(
                config,
                images,
                store,
                parent,
                progress,
                sources,
                features,
                projection,
                computed,
                again=again,
                commit=place.publish,
            )
            notes += checks.other_models(parent, features, config.metric, projection, job.converts)
            for note in notes:
                progress.say(note)
            try:
                return run_job(job)
            except NothingToIndexError:
                job.scratch.finish()
                if not existed:  # leave all as it was: not there
                    store.delete_below("")
                raise


@dataclass
class ImageJob(Job):
    """A run over files of images, embedded by models."""

    sources: Sequence[Source]
    features: Sequence[Feature]
    projection: Projection | None = None
    computed: Conversion | None = None  # how its vectors follow from the parent's

    def fingerprints(self) -> tuple[str, str]:
        """Of the models, and of how pictures are prepared for them."""
        model = model_fingerprint(self.features, self.config.metric, self.projection)
        return model, preprocessing_fingerprint(self.features)

    def request(self) -> dict[str, Any]:
        """Limits on files, which are taken, and a type that is not the usual one."""
        usual = self.config.dtype in ("auto", "float32")
        given: dict[str, Any] = {} if usual else {"dtype": self.config.dtype}
        asked = models.settings(self.config.features)
        if selection := self.config.selection:
            given["selection"] = {"exclude": [*selection.exclude], "hidden": selection.hidden}
        return {"images": self.config.limits.__dict__, "models": asked, **given}

    def made_by(self) -> Manifest:
        """The features."""
        return {
            "features": [feature.to_json() for feature in self.features],
            "dim": dim_of(self.features, self.projection),
            **({"projection": self.projection.to_json()} if self.projection else {}),
        }

    def more_lines(self) -> list[FileLine]:
        """Those of the models."""
        return list(models.model_lines(self.store, self.features, self.projection, self.parent))

    @property
    def converts(self) -> bool:
        """Whether the parent's vectors are not those wanted, but these follow from them."""
        if self.parent is None or self.computed is None:
            return False
        made = self.parent["request"]
        prepared = made["fingerprints"][1] == self.settings["fingerprints"][1]
        return bool(prepared and made.get("dtype") == self.settings.get("dtype"))

    def goes_on(self) -> bool:
        """Also where the vectors follow from the parent's."""
        return super().goes_on() or self.converts

    def convert(self) -> None:
        """Write the parent's shards anew, with the vectors that are wanted now."""
        if not self.converts or self.base is None:
            return
        assert self.computed is not None
        self.progress.say(
            f"convert: {self.computed.why}: computed from the vectors of {self.base['name']}; what "
            "is stored is not embedded again"
        )
        tasks = convert_tasks(
            snapshot.files_of(self.base, "embedding"), self.scratch.name, self.scratch.folder
        )
        work = Converting(self.computed, dict(self.properties))
        done = self.task_runner.run(("convert", "embedding shards"), tasks, work)
        made = [record["shard"] for record in done]
        others = [line for line in self.base["files"] if line["kind"] != "embedding"]
        self.base = {**self.base, "files": [*made, *others]}

    def stored_as(self) -> str:
        """The type of the components of stored vectors."""
        return "float16" if self.config.dtype == "float16" else "float32"

    def list_rows(self, folder: str) -> tuple[Listing, pa.Schema]:
        """List the sources."""
        return SourceListing(self.task_runner, folder, self.sources).run()

    @property
    def left_out(self) -> LeftOut:
        """Says by which rule of the config a name is not to be listed; it is pickled."""
        roots = tuple(source.root for source in self.sources)
        return partial(self.config.selection.rule_of_name, roots=roots)

    def cut(self, candidates: Listing) -> tuple[int, ...]:
        """Units along the files' sizes, so that equal files meet."""
        if not candidates.rows:
            return (0,)
        unit_rows = self.config.unit_files or unit_rows_for(candidates.rows)
        ledger = snapshot.files_of(self.base, "ledger") if self.base else []
        steps = Reconciling(self.task_runner)
        return steps.cut(candidates, f"{self.scratch.folder}/units", unit_rows, ledger).firsts

    def prepare(self, plan: Plan) -> None:
        """Load the models in this process where it is the one that embeds."""
        self._work = self._units_work(plan)
        runner, done = self.runner_for(plan), self.scratch.done("embedded")
        if len(done) < plan.units and runner.alone:
            self._work.set_up()

    def work(self, plan: Plan) -> EmbedWork:
        """Units of files into shards."""
        return self._work

    def _units_work(self, plan: Plan) -> EmbedWork:
        spec = EmbedSpec(
            tuple(self.features),
            self.store.name,
            self.config.metric,
            self.config.limits,
            self.runner_for(plan).threads,
            self.stored_as(),
            forgotten=tuple(line["path"] for line in self.forgotten()),
            projection=self.projection,
        )
        return EmbedWork(spec, self.scratch.names(plan), plan.metadata, self.properties)
