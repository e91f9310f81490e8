"""The first stage: list the sources, compare with the ledger, and cut what changed into units."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime, timezone

import pyarrow as pa

from lookalike.errors import NotPublishedError
from lookalike.pipelines import publish
from lookalike.pipelines.job import Job
from lookalike.pipelines.reconcile import Reconciling
from lookalike.reconcile.compared import Comparison, candidates
from lookalike.reconcile.comparing import Comparing
from lookalike.reconcile.same import Rule
from lookalike.reconcile.standing import standing
from lookalike.sources.listing import Listing
from lookalike.store import snapshot
from lookalike.store.ledger import Counts, is_unknown
from lookalike.store.manifest import Manifest
from lookalike.store.runs import Plan


def scan(job: Job) -> Plan:
    """What the run has to do: made anew, or found where the same run was stopped.

    A run that was refused (by its certificate, say) is gone on with only while its files are as
    they were: else a job that runs every night would never see the next day's.

    Raises:
        NotPublishedError: The sources lost too many files.
    """
    scratch, progress = job.scratch, job.progress
    found = scratch.plan()
    if found is not None and _rejected_too_many(job):
        progress.say("the last run rejected too many files; scanning and reading anew")
        found = None
    if found is not None and not scratch.refused:
        return _continued(job, found)
    if found is None:
        scratch.start()
    started = datetime.now(timezone.utc)
    # what an earlier look left must not be taken for what is there now
    folder = f"{scratch.folder}/{'listing' if found is None else f'again-{uuid.uuid4().hex[:12]}'}"
    listing, metadata = job.list_rows(folder)
    if found is not None:
        digest = _compare(job, listing, metadata, None, f"{folder}/compared").digest
        job.store.delete_below(folder)
        if found.listing_digest == digest:
            return _continued(job, found)
        progress.say("the sources changed since the last run was refused; starting anew")
        scratch.start()
        listing, metadata = job.list_rows(f"{scratch.folder}/listing")
    plan = _plan(job, started, listing, metadata)
    scratch.commit_plan(plan)
    return plan


def _continued(job: Job, plan: Plan) -> Plan:
    job.progress.say(
        f"continuing the run scanned at {plan.started}: {plan.listed:,} {job.noun}, "
        f"{plan.candidates:,} to look at in {plan.units:,} units"
    )
    return plan


def _plan(job: Job, started: datetime, listing: Listing, metadata: pa.Schema) -> Plan:
    base, store, folder = job.base, job.store, f"{job.scratch.folder}/compared"
    found = _compare(job, listing, metadata, base, folder, job.again.rehash)
    _check_reach(job, listing, metadata, found, folder)
    _check_shrink(job, found)
    to_see = candidates(store, folder)
    cut = job.cut(to_see)
    said = f"scan: {found.listed:,} {job.noun}"
    if base:
        said += (
            f": {found.new:,} new, {found.touched:,} to be read again, {found.gone:,} gone, "
            f"{found.same:,} as in {base['name']}"
        )
        if found.unknown:
            said += f", {found.unknown:,} unknown: what they lie in cannot be read"
    else:
        said += f" in {cut[-1]:,} work units"
    if repeats := found.repeated:
        said += f"; repeated names left out: {repeats:,} (the first row of each counts)"
    job.progress.say(said)
    last = max(snapshot.names(store), default=None)
    return Plan(
        snapshot=snapshot.new_name(started, job.scratch.name[:6], last),
        started=started.isoformat(timespec="microseconds"),
        listed=found.listed,
        candidates=to_see.rows,
        gone=found.gone,
        listing_digest=found.digest,
        listing=listing.parts,
        cut=cut,
        first_file_no=job.first_file_no,
        metadata=metadata,
        unknown=found.unknown,
        shifted=found.shifted,
    )


def _compare(
    job: Job,
    listing: Listing,
    metadata: pa.Schema,
    parent: Manifest | None,
    folder: str,
    rehash: bool = False,
) -> Comparison:
    """Compare a listing with a snapshot's ledger, or with nothing, into files below `folder`."""
    scanned = _nanoseconds(parent["scanned"]) if parent else None
    held = metadata if job.by_content else None  # else the listing does not hold it
    rule = Rule(scanned, rehash, _retried(job) if parent else None, held)
    ledger = snapshot.files_of(parent, "ledger") if parent else []
    plan = Comparing.of(listing, ledger, folder, rule, job.left_out)
    return Reconciling(job.task_runner).compare(plan)


