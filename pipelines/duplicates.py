"""`lookalike duplicates`: all groups of near-copies in a store, and which of each to keep.

    distinct   tasks of files, then partitions of lists: rows with equal vectors become one
    join       tasks of rows: near-copies in the lists that each row looks into
    groups     here: components of what was found
    verify     tasks of groups, where asked for: the original files compared

The store is only read; what tasks leave for one another lies in a place of scratch.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

import lookalike
from lookalike.copies.components import grouped
from lookalike.copies.distinct import deal, take
from lookalike.copies.finding import components_of, recall_of
from lookalike.copies.groups import Describer, Group
from lookalike.copies.joining import find_links, join_tasks
from lookalike.copies.pair_recall import PairRecall, Sample
from lookalike.copies.spec import Join, Joined, asked_threshold, opened
from lookalike.distances import Ids
from lookalike.errors import RequestError
from lookalike.json_text import to_json
from lookalike.pipelines.copies_output import SUFFIXES, to_file
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.reading import (
    PagePictures,
    asked_config,
    asked_runner,
    check_scratch,
    file_to_write,
    page_to_write,
    scratch_place,
)
from lookalike.pipelines.tasks import TaskRunner
from lookalike.report.duplicates import render_duplicates
from lookalike.report.text import visible
from lookalike.search.choosing import check_group
from lookalike.search.searcher import Searcher
from lookalike.store.attempts import finished
from lookalike.store.durable import write_file
from lookalike.store.meeting import Meeting
from lookalike.store.objects import open_store
from lookalike.store.runs import Run

_PAGE_GROUPS = 300


@dataclass
class _Told:
    """What came of a job."""

    recall: PairRecall
    groups: int = 0
    pictures: int = 0
    relations: Counter[str] = field(default_factory=Counter)
    copies: int = 0

    def add(self, group: Group) -> None:
        self.groups += 1
        self.pictures += len(group.members)
        self.copies += sum(not one.keep for one in group.members)
        self.relations.update(one.relation for one in group.members if one.relation)

    def line(self) -> str:
        """In words."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.relations.items()))
        return (
            f"{self.groups:,} {'group' if self.groups == 1 else 'groups'} of {self.pictures:,} "
            f"pictures, {self.copies:,} of them copies of others{f' ({kinds})' if kinds else ''}"
        )

    def to_json(self, job: _Job) -> dict[str, Any]:
        """As --json prints it."""
        within = job.join.within
        return {
            "snapshot": job.join.snapshot,
            "metric": job.joined.metric,
            "threshold": job.join.threshold,
            "within": within.name if within else None,
            "nprobe": job.join.nprobe,
            "groups": self.groups,
            "pictures": self.pictures,
            "copies": self.copies,
            "relations": dict(sorted(self.relations.items())),
            "recall": asdict(self.recall),
        }


def run_duplicates(given: argparse.Namespace, beam: Sequence[str] = ()) -> int:
    """Find the groups, write them, and say how many there are.

    Args:
        given: The command's flags.
        beam: Pipeline options.
    """
    output, page = _places(given)
    check_scratch(given)
    config = asked_config(given, beam)
    with lookalike.open(given.store, given.snapshot, check=given.check) as searcher:
        threshold = asked_threshold(given.threshold, searcher.metric)
        joined = opened(searcher.store.name, str(searcher.manifest["name"]))
        within = _column(joined, given.within)
        runner = asked_runner("duplicates", config, given, beam)
        with scratch_place(given, searcher.store.name, runner) as place:
            run = _run(place, searcher, threshold, within)
            join = Join(
                searcher.store.name,
                str(searcher.manifest["name"]),
                threshold,
                searcher.default_nprobe,
                within,
                f"{run.folder}/join",
            )
            tasks = TaskRunner(run, runner, Progress(quiet=given.json))
            job = _Job(tasks, join, joined, bool(given.verify))
            told = _write(job, output, page)
            run.finish()
    if given.json:
        print(to_json(told.to_json(job), indent=1))
    else:
        print(told.recall.line(), file=sys.stderr)
        where = ", ".join(visible(str(path)) for path in (output, page) if path)
        print(f"{told.line()}: {where}", file=sys.stderr)
    return 0


