"""`lookalike find PICTURE FOLDER`: the folder's index is kept in the cache, and made when needed.

Whether the folder is as it was is told by names, sizes and times of change, which takes no models;
what changed, the usual run finds out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import lookalike
from lookalike.cache_folder import cache_folder
from lookalike.errors import RequestError, one_line
from lookalike.pipelines.query import checked, run_query
from lookalike.records import SourceFile
from lookalike.report.text import visible
from lookalike.sources.kinds import open_source
from lookalike.sources.sniff import bytes_before, identify
from lookalike.store import snapshot
from lookalike.store.durable import write_bytes
from lookalike.store.objects import open_store

_FEW = 500  # files
_SEEN = "folder.sha256"  # beside the store, of the listing that it was made of


def run_find(given: argparse.Namespace) -> int:
    """Answer from the cached store of the folder, brought up to date first."""
    folder = _folder(given.folder)
    given.images = [given.picture]
    checked(given)
    asked = open_source(given.picture)  # whether it is there
    place = store_of(folder)
    listing, count = _listing(open_source(str(folder)).files(lambda line: None))
    if not count:
        raise RequestError(f"{given.folder}: no files there; find looks in a folder of pictures")
    if given.refresh or _seen(place) != listing:
        if asked.kind == "file":
            _check_picture(given.picture)
        _index(folder, place, count)
        write_bytes(place, _SEEN, listing.encode())
    given.store = str(place / "store")
    given.like = None if given.crop else _row_of(given.picture, folder, given.store)
    given.images = None if given.like else given.images
    return run_query(given)


def _folder(name: str) -> Path:
    """Where to look, made absolute.

    Raises:
        RequestError: It is no folder, or what is kept of folders lies in it.
    """
    folder = Path(os.path.abspath(name))
    if not name or not folder.is_dir():
        raise RequestError(
            f"{name or repr(name)}: no such folder; find looks in a folder of pictures"
        )
    cache = cache_folder()
    if Path(os.path.realpath(folder)) in Path(os.path.realpath(cache)).parents:
        raise RequestError(
            f"{name}: the cache {cache}, where find keeps the index, lies inside it and would list "
            "itself; set XDG_CACHE_HOME to a folder elsewhere, or name a folder below"
        )
    return folder


def _check_picture(name: str) -> None:
    """Whether a file can be searched by, before a folder is indexed for it, which may take long.

    Raises:
        RequestError: Nothing in it says image.
    """
    path = Path(name)
    data = path.read_bytes() if path.is_file() else b""
    if data and not identify(data, name) and not bytes_before(data):
        raise RequestError(f"{name}: not usable as a query: its content is no known image")


def _row_of(picture: str, folder: Path, store: str) -> list[str] | None:
    """The name of a picture that has a vector in the store already: no model need be loaded."""
    name = Path(os.path.abspath(picture))
    if folder not in name.parents:
        return None
    with lookalike.open(store) as opened:
        try:
            return opened.like(str(name)).names
        except RequestError:  # it was rejected; as a query it is told why
            return None


def store_of(folder: Path) -> Path:
    """Where what is kept of a folder lies: by its name, and by what makes the vectors."""
    from lookalike.models.resolving import DEFAULT_FEATURES

    features = [(feature.handle, feature.weight) for feature in DEFAULT_FEATURES]
    key = hashlib.sha256(f"{os.fsencode(folder)!r}\n{features}".encode()).hexdigest()[:32]
    return cache_folder() / "find" / key


def _listing(files: Iterable[SourceFile]) -> tuple[str, int]:
    """A hash of what lies in a folder, in whatever order it is listed, and how many files."""
    total = count = 0
    for count, file in enumerate(files, start=1):  # noqa: B007
        line = f"{file.uri}\n{file.bytes}\n{file.version}\n{file.problem}"
        total ^= int.from_bytes(
            hashlib.sha256(line.encode("utf-8", "surrogateescape")).digest(), "big"
        )
    return f"{total:064x}", count


def _seen(place: Path) -> str:
    """The hash of the listing that the published snapshot is of; "" where there is none."""
    try:
        seen = (place / _SEEN).read_text("ascii")
    except (OSError, ValueError):
        return ""
    store = open_store(place / "store")
    return seen if store.is_there() and snapshot.current(store) else ""


def _index(folder: Path, place: Path, files: int) -> None:
    from lookalike.models.resolving import DEFAULT_FEATURES
    from lookalike.pipelines.config import Config, PublishConfig
    from lookalike.pipelines.index import run_index
    from lookalike.pipelines.progress import Progress
    from lookalike.pipelines.runner import RunnerSpec
    from lookalike.pipelines.stores import StoreHandle
    from lookalike.store import retention

    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or one_line(error)).lower()
        raise RequestError(
            f"{place}: the folder's index cannot be kept there: {why}; set XDG_CACHE_HOME to a "
            "folder that can be written"
        ) from error
    print(f"indexing {visible(str(folder))}; kept in {visible(str(place))}", file=sys.stderr)
    # Nobody watches over this store: it is to hold what the folder does, whatever became of that.
    publish = PublishConfig(max_rejected_share=1, max_shrink_share=1, report=False)
    # Processes that load models of their own are worth their while only with more to do.
    runner = RunnerSpec(workers=1 if files <= _FEW else 0)
    config = Config(DEFAULT_FEATURES, publish=publish, runner=runner)
    run_index(config, [str(folder)], str(place / "store"), Progress())
    store = open_store(place / "store")
    with StoreHandle(store).writing():
        retention.gc(store, keep_last=1, keep_days=0)
