"""Tasks as a transform: what engines are told of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import apache_beam as beam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.pipelines.progress import Progress
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.tasks import TaskRunner
from lookalike.store.objects import open_store
from lookalike.store.runs import Run
from lookalike.transforms.tasks import DoTasks, ranges_of
from lookalike.work import TaskWork
from tests.squared import Square, square

HINT = "beam:resources:min_ram_bytes:v1"


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize("memory", [0, 3 << 30])
def test_the_memory_that_a_task_needs_is_told(spread: bool, memory: int, tmp_path: Path) -> None:
    pipeline = beam.Pipeline()
    do = DoTasks(TaskWork("square", open_store(tmp_path), square, memory), spread)
    _ = pipeline | beam.Create([Square(1, "1.json")], reshuffle=False) | do
    parts = pipeline.to_runner_api().components
    hints = [dict(one.resource_hints) for one in parts.environments.values()]
    assert ({HINT: str(memory).encode()} in hints) == bool(memory)
    assert any("Spread" in one.unique_name for one in parts.transforms.values()) == spread


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_leave_their_records_and_are_not_done_again(workers: int, tmp_path: Path) -> None:
    run = Run(open_store(tmp_path), "0123456789abcdef")
    run.start()
    tasks = [Square(number, f"{run.folder}/squares/{number}.json") for number in range(4)]
    for _ in range(2):
        found = TaskRunner(run, RunnerSpec(workers=workers), Progress(quiet=True)).run(
            ("square", "numbers"), tasks, square
        )
        assert found == [{"square": number**2} for number in range(4)]
    wrong = [*tasks, Square(-1, f"{run.folder}/squares/-1.json")]
    with pytest.raises(RuntimeError, match="-1 is not squared"):
        TaskRunner(run, RunnerSpec(workers=1), Progress(quiet=True)).run(
            ("square", "numbers"), wrong, square
        )


def test_what_one_process_does_needs_no_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beam.Pipeline, "run", lambda pipeline: pytest.fail("one was started"))
    run = Run(open_store(tmp_path), "0123456789abcdef")
    run.start()
    for count, workers in ((3, 1), (1, 2)):
        stage, folder = ("square", "numbers"), f"{run.folder}/{workers}"
        tasks = [Square(number, f"{folder}/{number}.json") for number in range(count)]
        found = TaskRunner(run, RunnerSpec(workers=workers), Progress(quiet=True)).run(
            stage, tasks, square
        )
        assert found == [{"square": number**2} for number in range(count)]


def test_a_run_on_one_worker_needs_no_beam(pictures: Callable[..., Path], tmp_path: Path) -> None:
    """It takes more than a second to import, and is not imported until a pipeline is built."""
    (tmp_path / "config.yaml").write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    words = ["--config", "config.yaml", "--images", str(pictures(5)), "--store", "store"]
    script = (
        "import sys\nfrom lookalike.pipelines.cli import main\n"
        f"assert main(['index', *{words}]) == 0\nassert 'apache_beam' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


@given(st.sets(st.integers(0, 5000), max_size=3000).map(sorted))
def test_ranges_have_every_number_once_and_are_few_where_there_are_no_gaps(
    numbers: list[int],
) -> None:
    ranges = ranges_of(numbers)
    assert [number for bounds in ranges for number in range(*bounds)] == numbers
    gaps = sum(after - before > 1 for before, after in pairwise(numbers))
    assert len(ranges) <= 1024 + gaps
