"""Embedding in windows, on the local engine: every file stays in its own, at its own time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.test_pipeline import TestPipeline as _TestPipeline
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import SlidingWindows, TimestampedValue

from lookalike.embed_spec import EmbedSpec
from lookalike.pipelines.engine import run
from lookalike.pipelines.runner import RunnerSpec
from lookalike.transforms.embed import EmbedImages
from tests.beam_windows import WINDOWS, Event, check_places, check_windows


@pytest.fixture(scope="module")
def spec(indexed: tuple[Path, Path]) -> EmbedSpec:
    return EmbedSpec.from_store(indexed[0])


@pytest.fixture(scope="module")
def minutely(indexed: tuple[Path, Path]) -> list[Event]:
    """Six files, a minute between them."""
    return [(str(indexed[1] / "first" / f"{i}.png"), i * 60.0) for i in range(6)]


@pytest.fixture(scope="module")
def irregular(indexed: tuple[Path, Path]) -> list[Event]:
    """Out of order, several at once, at the edges of windows, a file twice, with long gaps."""
    times = (600.0, 0.0, 59.999, 60.0, 0.0, 3600.0, 149.0, 239.0, 601.5, 3689.999)
    files = [str(indexed[1] / "second" / f"{i}.png") for i in range(9)]
    return list(zip([*files, files[0]], times, strict=True))


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("name", WINDOWS)
def test_files_are_grouped_as_without_the_transform(
    name: str, batch: int, spec: EmbedSpec, minutely: list[Event]
) -> None:
    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        check_windows(pipeline, name, minutely, spec, batch)


@pytest.mark.parametrize("name", WINDOWS)
def test_in_no_order_and_with_gaps(name: str, spec: EmbedSpec, irregular: list[Event]) -> None:
    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        check_windows(pipeline, name, irregular, spec, 4)


@pytest.mark.parametrize("name", WINDOWS)
def test_two_worker_processes(name: str, spec: EmbedSpec, irregular: list[Event]) -> None:
    run(lambda pipeline: check_windows(pipeline, name, irregular, spec, 2), RunnerSpec(workers=2))


@pytest.mark.parametrize("name", WINDOWS)
def test_time_window_and_pane_of_every_file(
    name: str, spec: EmbedSpec, irregular: list[Event]
) -> None:
    def same(found: list[Any]) -> None:
        before = sorted(place for when, place in found if when == "before")
        assert before == sorted(place for when, place in found if when == "after")
        assert len(before) == (20 if name == "sliding" else 10)
        assert {pane for *_, pane, _ in before} != {15}  # not "unknown", but that of a GroupByKey

    with _TestPipeline(runner=FnApiRunner()) as pipeline:
        check_places(pipeline, name, irregular, spec, same)


def test_a_file_in_many_windows_is_embedded_once(spec: EmbedSpec, minutely: list[Event]) -> None:
    """And what one reader does with its record is nothing to the others."""

    def changed(record: dict[str, Any]) -> float:
        record["embedding"] *= 2
        record["uri"] = "?"
        return float((record["embedding"] ** 2).sum())

    def alike(found: list[float]) -> None:
        assert found == pytest.approx([4.0] * 36, rel=1e-5)

    pipeline = _TestPipeline(runner=FnApiRunner())
    uris = (
        pipeline
        | beam.Create(minutely)
        | beam.MapTuple(TimestampedValue).with_output_types(str)
        | beam.WindowInto(SlidingWindows(360, 60))
    )
    lengths = (uris | EmbedImages(spec, 2))["embedded"] | beam.Map(changed)
    assert_that(lengths, alike)
    result = pipeline.run()
    result.wait_until_finish()
    counted = {one.key.metric.name: one.result for one in result.metrics().query()["counters"]}
    assert counted["embedded-files"] == 6