def _places(given: argparse.Namespace) -> tuple[Path | None, Path | None]:
    output = file_to_write("--output", given.output)
    page = page_to_write(given.html)
    if output and output.suffix not in SUFFIXES:
        raise RequestError(f"--output {output}: the name must end in {', '.join(SUFFIXES)}")
    if given.verify and find_spec("cv2") is None:
        raise RequestError("--verify geometric needs OpenCV: pip install 'lookalike[opencv]'")
    if not (output or page or given.json):
        raise RequestError("duplicates: give --output FILE or --html PAGE, or both")
    return output, page


def _column(joined: Joined, name: str | None) -> pa.Field | None:
    """The column that pairs share a value of."""
    if name is None:
        return None
    check_group(name, joined.schema, "--within")
    return pa.field(name, joined.schema.field(name).type)


def _run(place: str, searcher: Searcher, threshold: float, within: pa.Field | None) -> Run:
    """The scratch of what is asked, begun, or found as an earlier attempt left it."""
    asked = [searcher.store.name, searcher.manifest["name"], threshold, str(within)]
    run = Run.for_request(open_store(place), {"duplicates": asked})
    if run.noted() is None:
        run.start()
        run.note({"asked": asked})
    return run


@dataclass(frozen=True)
class _Job:
    """One search for groups.

    Attributes:
        task_runner: Has its tasks done.
        join: What is looked for.
        joined: The snapshot.
        verify: Whether to compare the original files.
    """

    task_runner: TaskRunner
    join: Join
    joined: Joined
    verify: bool

    def components(self) -> tuple[Ids, Ids, PairRecall]:
        """Ids (n,) of rows with near-copies, the group of each, and how complete that is."""
        scratch, sample = self.task_runner.store, Sample.drawn(self.joined, self.join.within)
        sample.write(scratch, self.join)
        sample = Sample.read(scratch, self.join)  # that of the first attempt
        dealt, taken = (f"{self.join.folder}/{kind}" for kind in ("dealt", "taken"))
        meeting = Meeting(
            "distinct",
            len(self.joined.tasks),
            partial(deal, join=self.join),
            partial(take, join=self.join),
            dealt,
            taken,
            rows=sample.of,
        )
        partitions = self.task_runner.meet(meeting)
        tasks = join_tasks(self.join, partitions, self.joined.partitions)
        found = self.task_runner.run(("join", "parts"), tasks, find_links)
        records = finished(scratch, scratch.files(dealt, ".json"))
        ids, first = components_of(scratch, self.joined, records, partitions.values(), found)
        return ids, first, recall_of(scratch, sample, records, ids, first)

    def groups(self, describer: Describer, ids: Ids, first: Ids) -> Iterator[Group]:
        """The groups of rows (n,), with what the original files tell where that is asked for."""
        groups = describer.groups(grouped(ids, first))
        if not self.verify:
            return groups
        from lookalike.copies.verifying import judged, verify, verify_tasks  # OpenCV is an extra

        scratch, folder = self.task_runner.store, self.join.folder
        tasks = verify_tasks(scratch, folder, groups)
        records = self.task_runner.run(("verify", "parts"), tasks, verify)
        return judged(describer, describer.groups(grouped(ids, first)), records)


def _write(job: _Job, output: Path | None, page: Path | None) -> _Told:
    """Find the groups, and write them where they are wanted."""
    ids, first, recall = job.components()
    describer, told = Describer(job.joined), _Told(recall)
    shown: list[Group] = []
    with ExitStack() as stack:
        sink = stack.enter_context(to_file(output)) if output else None
        for group in job.groups(describer, ids, first):
            told.add(group)
            if sink:
                sink(group)
            if page and len(shown) < _PAGE_GROUPS:
                shown.append(group)
    if page:
        _write_page(page, job, shown, told)
    return told


def _write_page(path: Path, job: _Job, shown: list[Group], told: _Told) -> None:
    join = job.join
    facts = [
        ("store", str(job.joined.store)),
        ("snapshot", join.snapshot),
        ("found", told.line()),
        ("threshold", f"{join.threshold:g}"),
        ("recall", told.recall.line().removeprefix("recall of pairs").strip(" :")),
    ]
    if join.within:
        facts.insert(4, ("within", join.within.name))
    if told.groups > len(shown):
        facts.append(("groups", f"the {len(shown):,} largest of {told.groups:,} are shown"))
    with write_file(path.absolute().parent, path.name) as pending:
        for piece in render_duplicates(
            shown, facts=facts, thumbnail=PagePictures(), metric=job.joined.metric
        ):
            pending.write(piece.encode("utf-8", "replace"))
