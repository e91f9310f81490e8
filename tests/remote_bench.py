"""Runs of `lookalike` in processes of their own, between two places on one S3 server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lookalike.store import s3_client, snapshot
from lookalike.store.ledger import ledger_tables
from lookalike.store.objects import open_store
from lookalike.store.s3_uri import parse
from lookalike.store.vector_reader import VectorReader
from tests.conftest import picture
from tests.documented import ROOT
from tests.s3_server import BUCKET, store_uri

# Parts of an index are cut by what the launching process says: small ones, for several tasks.
_LAUNCHER = """
import sys
from lookalike.ivf import planner
planner.MIN_PART_ROWS = 40
if __name__ == "__main__":
    from lookalike.pipelines.cli import main
    sys.exit(main())
"""

Row = tuple[str, str, str, bytes | None, bytes]


def picture_file(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


@dataclass
class Bench:
    """A launching user's home, and a server.

    Attributes:
        home: A folder that nobody else may look into.
        port: Of the server.
    """

    home: Path
    port: int

    def __post_init__(self) -> None:
        self.home.chmod(0o700)
        (self.home / "launch.py").write_text(_LAUNCHER)
        self.client = s3_client.open_client(parse(store_uri(self.port, "x")))

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=key)

    def put_pictures(self, folder: str, seeds: Iterable[int]) -> None:
        for seed in seeds:
            self.put(f"{folder}/{seed:03d}.png", picture_file(seed))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.home / "launch.py"), *arguments]

    def index(self, store: str, images: str, runner: Mapping[str, Any], **more: Any) -> list[str]:
        """The command of a run; `more` goes into its config."""
        features = [{"name": "low", "handle": "builtin:color-texture"}]
        settings = {"features": features, "runner": dict(runner), **more}
        config = self.home / f"{Path(store).name}.yaml"
        config.write_text(json.dumps(settings))
        place = store if store.startswith("/") else self.uri(store)
        asked = ["--config", str(config), "--images", images, "--store", place]
        return self.command("index", *asked)

    def uri(self, path: str) -> str:
        return store_uri(self.port, path)

    def start(self, command: list[str], home: Path | None = None) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "HOME": str(home or self.home),
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str((home or self.home) / "cache"),
        }
        return subprocess.Popen(
            command,
            env=environment,
            cwd=self.home,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: list[str], status: int = 0, home: Path | None = None) -> str:
        """What it prints."""
        process = self.start(command, home)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == status, said
        assert not [one for one in sessions() if one == process.pid], "it left processes behind"
        return said

    def outcome(self, store: str) -> tuple[list[Row], dict[str, Any]]:
        """What a store says of every file, with its vector, and its certificate."""
        opened = open_store(self.uri(store), self.home / "looked")
        manifest = snapshot.read_manifest(opened)
        shards = snapshot.files_of(manifest, "embedding")
        reader = VectorReader(opened, {line["file_no"]: line["path"] for line in shards})
        rows: list[Row] = []
        for line in snapshot.files_of(manifest, "ledger"):
            for table in ledger_tables(opened.local(line["path"])):
                there = table.filter(table["id"].is_valid())
                vectors = iter(reader.vectors(there["id"].to_numpy()))
                rows += [
                    (
                        row["uri"],
                        row["status"],
                        row["reason"],
                        row["content_sha256"],
                        b"" if row["id"] is None else next(vectors).tobytes(),
                    )
                    for row in table.to_pylist()
                ]
        certificate = manifest["certificate"]
        for setting in certificate["sweep"]:
            del setting["ms"]  # as measured
        return sorted(rows, key=lambda row: row[0]), certificate


def sessions() -> Iterator[int]:
    """The session of every process; that of a command is its number."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            state, _, _, session, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if state != "Z":
                yield int(session)
