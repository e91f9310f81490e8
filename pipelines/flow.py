"""The stages of a run, their order, and how it is continued.

    scan -> compare -> embed what changed -> settle names and ids -> index -> certify -> publish

Each stage leaves finished files and says so last, so a run killed at any instant is continued by
the same command. The driver holds counts and names; vectors, paths and ledger rows stay in files.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from lookalike import __version__
from lookalike.errors import NotPublishedError, RequestError
from lookalike.pipelines import publish
from lookalike.pipelines.build import IndexBuild
from lookalike.pipelines.job import Job
from lookalike.pipelines.progress import timed
from lookalike.pipelines.scan import scan
from lookalike.pipelines.settle import Settled, settle
from lookalike.store.ledger import Counts
from lookalike.store.manifest import Manifest
from lookalike.store.runs import Plan


class NothingToIndexError(RequestError):
    """There are files, but no image among them."""


def run_job(job: Job) -> dict[str, Any]:
    """All stages; each is skipped as far as its files say that it is done.

    Returns:
        What `lookalike index --json` prints.

    Raises:
        NothingToIndexError: There is no image among the files.
        NotPublishedError: A limit stopped publication; the last snapshot stands.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "scan"):
        plan = scan(job)
    if not (plan.units or plan.gone or plan.shifted) and job.same_settings():
        return _stands(job, plan)
    with timed(seconds, "start"):
        job.prepare(plan)
    with timed(seconds, job.stage):
        embedded = job.embed(plan)
    if job.converts:
        with timed(seconds, "convert"):
            job.convert()
    with timed(seconds, "settle"):
        settled = settle(job, plan, embedded)
    if settled.stands:
        return _stands(job, plan)
    counts = Counts.of(settled.counts)
    if not counts.with_vector and not counts.by_status["rejected"]:
        raise NothingToIndexError(
            f"none of the {plan.listed:,} {job.noun} is an image (by content or by name)"
        )
    manifest = _manifest(job, plan, settled)
    manifest["stages"] = seconds
    try:
        publish.check_files(
            counts,
            settled.changes["previous"],
            job.config.publish,
            job.store,
            embedded,
            job.wanted,
        )
        IndexBuild(
            job.task_runner,
            job.config,
            manifest,
            job.base,
            added=settled.added,
            deleted=settled.deleted,
            moved=settled.moved,
        ).run()
    except NotPublishedError:
        job.scratch.refuse()
        raise
    publish.Publication(
        job.task_runner, job.parent, settled, job.commit, job.config.publish.report
    ).publish(manifest, job.noun, plan.listed)
    job.scratch.finish()
    return publish.summary(manifest, new=True)


def _stands(job: Job, plan: Plan) -> dict[str, Any]:
    assert job.parent is not None
    job.scratch.finish()
    job.progress.say(
        f"nothing changed since {job.parent['name']}: {plan.listed:,} {job.noun}, it stands"
        f"{publish.unknown_line(job.parent['counts'])}"
    )
    return publish.summary(job.parent, new=False)


def _manifest(job: Job, plan: Plan, settled: Settled) -> Manifest:
    """What is known before the index is built."""
    return {
        "name": plan.snapshot,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "scanned": plan.started,
        "lookalike": __version__,
        "parent": job.parent["name"] if job.parent else None,
        "request": job.whole_request(),
        "sources": list(job.specs),
        "metric": job.config.metric,
        "model_fingerprint": job.properties["lookalike.model_fingerprint"],
        "preprocessing_fingerprint": job.properties["lookalike.preprocessing_fingerprint"],
        "counts": {**settled.counts, "vectors": settled.vectors},
        "changes": settled.changes,
        # shards converted keep their numbers: the next run that starts where this one did must
        # not be taken for it
        "next_file_no": settled.next_file_no + job.converts,
        "files": [*job.more_lines(), *job.forgotten(), *settled.files],
        **job.made_by(),
    }
