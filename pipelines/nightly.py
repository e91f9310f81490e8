"""`lookalike index`: one scheduled run over images or over given vectors, and its metrics."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lookalike.errors import one_line
from lookalike.models.resolving import DEFAULT_FEATURES
from lookalike.pipelines.config import Config, load_config
from lookalike.pipelines.ending import AGAIN, DONE, status_of
from lookalike.pipelines.index import run_index
from lookalike.pipelines.ingest import run_ingest
from lookalike.pipelines.job import Again
from lookalike.pipelines.metrics_file import write_metrics
from lookalike.pipelines.progress import Progress
from lookalike.pipelines.reading import file_to_write
from lookalike.pipelines.runner import RunnerSpec
from lookalike.pipelines.streams import complain, print_as_json
from lookalike.store.objects import open_store


def run_nightly(given: argparse.Namespace, beam: list[str]) -> int:
    """Bring a store up to date; `--metrics` are written however that ends.

    Raises:
        LookalikeError: See `run_index` and `run_ingest`.
    """
    began, status, published = time.monotonic(), AGAIN, False
    if given.metrics:
        file_to_write("--metrics", given.metrics)
    try:
        result = _run(given, beam)
        status, published = DONE, result["new"]
        if given.json:
            print_as_json(result)
    except BaseException as error:
        status = status_of(error)
        raise
    finally:
        if given.metrics:
            _write_metrics(given, status, time.monotonic() - began, published)
    return status


def _run(given: argparse.Namespace, beam: list[str]) -> dict[str, Any]:
    retry = None if given.retry_rejects is None else frozenset(given.retry_rejects)
    again = Again(given.rehash, retry)
    if given.config:
        config = load_config(given.config, beam, vectors=bool(given.embeddings))
    else:
        features = () if given.embeddings else DEFAULT_FEATURES
        config = Config(features, runner=RunnerSpec(arguments=tuple(beam)))
    if given.embeddings:
        return run_ingest(config, given.embeddings, given.store, Progress(), again)
    return run_index(config, given.images, given.store, Progress(), again)


def _write_metrics(given: argparse.Namespace, status: int, seconds: float, published: bool) -> None:
    """Write the file of metrics; where that fails, the run ended as it did all the same."""
    try:
        path, store = Path(given.metrics), open_store(given.store)
        write_metrics(path, store, status=status, seconds=seconds, published=published)
    except Exception as error:
        complain(f"--metrics {given.metrics}: not written: {one_line(error)}", given.debug)
