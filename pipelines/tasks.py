"""Tasks that each leave a record: those that have none are run, in parallel."""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam

from lookalike.store.attempts import Record, Task, finished
from lookalike.store.runs import Run
from pipelines.progress import Progress
from pipelines.runner import RunnerSpec, run


def run_tasks(
    scratch: Run,
    stage: tuple[str, str],
    tasks: Sequence[Task],
    transform: beam.PTransform,
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
        run(build, runner.at_most(len(pending)))
    found = finished(store, records)
    scratch.sweep()
    return found
