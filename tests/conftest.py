"""Small real pictures, and one indexed store shared by the tests that only read it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The same examples every time, and no time limit for one: the machine may be busy.
settings.register_profile("lookalike", deadline=None, derandomize=True)
settings.load_profile("lookalike")


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth random picture: (width, height) RGB, different for every seed."""
    values = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(autouse=True, scope="session")
def models_made_ready_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that the processes of one run of the tests share, and that is not the user's."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(shared / "cache")
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an S3 server, whose keys are in the environment meanwhile."""
    from tests.s3_server import KEYS, s3_server

    pytest.importorskip("obstore")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        with s3_server(tmp_path_factory.mktemp("s3")) as port:
            yield port


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores on object storage fail soon, where a night's run would wait."""
    from lookalike.store import object_errors, object_requests
    from tests.s3_server import STALL_S

    monkeypatch.setattr(object_errors, "_PAUSE_S", 0.01)
    monkeypatch.setattr(object_errors, "_TRIES", 2)
    monkeypatch.setitem(object_requests._CLIENT, "read_timeout", f"{STALL_S / 3:.0f}s")
    short = {"init_backoff": timedelta(milliseconds=5), "max_backoff": timedelta(milliseconds=10)}
    monkeypatch.setitem(object_requests._RETRY, "backoff", {**short, "base": 2})
    monkeypatch.setitem(object_requests._RETRY, "max_retries", 1)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of `count` JPEG files named 000.jpg, 001.jpg, …"""

    def make(count: int, folder: str = "pictures", first_seed: int = 0) -> Path:
        target = tmp_path / folder
        target.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(first_seed + number).save(target / f"{number:03d}.jpg", quality=95)
        return target

    return make


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(store, folder of its pictures): two groups of ten, a duplicate, a reject and a sidecar."""
    from lookalike.pipelines.cli import main

    root = tmp_path_factory.mktemp("indexed")
    folder = root / "pictures"
    for group, offset in (("first", 0), ("second", 1000)):
        (folder / group).mkdir(parents=True)
        for number in range(10):
            picture(offset + number).save(folder / group / f"{number}.png")
    (folder / "copy of zero.png").write_bytes((folder / "first" / "0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (folder / "notes.json").write_text("{}")
    config = root / "config.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    store = root / "store"
    arguments = ["index", "--config", str(config), "--images", str(folder), "--store", str(store)]
    assert main(arguments) == 0
    return store, folder
