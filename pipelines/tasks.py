"""Tasks that each leave a record: those that have none are run, in parallel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace

import apache_beam as beam

from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec, run, run_here
from lookalike.store.attempts import Record, Task, finished
from lookalike.store.exchange import Meet, Meeting
from lookalike.store.objects import Store
from lookalike.store.runs import Run, number_of
from lookalike.transforms.exchange import Exchange
from lookalike.transforms.tasks import TaskTransform

_AT_ONCE = 64  # records in memory that are not kept
_RANGES = 1024  # of numbers of tasks, in the graph: some engines spread what it begins with alone
_WORTH_A_PROCESS = 200_000  # rows: fewer have met before another process has started
_TOLD = 8  # tasks of an exchange; fewer are done before anybody asks how far they are


def run_tasks(
    scratch: Run,
    stage: tuple[str, str],
    tasks: Sequence[Task],
    transform: TaskTransform,
    runner: RunnerSpec,
    progress: Progress,
) -> list[Record]:
    """Run the tasks that are not done, show how far they are, and return the records of all.

    Args:
        scratch: The run; its files that no record names are gone afterwards.
        stage: Its name, and what is counted, in the plural.
        tasks: All of them.
        transform: PCollection[Task] -> PCollection[int].
        runner: The engine; no more processes are started than there are tasks.
        progress: Where to show it.
    """
    store, records = scratch.store, [task.done for task in tasks]
    folders = {record.rpartition("/")[0] for record in records}

    def there() -> set[str]:
        return {path for folder in folders for path in store.files(folder, ".json")}

    begun = there()
    pending = [task for task in tasks if task.done not in begun]
    if not pending:
        return finished(store, records)

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> beam.Create(pending, reshuffle=False) | "Run" >> transform

    def done() -> int:
        return len(there().intersection(records))

    with progress.stage(*stage, len(tasks), done, done()):
        enough = runner.at_most(len(pending))
        if enough.alone:
            run_here(lambda: transform.here(pending))
        else:
            run(build, enough)
    found = finished(store, records)
    scratch.sweep()
    return found


def run_exchange(
    store: Store,
    exchange: Exchange,
    tasks: int,
    dealt: str,
    taken: str,
    runner: RunnerSpec,
    progress: Progress,
) -> dict[int, Record]:
    """Bring rows together by partitions, and return what the partitions' records say, by number.

    Pieces are left out, of rows that go on from there.
    Tasks and partitions that are done already are not done again, but read.

    Args:
        store: The store's root.
        exchange: What deals rows out, and takes them.
        tasks: How many tasks there are.
        dealt: Folder in and below which tasks leave their records, a `Dealing`'s each.
        taken: Folder of those that partitions leave, of which those without rows have none.
        runner: The engine, with no more processes than the rows are worth.
        progress: Where to show how far it is, if it takes some time.

    Raises:
        RuntimeError: Rows were lost on their way; nothing must follow from what is there.
    """

    def records(folder: str) -> Iterator[tuple[int, Record]]:
        paths = store.files(folder, ".json")
        for start in range(0, len(paths), _AT_ONCE):
            some = paths[start : start + _AT_ONCE]
            for path, one in zip(some, store.read_all(some), strict=True):
                if one is not None:
                    yield number_of(path), json.loads(one.data)

    def build(pipeline: beam.Pipeline) -> None:
        step = -(-tasks // _RANGES)
        ranges = [(first, min(first + step, tasks)) for first in range(0, tasks, step)]
        numbers = pipeline | beam.Create(ranges, reshuffle=False) | "Number" >> beam.FlatMap(_each)
        _ = numbers | spread

    def done() -> int:
        return len(store.files(dealt, ".json"))

    spread = replace(exchange, spread=tasks > 1)  # where it is of use: it takes a third of the time
    told = progress.stage(exchange.stage, "parts", tasks, done) if tasks > _TOLD else nullcontext()
    with told:
        if runner.alone:
            run_here(lambda: exchange.here(tasks))
        else:
            run(build, runner)
    pieces = (piece for _, record in records(dealt) for piece in record.get("pieces", ()))
    sent = sum(rows for _, side, *_, rows in pieces if side in (exchange.sides or (side,)))
    found: dict[int, Record] = {
        number: {name: value for name, value in record.items() if name != "pieces"}
        for number, record in records(taken)
    }
    rows = sum(record["rows"] for record in found.values())
    if rows != sent:
        raise RuntimeError(
            f"{exchange.stage}: {sent:,} rows were dealt out below {store.shown(dealt)}, but "
            f"{rows:,} were taken below {store.shown(taken)}; run the same command again"
        )
    store.settle(store.files(taken, ".json"))
    return found


def _each(bounds: tuple[int, int]) -> Iterator[int]:
    yield from range(*bounds)


def meet(store: Store, runner: RunnerSpec, progress: Progress) -> Meet:
    """What brings rows together through Beam (see `run_exchange`)."""

    def bring(one: Meeting) -> dict[int, Record]:
        exchange = Exchange(
            one.stage, store.name, one.deal, one.take, sides=one.sides, every=one.every
        )
        worth = runner.at_most(-(-one.rows // _WORTH_A_PROCESS))
        return run_exchange(store, exchange, one.tasks, one.dealt, one.taken, worth, progress)

    return bring
