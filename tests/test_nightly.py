"""Random days: after each, a store that went on equals one made from scratch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lookalike.pipelines.cli import main
from lookalike.search.searcher import Searcher
from lookalike.store import snapshot
from lookalike.store.ledger import LedgerRow, read_ledger
from lookalike.store.objects import open_store
from lookalike.store.vector_reader import VectorReader
from tests.folder_days import Folder

DAYS = int(os.environ.get("LOOKALIKE_DAYS", "5"))
SEEDS = [int(seed) for seed in os.environ.get("LOOKALIKE_SEEDS", "1").split()]
CONFIG = """
features: [{name: low, handle: 'builtin:color-texture'}]
runner: {workers: 1}
embed: {unit_files: 7}
publish: {max_rejected_share: 1, max_shrink_share: 1}
compact: {max_delta_share: 1, max_tombstone_share: %s, max_deltas: 4}
"""
HAVE = ("embedded", "unchanged")  # statuses of the name that a vector goes by


class Store:
    """A store, and what is in its published snapshot."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def index(self, config: Path, *flags: str) -> dict[str, Any]:
        arguments = ["index", "--config", str(config), "--store", str(self.path), *flags]
        assert main(arguments) == 0
        return snapshot.read_manifest(open_store(self.path))

    def ledger(self) -> Iterator[LedgerRow]:
        manifest = snapshot.read_manifest(open_store(self.path))
        for line in snapshot.files_of(manifest, "ledger"):
            yield from read_ledger(self.path / line["path"])

    def contents(self) -> dict[str, tuple[Any, ...]]:
        """By uri: what became of the file, its content, whose vector it has, and that vector."""
        lines = snapshot.files_of(snapshot.read_manifest(open_store(self.path)), "embedding")
        reader = VectorReader(
            open_store(self.path), {line["file_no"]: line["path"] for line in lines}
        )
        rows = {row.uri: row for row in self.ledger() if row.status != "removed"}
        found: dict[str, tuple[Any, ...]] = {}
        for uri, row in rows.items():
            kind = "vector" if row.status in HAVE else row.status
            vector = b""
            if row.id is not None:
                vector = reader.vectors(np.array([row.id]))[0].tobytes()
                [stored] = reader.rows([row.id])
                assert stored["content_sha256"] == row.content_sha256
                assert stored["uri"] == (uri if kind == "vector" else row.detail)
            detail = "" if kind == "vector" else row.detail
            found[uri] = (kind, row.reason, detail, row.content_sha256, row.bytes, vector)
        return found


Manifest = dict[str, Any]


def balanced(manifest: Manifest, before: Manifest | None, ledger: list[LedgerRow]) -> None:
    counts, changes = manifest["counts"], manifest["changes"]
    parts = ("embedded", "unchanged", "duplicate", "rejected", "ignored")
    assert counts["listed"] == sum(counts[name] for name in parts)
    listed = [row for row in ledger if row.status != "removed"]
    assert len({row.uri for row in ledger}) == len(ledger) == counts["listed"] + counts["removed"]
    for name in (*parts, "removed"):
        assert counts[name] == sum(row.status == name for row in ledger), name
    previous = before["counts"]["listed"] if before else 0
    assert changes["previous"] == previous
    assert previous == changes["unchanged"] + changes["changed"] + changes["removed"]
    assert len(listed) == changes["unchanged"] + changes["changed"] + changes["added"]


def answers(searcher: Searcher, vectors: np.ndarray) -> list[list[tuple[str, float, list[str]]]]:
    found = searcher.search(vectors=vectors, k=5)
    return [[(n.uri, n.score, sorted(n.duplicates)) for n in one] for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_that_went_on_equals_one_made_from_scratch(seed: int, tmp_path: Path) -> None:
    folder, config = Folder(tmp_path / "pictures", seed), tmp_path / "config.yaml"
    config.write_text(CONFIG % (1 if seed % 2 else 0.3))
    folder.day(15)
    store, known = Store(tmp_path / "store"), set[bytes]()
    before: dict[str, Any] | None = None
    for day in range(DAYS):
        said = folder.day(folder.random.randrange(1, 10)) if day else []
        manifest = store.index(config, "--images", str(folder.root))
        scratch = Store(tmp_path / f"scratch-{day}")
        fresh = scratch.index(config, "--images", str(folder.root))

        ours, theirs = store.contents(), scratch.contents()
        assert ours == theirs, (day, said)
        if before is None or manifest["name"] != before["name"]:
            balanced(manifest, before, list(store.ledger()))
        assert manifest["counts"]["vectors"] == fresh["counts"]["vectors"]
        assert list(snapshot.verify(open_store(store.path))) == []
        # Only contents that were not there the day before went through the model.
        contents = {row[3] for row in ours.values() if row[0] == "vector"}
        if before is None or manifest["name"] != before["name"]:
            assert manifest["counts"]["embedded"] == len(contents - known), (day, said)
        known = contents

        # Both are exact searches here: scores agree, and names wherever scores do not tie.
        vectors = np.stack([np.frombuffer(row[5], np.float32) for row in ours.values() if row[5]])
        mine = answers(Searcher.open(store.path), vectors)
        exact = answers(Searcher.open(scratch.path), vectors)
        for one, other in zip(mine, exact, strict=True):
            assert [score for _, score, _ in one] == [score for _, score, _ in other]
            assert sorted(one[:1]) == sorted(other[:1])
        before = manifest


@pytest.mark.slow
def test_equal_files_of_a_size_that_very_many_share_are_joined(tmp_path: Path) -> None:
    """They are cut by name and fall to several units; each content keeps one vector."""
    root, config = tmp_path / "bitmaps", tmp_path / "config.yaml"
    root.mkdir()
    config.write_text(CONFIG % 1)
    numbers = np.random.default_rng(0)
    for pair in range(40):
        picture = Image.fromarray(numbers.integers(0, 256, (16, 16, 3), dtype=np.uint8))
        for name in (f"{pair:02d}.bmp", f"copy {pair:02d}.bmp"):
            picture.save(root / name)
    store = Store(tmp_path / "store")
    first = store.index(config, "--images", str(root))
    assert (first["counts"]["embedded"], first["counts"]["duplicate"]) == (40, 40)
    assert first["counts"]["vectors"] == 40
    balanced(first, None, list(store.ledger()))
    for pair in range(25):
        (root / f"{pair:02d}.bmp").rename(root / f"renamed {pair:02d}.bmp")
    second = store.index(config, "--images", str(root))
    balanced(second, first, list(store.ledger()))
    assert (second["counts"]["embedded"], second["changes"]["renamed"]) == (0, 25)
    scratch = Store(tmp_path / "scratch")
    scratch.index(config, "--images", str(root))
    assert store.contents() == scratch.contents()
    assert list(snapshot.verify(open_store(store.path))) == []
