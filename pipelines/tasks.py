"""Tasks that each leave a record: those that have none are run, in parallel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec, run_here
from lookalike.store.attempts import Record, Task, finished
from lookalike.store.meeting import Meeting, meet_here
from lookalike.store.objects import Store
from lookalike.store.runs import Run, number_of
from lookalike.work import TaskWork, Work, do_here

if TYPE_CHECKING:  # Beam takes more than a second to be imported, where no pipeline is built
    import apache_beam as beam

_AT_ONCE = 64  # records in memory that are not kept
_WORTH_A_PROCESS = 200_000  # rows: fewer have met before another process has started
_TOLD = 8  # tasks of an exchange; fewer are done before anybody asks how far they are


@dataclass(frozen=True)
class TaskRunner:
    """Has tasks of a run done, and shows how far they are.

    Attributes:
        scratch: The run; files of it that no record names are gone after every stage.
        runner: The engine.
        progress: Where to show it.
    """

    scratch: Run
    runner: RunnerSpec
    progress: Progress

    @property
    def store(self) -> Store:
        """Where the run's scratch lies, as does what the tasks read."""
        return self.scratch.store

    def worth(self, work: int, each: int) -> TaskRunner:
        """The same with a process for every so much work, where their number is left open."""
        return replace(self, runner=self.runner.worth(work, each))

    def run(
        self,
        stage: tuple[str, str],
        tasks: Sequence[Task],
        work: Work | Callable[[Any, Store], Record],
    ) -> list[Record]:
        """Run the tasks that are not done, show how far they are, and return the records of all.

        No more processes are started than there are tasks.

        Args:
            stage: Its name, and what is counted, in the plural.
            tasks: All of them.
            work: Does a task; or a function that does, of the task and the store.
        """
        store, records = self.store, [task.done for task in tasks]
        folders = {record.rpartition("/")[0] for record in records}

        def there() -> set[str]:
            return {path for folder in folders for path in store.files(folder, ".json")}

        begun = there()
        pending = [task for task in tasks if task.done not in begun]
        if not pending:
            return finished(store, records)

        def done() -> int:
            return len(there().intersection(records))

        with self.progress.stage(*stage, len(tasks), done, done()):
            does = work if isinstance(work, Work) else TaskWork(stage[0], store, work)
            perform(does, pending, self.runner.at_most(len(pending)))
        found = finished(store, records)
        self.scratch.sweep()
        return found

    def meet(self, meeting: Meeting) -> dict[int, Record]:
        """Exchange rows by no more processes than they are worth (see `exchange`)."""
        worth = self.runner.at_most(-(-meeting.rows // _WORTH_A_PROCESS))
        return replace(self, runner=worth).exchange(meeting)

    def exchange(self, meeting: Meeting) -> dict[int, Record]:
        """Bring rows together by partitions; return what the partitions' records say, by number.

        Pieces are left out, of rows that go on from there. Tasks and partitions that are done
        already are not done again, but read.

        Raises:
            RuntimeError: Rows were lost on their way; nothing must follow from what is there.
        """
        store = self.store

        def done() -> int:
            return len(store.files(meeting.dealt, ".json"))

        told = self.progress.stage(meeting.stage, "parts", meeting.tasks, done)
        with told if meeting.tasks > _TOLD else nullcontext():
            _bring_together(store, meeting, self.runner)
        dealt = _records(store, meeting.dealt)
        pieces = (piece for _, record in dealt for piece in record.get("pieces", ()))
        sent = sum(rows for _, side, *_, rows in pieces if side in (meeting.sides or (side,)))
        found: dict[int, Record] = {
            number: {name: value for name, value in record.items() if name != "pieces"}
            for number, record in _records(store, meeting.taken)
        }
        rows = sum(record["rows"] for record in found.values())
        if rows != sent:
            raise RuntimeError(
                f"{meeting.stage}: {sent:,} rows were dealt out below "
                f"{store.shown(meeting.dealt)}, but {rows:,} were taken below "
                f"{store.shown(meeting.taken)}; run the same command again"
            )
        store.settle(store.files(meeting.taken, ".json"))
        return found


def _records(store: Store, folder: str) -> Iterator[tuple[int, Record]]:
    """The records in and below a folder, by number; some at a time are held."""
    paths = store.files(folder, ".json")
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        for path, one in zip(some, store.read_all(some), strict=True):
            if one is not None:
                yield number_of(path), json.loads(one.data)


def perform(work: Work, tasks: Sequence[Any], runner: RunnerSpec) -> None:
    """Have an engine do tasks, or do them here where one worker of this machine would.

    Args:
        work: Does a task.
        tasks: Tasks, or ascending numbers of them.
        runner: The engine.
    """
    if runner.alone:
        run_here(lambda: do_here(work, tasks))
    else:
        from lookalike.transforms.tasks import DoTasks

        _run(DoTasks(work, spread=len(tasks) > 1), tasks, runner)


def _bring_together(store: Store, meeting: Meeting, runner: RunnerSpec) -> None:
    """Have rows meet on an engine, or here where one worker of this machine would do all."""
    if runner.alone:
        run_here(lambda: meet_here(meeting, store))
    else:
        from lookalike.transforms.exchange import Exchange

        _run(Exchange(meeting, store), range(meeting.tasks), runner)


def _run(transform: beam.PTransform, tasks: Sequence[Any], runner: RunnerSpec) -> None:
    """Run the pipeline that gives tasks to a transform."""
    from lookalike.pipelines.engine import run
    from lookalike.transforms.tasks import begin

    run(lambda pipeline: pipeline | "Tasks" >> begin(tasks) | "Run" >> transform, runner)
