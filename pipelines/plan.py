"""`lookalike plan`: what a run would take, and which index it would build; writes nothing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lookalike.errors import RequestError
from lookalike.ivf.planner import DEFAULT_TARGET, plan
from lookalike.ivf.predicting import Prediction, calibrate, predict
from lookalike.ivf.spec import IndexSpec
from lookalike.models import resolving
from lookalike.models.features import dim_of
from lookalike.models.resolving import DEFAULT_FEATURES
from lookalike.pipelines import checks, trial
from lookalike.pipelines.config import Config, load_config
from lookalike.pipelines.progress import Progress, duration
from lookalike.pipelines.runner import cores
from lookalike.pipelines.streams import print_as_json
from lookalike.records import SourceFile
from lookalike.scaling import EMBED_S, Scale, scale
from lookalike.sizes import size_text
from lookalike.sources.kinds import open_source
from lookalike.sources.vector_tables import find_dim, list_tables

SAMPLE = 64  # pictures
QUERIES = 1000  # that are held out, unless index.queries says otherwise
_MOST_DIM = 1 << 20


@dataclass(frozen=True)
class Given:
    """What there is to index.

    Attributes:
        rows: Vectors that will be made, or that are asked about.
        dim: Their components.
        facts: Lines to print, as (name, text).
        found: The same for --json.
        embed_s: Seconds to embed or to copy them; None where there is no source.
        image_core_s: Processor time to embed one image; None where that was not measured.
    """

    rows: int
    dim: int
    facts: tuple[tuple[str, str], ...] = ()
    found: dict[str, Any] | None = None
    embed_s: float | None = None
    image_core_s: float | None = None


def run_plan(given: argparse.Namespace) -> int:
    """Measure, predict, print.

    Raises:
        RequestError: The request is wrong, or no index of these vectors can be had.
    """
    _check(given)
    progress = Progress()
    config = _config(given)
    with TemporaryDirectory(prefix="lookalike-plan-") as folder:
        work = Path(folder)
        if given.images:
            there = _pictures(given, config, work, progress)
        elif given.embeddings:
            there = _vectors(given, progress)
        else:
            dim = given.dim or _models_dim(config, work, progress)
            there = Given(given.rows, dim)
        spec = plan(there.rows, there.dim, config.metric, config.index)
        progress.say("measuring this machine")
        rates = calibrate(spec, work)
    prediction = predict(
        there.rows,
        spec,
        rates,
        queries=int(config.index.get("queries", QUERIES)),
        target=float(config.index.get("target_recall", DEFAULT_TARGET)),
        component_bytes=2 if config.dtype == "float16" else 4,
    )
    scaled = _scale(there, given.workers, spec, prediction)
    if given.json:
        print_as_json(
            {
                "sources": there.found,
                "vectors": there.rows,
                "dim": there.dim,
                "metric": config.metric,
                "embed_s": there.embed_s,
                "index": spec.to_json(),
                "predicted": prediction.to_json(),
                "scale": scaled.to_json() if scaled else None,
            }
        )
    else:
        for name, text in _lines(there, config, spec, prediction):
            print(f"{name:<10} {text}")
        for name, text in _scale_lines(scaled, there) if scaled else ():
            print(f"{name:<10} {text}")
    return 0


def _scale(
    there: Given, workers: int | None, spec: IndexSpec, prediction: Prediction
) -> Scale | None:
    if workers is None:
        return None
    return scale(
        there.rows, spec, prediction, workers=workers, cores=cores(), embed_s=_image_s(there)
    )


def _check(given: argparse.Namespace) -> None:
    source = given.images or given.embeddings
    for name, most in (("rows", 10**15), ("dim", _MOST_DIM), ("sample", 10**6), ("workers", 10**6)):
        value = getattr(given, name)
        if value is not None and not 1 <= value <= most:
            raise RequestError(f"--{name} must be from 1 to {most:,}, got {value:,}")
    if not source and given.rows is None:
        raise RequestError("nothing to plan for: give --images, --embeddings or --rows")
    if source and given.dim is not None:
        raise RequestError(
            "--dim goes with --rows alone: what --images and --embeddings name has a dimension"
        )


def _config(given: argparse.Namespace) -> Config:
    if not given.config:
        return Config(() if given.embeddings else DEFAULT_FEATURES)
    if given.images or given.dim is None:
        return load_config(given.config, vectors=bool(given.embeddings))
    try:  # its index alone matters: either kind of config will do
        return load_config(given.config)
    except RequestError as error:
        try:
            return load_config(given.config, vectors=True)
        except RequestError:
            raise error from None


def _models_dim(config: Config, work: Path, progress: Progress) -> int:
    features = resolving.resolve_features(config.features, work, progress.say)
    return dim_of(features, resolving.resolve_projection(config.projection, work))


def _pictures(given: argparse.Namespace, config: Config, work: Path, progress: Progress) -> Given:
    sources = [open_source(spec, config.selection) for spec in given.images]
    checks.check_images(sources)
    features = trial.resolve(config, work, progress.say)

    def files() -> Iterator[SourceFile]:
        for source in sources:
            yield from source.files(progress.say)

    there = trial.survey(files(), given.sample or SAMPLE)
    progress.say(f"embedding a sample of {len(there.sample):,} files")
    tried = trial.embed_sample(there.sample, features, config, work)
    if not tried.embedded:
        reasons = ", ".join(f"{count:,} {name}" for name, count in tried.failed.most_common(5))
        raise RequestError(
            f"{', '.join(given.images)}: none of a sample of {tried.tried:,} files became a "
            f"vector ({reasons}); raise --sample, or name other sources"
        )
    workers = config.runner.processes
    rows = max(1, round(there.files * tried.share))
    failed = "".join(f", {count:,} {name}" for name, count in tried.failed.most_common(5))
    each = tried.files_per_s * tried.share
    facts = (
        ("files", f"{there.files:,}, {size_text(there.bytes)}"),
        ("sample", f"{tried.tried:,} files: {tried.embedded:,} embedded{failed}"),
        ("speed", f"{workers * each:,.1f} images/s: workers {workers}, {each:,.1f} each"),
    )
    listed = there.files if given.rows is None else given.rows / tried.share
    return Given(
        given.rows or rows,
        dim_of(features, resolving.resolve_projection(config.projection, work)),
        facts,
        {
            "files": there.files,
            "bytes": there.bytes,
            "sample": tried.tried,
            "embedded": tried.embedded,
            "failed": dict(tried.failed),
            "workers": workers,
            "images_per_s": workers * each,
        },
        listed / (workers * tried.files_per_s),
        1 / max(each, 1e-9),
    )


def _vectors(given: argparse.Namespace, progress: Progress) -> Given:
    tables = list_tables(given.embeddings, progress.say)
    rows = sum(table.rows for table in tables)
    size = sum(max(0, table.file.bytes) for table in tables)
    files = "1 table" if len(tables) == 1 else f"{len(tables):,} tables"
    return Given(
        given.rows or rows,
        find_dim(tables),
        (("files", f"{files} of {rows:,} rows, {size_text(size)}"),),
        {"files": len(tables), "bytes": size, "rows": rows},
    )


def _lines(
    there: Given, config: Config, spec: IndexSpec, predicted: Prediction
) -> Iterator[tuple[str, str]]:
    """What a person reads."""
    yield from there.facts
    about = "" if there.embed_s is None else "about "
    yield "vectors", f"{about}{there.rows:,} of {there.dim:,} dimensions, {config.metric}"
    for number, reason in enumerate(spec.reasons):
        yield "" if number else "index", reason
    times = [
        ("embed", there.embed_s),
        ("train", predicted.train_s),
        ("encode", predicted.encode_s),
        ("exact neighbours of the queries", predicted.truth_s),
        ("certify", predicted.certify_s),
    ]
    known = [(name, seconds) for name, seconds in times if seconds]
    yield "time", ", ".join(f"{name} {duration(seconds)}" for name, seconds in known)
    yield "", f"together {duration(sum(seconds for _, seconds in known))}, on this machine"
    training = f"; training {size_text(predicted.training_bytes)}" if spec.train_rows else ""
    searching = f"searching {size_text(predicted.searcher_bytes)} of codes, ids and centroids"
    yield "memory", f"{searching}{training}; libraries and models come on top"
    parts = (
        ("embeddings", predicted.embeddings_bytes),
        ("index", predicted.index_bytes),
        ("template", predicted.trained_bytes),
    )
    yield "disk", ", ".join(f"{name} {size_text(size)}" for name, size in parts)
    yield (
        "query",
        (
            f"{predicted.lists:,} of {spec.nlist:,} lists, {predicted.codes:,} vectors compared"
            + (f" by code, {predicted.reranked:,} read and scored exactly" if spec.rerank else "")
        ),
    )


def _scale_lines(found: Scale, there: Given) -> Iterator[tuple[str, str]]:
    """What a person reads of many workers."""
    measured = "as measured above" if there.image_core_s else "of the default's features"
    yield "", ""
    yield (
        "workers",
        f"{found.workers:,} of one core; {1000 * _image_s(there):.1f} ms to embed an image, "
        f"{measured}",
    )
    for number, stage in enumerate(found.stages):
        tasks = "1 task" if stage.tasks == 1 else f"{stage.tasks:,} tasks"
        yield (
            "" if number else "stages",
            f"{stage.name:<9} {duration(stage.seconds):>14}  {stage.core_s / 3600:>12,.1f} "
            f"core-hours  {tasks:>15}  {stage.requests:>15,} requests",
        )
    core_hours = sum(stage.core_s for stage in found.stages) / 3600
    yield (
        "together",
        f"{duration(found.seconds)}, {core_hours:,.0f} core-hours, {found.requests:,} requests",
    )
    stored = ", ".join(f"{name} {size_text(size)}" for name, size in found.bytes.items())
    yield "stored", stored
    yield (
        "memory",
        f"the launching process holds {size_text(found.launcher_bytes)} of names of files, the "
        f"largest task {size_text(found.worker_bytes)}; libraries and models come on top",
    )
    for number, words in enumerate(found.limits or ("nothing comes near a limit",)):
        yield "" if number else "limits", words


def _image_s(there: Given) -> float:
    return EMBED_S if there.image_core_s is None else there.image_core_s
