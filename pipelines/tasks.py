"""Tasks that each leave a done file: those that are not done are run, in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import apache_beam as beam

from pipelines.progress import Progress
from pipelines.runner import RunnerSpec, run


class Task(Protocol):
    """A piece of work that says in a file of the store that it is done."""

    @property
    def done(self) -> str:
        """Path of that file, relative to the store."""


def run_tasks(
    store: Path,
    stage: tuple[str, str],
    tasks: Sequence[Task],
    transform: beam.PTransform,
    runner: RunnerSpec,
    progress: Progress,
) -> None:
    """Run the tasks that are not done, and show how far they are.

    Args:
        store: The store's root.
        stage: Its name, and what is counted, in the plural.
        tasks: All of them.
        transform: PCollection[Task] -> PCollection[int].
        runner: The engine; no more processes are started than there are tasks.
        progress: Where to show it.
    """
    pending = [task for task in tasks if not (store / task.done).exists()]
    if not pending:
        return

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | "Tasks" >> beam.Create(pending, reshuffle=False) | "Run" >> transform

    def done() -> int:
        return sum((store / task.done).exists() for task in tasks)

    with progress.stage(*stage, len(tasks), done, done()):
        run(build, runner.at_most(len(pending)))
