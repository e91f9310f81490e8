"""Stores that may not be written: commands that would, say so; those that read are not hindered."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.errors import RequestError
from lookalike.pipelines.cli import main
from lookalike.store.locks import hold, why_not_writable
from lookalike.store.objects import open_store
from lookalike.store.snapshot import read_manifest

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(scope="module")
def read_only(
    indexed: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A store on a file system that is mounted read-only, where the machine allows to make one."""
    place = tmp_path_factory.mktemp("mounted") / "store"
    place.mkdir()
    if (
        not ROOT
        or subprocess.run(
            ["mount", "--bind", str(indexed[0]), str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    "command",
    [
        "gc --store {store}",
        "gc --store {store} --dry-run",
        "rollback --store {store}",
        "forget --store {store} --uri /a.jpg",
        "index --images {pictures} --store {store}",
    ],
)
def test_a_store_on_a_read_only_mount_is_told(
    command: str, read_only: Path, indexed: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    words = command.format(store=read_only, pictures=indexed[1]).split()
    assert main(words) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(
        f"lookalike: {read_only}: the store cannot be written: {read_only} is on a file system "
        "that is mounted read-only; "
    )


@pytest.mark.parametrize("command", ["verify", "status"])
def test_reading_is_not_hindered(command: str, read_only: Path) -> None:
    assert main([command, "--store", str(read_only)]) == 0


@pytest.mark.skipif(ROOT, reason="root may do all")
@pytest.mark.parametrize("folder", [".", "embeddings", "runs"])
def test_a_folder_without_permission_is_named(folder: str, tmp_path: Path) -> None:
    for name in ("embeddings", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / folder).chmod(0o500)
    try:
        with (
            pytest.raises(RequestError, match=f"no permission in {tmp_path / folder}; mount"),
            hold(tmp_path),
        ):
            pass
    finally:
        (tmp_path / folder).chmod(0o700)


def test_why_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert why_not_writable(tmp_path / "new/store") == ""
    with pytest.raises(RequestError, match="a store is a folder, and this is a file"):
        read_manifest(open_store(tmp_path / "file"))
    assert why_not_writable(tmp_path / "file/store") == f"{tmp_path / 'file'} is not a folder"
