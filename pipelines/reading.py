"""What jobs that only read a store are given beside it: an engine, and a place for scratch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lookalike.errors import RequestError
from lookalike.images.preparing import decode, thumbnail_jpeg
from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.sources.contents import Contents, claimed_name
from lookalike.sources.locating import Locator
from lookalike.store import snapshot
from lookalike.store.objects import open_store
from lookalike.store.storage import is_remote, place_below, store_place

if TYPE_CHECKING:
    from lookalike.pipelines.config import Config
    from lookalike.pipelines.runner import RunnerSpec

_THUMBNAIL = 224
_PAGE_START = 256  # bytes, among which a page says that it is one


def check_scratch(given: argparse.Namespace) -> None:
    """Is --scratch a place that is there.

    Raises:
        RequestError: It is not.
    """
    if given.scratch and not is_remote(given.scratch) and not os.path.isdir(given.scratch):
        raise RequestError(f"--scratch {given.scratch}: no such folder; make it first")


def asked_config(given: argparse.Namespace, beam: Sequence[str]) -> Config | None:
    """What --config says, with Beam's options; None where there is none."""
    if not given.config:
        return None
    from lookalike.pipelines.config import load_config

    models = snapshot.read_manifest(open_store(given.store), given.snapshot).get("features")
    return load_config(given.config, [*beam], vectors=not models)


def asked_runner(
    what: str, config: Config | None, given: argparse.Namespace, beam: Sequence[str]
) -> RunnerSpec:
    """The engine of a job that writes scratch.

    Args:
        what: Names the job.
        config: Its runner counts; by default it runs here.
        given: The command's flags.
        beam: Pipeline options.

    Raises:
        RequestError: The engine is not there, or its workers share no place for scratch.
    """
    from lookalike.pipelines import preflight
    from lookalike.pipelines.runner import RunnerSpec

    runner = config.runner if config else RunnerSpec(arguments=tuple(beam))
    if not runner.here and not given.scratch and not is_remote(given.store):
        raise RequestError(
            f"{what} on runner {runner.name} needs --scratch: a place that its workers share, a "
            "folder or on object storage"
        )
    runner = preflight.ready(runner)
    if given.scratch:
        # the store is only read, by name: workers who can read what lies in it need no more
        preflight.check_folders(runner, [open_store(given.scratch)])
    return runner


@contextmanager
def scratch_place(given: argparse.Namespace, store: str, runner: RunnerSpec) -> Iterator[str]:
    """The name of a place for scratch: that which was asked for, or a temporary one."""
    with TemporaryDirectory(prefix=f"lookalike-{given.command}-") as folder:
        usual = folder if runner.here else place_below(store, "runs")
        yield store_place(given.scratch or usual)


def file_to_write(flag: str, name: str | None) -> Path | None:
    """Is it somewhere that can be written; said before any work is done.

    Raises:
        RequestError: It is not.
    """
    if not name:
        return None
    path = Path(name)
    if not path.parent.is_dir():
        raise RequestError(f"{flag} {name}: no such folder: {path.parent}; make it first")
    if path.is_dir():
        raise RequestError(f"{flag} {name}: is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{flag} {name}: no permission to write in {path.parent}")
    return path


def page_to_write(name: str | None) -> Path | None:
    """The same of --html, whose name may be any: no picture, nor a store's file, is lost by it.

    Raises:
        RequestError: It cannot be written, or something other than a page is there.
    """
    path = file_to_write("--html", name)
    if path and path.is_file():
        with open(path, "rb") as file:
            start = file.read(_PAGE_START)
        if start and b"<!doctype html" not in start.lower():
            raise RequestError(f"--html {name}: is there already, and is no page; name another")
    return path


class PagePictures:
    """Small JPEGs of source files for a page, or None for what cannot be had now."""

    def __init__(self) -> None:
        self._locator, self._contents = Locator(read_before=True), Contents()

    def __call__(self, uri: str) -> bytes | None:
        """The thumbnail of a listed file."""
        file = self._locator.find(uri)
        if file.problem:
            return None
        try:
            data = self._contents.read(file)
            pixels = decode(data, claimed_name(file), min_side=_THUMBNAIL).pixels
        except (OSError, Rejected, NotAnImage):
            return None
        return thumbnail_jpeg(pixels, _THUMBNAIL)
