"""Embedding on Beam's other engines, where they are at hand: `make test-engines` sees to Prism."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from lookalike.embed_spec import EmbedSpec
from lookalike.pipelines.engines import beam_options, find_prism
from lookalike.transforms.embed import EmbedImages
from tests.beam_windows import WINDOWS, Event, check_stream, check_windows
from tests.documented import ROOT

pytestmark = pytest.mark.engines
PRISM = find_prism()  # before the tests have a cache of their own
needs_prism = pytest.mark.skipif(PRISM is None, reason="Prism is not built here: make test-engines")


@pytest.fixture(scope="module")
def spec(indexed: tuple[Path, Path]) -> EmbedSpec:
    return EmbedSpec.from_store(indexed[0])


@pytest.fixture(scope="module")
def events(indexed: tuple[Path, Path]) -> list[Event]:
    """Twelve files a minute apart, a long gap in the middle, the last two at once."""
    times = [*(i * 60.0 for i in range(6)), *(4000 + i * 60.0 for i in range(5)), 4240.0]
    files = [indexed[1] / part / f"{i}.png" for part in ("first", "second") for i in range(6)]
    return [(str(file), time) for file, time in zip(files, times, strict=True)]


def on_prism(*more: str) -> PipelineOptions:
    return PipelineOptions(beam_options("prism", 0, {"prism_location": PRISM}, more))


@needs_prism
@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_on_prism(name: str, batch: int, spec: EmbedSpec, events: list[Event]) -> None:
    with beam.Pipeline(options=on_prism()) as pipeline:
        check_windows(pipeline, name, events, spec, batch)


@needs_prism
def test_early_and_late_files_of_a_stream(spec: EmbedSpec, events: list[Event]) -> None:
    with beam.Pipeline(options=on_prism("--streaming")) as pipeline:
        check_stream(pipeline, [uri for uri, _ in events], spec)


def main(store: str, uris: str, output: str) -> None:
    """A pipeline on Dask, of which only one sink would run."""
    options = PipelineOptions(beam_options("dask", 0, {"dask_npartitions": 2}, []))
    for name in ("embedded", "failed"):
        pipeline = beam.Pipeline(options=options)
        outputs = (
            pipeline | beam.Create(json.loads(uris)) | EmbedImages(EmbedSpec.from_store(store))
        )
        _ = outputs[name] | beam.Map(note, f"{output}-{name}")
        pipeline.run().wait_until_finish()


def note(record: dict[str, object], path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{record['uri']}\n")


def test_nothing_is_lost_on_dask(indexed: tuple[Path, Path], tmp_path: Path) -> None:
    """Its runner drops what the end of a bundle gives."""
    pytest.importorskip("dask.distributed", reason="Dask is not installed here")
    good = sorted(str(path) for path in (indexed[1] / "first").iterdir())
    bad = str(indexed[1] / "broken.jpg")
    arguments = [str(indexed[0]), json.dumps([*good, bad]), str(tmp_path / "found")]
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.test_beam_engines", *arguments],
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert sorted((tmp_path / "found-embedded").read_text().splitlines()) == good
    assert (tmp_path / "found-failed").read_text().splitlines() == [bad]


if __name__ == "__main__":
    main(*sys.argv[1:])