def _nanoseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1e9)


def _retried(job: Job) -> frozenset[str] | None:
    """Rejects to try again: those asked for; all, where the limits are others than they were."""
    if job.base and job.base["request"].get("images") != job.settings.get("images"):
        job.progress.say("the limits on images changed: what was rejected is tried again")
        return frozenset()
    return job.again.rejects


def _check_shrink(job: Job, found: Comparison) -> None:
    """A listing that lost its files is a mount that is gone, more often than a decision."""
    if job.parent is None:
        return
    before, limit = publish.files_of(job.parent), job.config.publish.max_shrink_share
    there = found.listed + found.unknown
    lost = (before - there) / before if before else 0.0
    if there and lost <= limit:
        return
    job.scratch.finish()
    rule = f"publish.max_shrink_share is {limit:.1%}" if there else "none would be left"
    at_will = "; if it shall be so, set publish.max_shrink_share: 1" if there else ""
    raise NotPublishedError(
        f"not published: {', '.join(job.specs)}: {found.listed:,} {job.noun} listed, "
        f"{job.parent['name']} has {before:,} ({lost:.1%} fewer); {rule}; look whether all is "
        f"mounted and readable{at_will}"
    )


def _check_reach(
    job: Job, listing: Listing, metadata: pa.Schema, found: Comparison, folder: str
) -> None:
    """What cannot be reached stays as it is, within limits; and only where vectors can stay.

    Args:
        job: The run's.
        listing: Of this run.
        metadata: The sources' columns.
        found: How the listing differs from what was known.
        folder: Where the comparison's files are.
    """
    if job.base is not None:
        unknown = _unknown(job, folder, found.parts)
        details = (detail for rows in unknown for detail in rows["detail"].to_pylist())
        line = publish.out_of_reach(found.unknown, found.previous, job.config.publish, details)
    else:
        line = _left_behind(job, listing, metadata) if found.places else ""
    if line:
        job.scratch.finish()
        raise NotPublishedError(line)


def _left_behind(job: Job, listing: Listing, metadata: pa.Schema) -> str:
    """Why a store that is to be made anew cannot be: what is hidden tonight would not be in it."""
    if job.parent is None:
        return ""
    folder, count, example = f"{job.scratch.folder}/behind", 0, ""
    parts = _compare(job, listing, metadata, job.parent, folder).parts
    for table in _unknown(job, folder, parts):
        some = table.filter(table["id"].is_valid())
        count += some.num_rows
        example = example or next(iter(some["detail"].to_pylist()), "")
    if not count:
        return ""
    return (
        f"not published: everything is to be embedded anew, and {count:,} {job.noun} of "
        f"{job.parent['name']} lie where nothing can be read ({example}); run it again when they "
        "can be reached"
    )


def _unknown(job: Job, folder: str, parts: int) -> Iterator[pa.Table]:
    """The ledger rows of which nobody can tell now, as a comparison left them in `folder`."""
    for number in range(parts):
        for group in standing(job.store, folder, number):
            table = group.read()
            yield table.filter(is_unknown(table))


def _rejected_too_many(job: Job) -> bool:
    """Has the run to be continued ended by the reject limit, and would it do so again?

    Then its sources are to be read again, as they may have been mended.
    """
    path = f"{job.scratch.folder}/settled/resolved.json"
    if not job.store.has(path):
        return False
    counts = Counts.of(job.store.read_json(path)["counts"])
    return publish.too_many_rejected(counts, job.config.publish)
