"""Runs over manifests and tars: every row is in the ledger, and every caption its picture's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import lookalike
from lookalike.pipelines.cli import main
from tests.conftest import picture
from tests.tar_files import write_tar

LOW = "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
LOOSE = LOW + "publish: {max_rejected_share: 1.0}\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(LOOSE)
    for seed in range(4):
        picture(seed).save(tmp_path / f"{seed}.png")
    return tmp_path


def index(place: Path, *sources: str) -> int:
    named = [part for source in sources for part in ("--images", str(place / source))]
    flags = ["--config", str(place / "config.yaml"), "--store", str(place / "store")]
    return main(["index", *named, *flags])


def ledger(place: Path) -> dict[str, tuple[Any, ...]]:
    """Status, reason and detail by name."""
    return {
        row["uri"].removeprefix(f"{place}/"): (row["status"], row["reason"], row["detail"])
        for path in (place / "store/snapshots").glob("*/ledger/*.parquet")
        for row in pq.read_table(path).to_pylist()
    }


def test_a_name_listed_again_is_counted_and_told(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "m.csv").write_text("uri,label\n0.png,a\n./0.png,b\n1.png,c\n0.png,d\n")
    (place / "n.csv").write_text("uri,label\n1.png,e\n2.png,f\n")
    assert index(place, "m.csv", "n.csv") == 0
    assert "; repeated names left out: 3 (the first row of each counts)" in capfd.readouterr().err
    assert {name: row[0] for name, row in ledger(place).items()} == dict.fromkeys(
        ["0.png", "1.png", "2.png"], "embedded"
    )
    [shard] = (place / "store/embeddings").glob("*.parquet")
    labels = pq.read_table(shard, columns=["uri", "label"]).to_pylist()
    assert sorted(row["label"] for row in labels) == ["a", "c", "f"]
    assert index(place, "m.csv", "n.csv") == 0  # once more, where nothing is new
    assert "; repeated names left out: 3 " in capfd.readouterr().err


def test_rows_that_name_nothing_are_in_the_ledger(place: Path) -> None:
    rows = ["0.png", "", '"two\nlines.png"', "absent.png", ".", "nofs://x/y.png"]
    (place / "m.csv").write_text("uri,n\n" + "".join(f"{uri},{i}\n" for i, uri in enumerate(rows)))
    assert index(place, "m.csv") == 0
    found = ledger(place)
    assert found.pop("0.png")[0] == "embedded"
    assert found["m.csv#row=2"] == ("rejected", "unreadable", "the row has no uri")
    assert found["two\nlines.png"] == ("rejected", "unreadable", "No such file or directory")
    assert len(found) == 5
    assert {row[:2] for row in found.values()} == {("rejected", "unreadable")}


def test_a_manifest_that_is_not_sound_is_refused_before_anything_is_written(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{i % 4}.png,{'12' + chr(34) if i == 80 else 'x'}\n" for i in range(100)]
    lines[10] = '0.png,"12 inch\n'
    (place / "m.csv").write_text("uri,label\n" + "".join(lines))
    assert index(place, "m.csv") == 2
    [line] = capfd.readouterr().err.splitlines()
    assert f"{place}/m.csv: lines 12 to 82: a quoted field goes over all of them" in line
    assert not (place / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s.tar", "s.tgz"])
def test_members_of_a_tar_answer_with_their_own_captions(place: Path, name: str) -> None:
    def image(seed: int) -> bytes:
        return (place / f"{seed}.png").read_bytes()

    shard = [
        ("d/a.png", image(0)),
        ("d/a.json", b'{"caption": "first"}'),
        ("d/a.png", image(1)),
        ("d/a.json", b'{"caption": "second"}'),
        ("d/track 2.0.png", image(2)),
        ("d/track 2.0.json", b'{"caption": "third"}'),
        ("copy.png", b"->d/track 2.0.png"),
        ("out.png", b"~>/etc/hostname"),
        ("e.json", b'{"caption": "nobody\'s"}'),
    ]
    path = write_tar(place, shard, name)
    assert index(place, name) == 0
    found = {uri.removeprefix(f"{name}#"): row for uri, row in ledger(place).items()}
    second = next(uri for uri in found if uri.startswith("d/a.png@"))
    assert found == {
        "d/a.png": ("embedded", "", ""),
        second: ("embedded", "", ""),
        "copy.png": ("embedded", "", ""),  # the smallest name of its content
        "d/track 2.0.png": ("duplicate", "", f"{path}#copy.png"),
        "out.png": (
            "rejected",
            "unreadable",
            "a link to '/etc/hostname', which is no file in the tar",
        ),
        "e.json": ("ignored", "no_image", "neither content nor name says image"),
    }
    searcher = lookalike.open(place / "store")
    for seed, caption in ((0, "first"), (1, "second")):
        [[best]] = searcher.search(images=[place / f"{seed}.png"], k=1)
        assert (best.metadata["caption"], round(best.score, 5)) == (caption, 1.0)
