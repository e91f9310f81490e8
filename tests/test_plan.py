"""`lookalike plan` as a user meets it: measured, explained, and nothing written."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.pipelines import trial
from lookalike.pipelines.cli import main
from lookalike.records import SourceFile
from tests.conftest import picture


def left(temporary):
    """What lies in a temporary folder, but for what TensorFlow removes at its end."""
    return [path for path in temporary.iterdir() if "autograph" not in path.name]


def tree(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures among other files, tables of vectors, and configs."""
    root = tmp_path_factory.mktemp("place")
    (root / "pictures").mkdir()
    for seed in range(12):
        picture(seed).save(root / f"pictures/{seed}.png")
    (root / "pictures/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    for number in range(3):
        (root / f"pictures/{number}.json").write_text("{}")
    (root / "broken").mkdir()
    (root / "broken/one.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    with tarfile.open(root / "pictures.tar", "w") as tar:
        for seed in range(5):
            tar.add(root / f"pictures/{seed}.png", f"{seed}.png")
    (root / "vectors").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        values = pa.array(rng.standard_normal(300 * 24).astype("f4"))
        table = pa.table(
            {
                "uri": [f"/{number}/{row}" for row in range(300)],
                "embedding": pa.FixedSizeListArray.from_arrays(values, 24),
            }
        )
        pq.write_table(table, root / f"vectors/{number}.parquet")
    low = "features: [{name: low, handle: 'builtin:color-texture'}]\n"
    (root / "low.yaml").write_text(low + "runner: {workers: 3}\n")
    (root / "l2.yaml").write_text("metric: l2\nindex: {memory: 100GiB, target_recall: 0.9}\n")
    (root / "typo.yaml").write_text(low + "index: {memry: 100GiB}\n")
    (root / "small.yaml").write_text(low + "index: {memory: 1MiB}\n")
    return root


def planned(capsys, *arguments):
    """The answer as JSON."""
    status = main(["plan", "--json", *map(str, arguments)])
    output = capsys.readouterr()
    assert status == 0, output.err
    return json.loads(output.out)


def test_pictures_are_measured_and_nothing_is_written(place, capsys, monkeypatch, tmp_path_factory):
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = tree(place)
    found = planned(capsys, "--images", place / "pictures", "--config", place / "low.yaml")
    assert tree(place) == before
    sources = found["sources"]
    assert sources["files"] == sources["sample"] == 16
    assert sources["bytes"] == sum(p.stat().st_size for p in (place / "pictures").iterdir())
    assert sources["embedded"] == 12
    assert sum(sources["failed"].values()) == 4
    assert sum(n for kind, n in sources["failed"].items() if kind.startswith("ignored")) == 3
    assert (found["vectors"], found["dim"], found["metric"]) == (12, 1511, "cosine")
    assert sources["workers"] == 3
    assert found["embed_s"] == pytest.approx(12 / sources["images_per_s"])
    assert found["index"]["kind"] == "exact"
    assert found["predicted"]["codes"] == 12
    assert not left(temporary)


def test_as_if_there_were_more_pictures(place, capsys):
    source = ("--images", place / "pictures.tar", "--sample", 3)
    found = planned(capsys, *source, "--rows", 1_000_000)
    assert (found["sources"]["files"], found["sources"]["sample"]) == (5, 3)
    assert (found["vectors"], found["index"]["nlist"]) == (1_000_000, 4096)
    assert found["embed_s"] == pytest.approx(1_000_000 / found["sources"]["images_per_s"])


def test_vectors_are_counted_from_their_footers(place, capsys):
    before = tree(place)
    found = planned(capsys, "--embeddings", place / "vectors", "--config", place / "l2.yaml")
    assert tree(place) == before
    assert (found["vectors"], found["dim"], found["metric"]) == (600, 24, "l2")
    assert found["sources"]["files"] == 2
    assert found["embed_s"] is None


def test_a_billion_vectors_that_are_not_there(place, capsys):
    arguments = ["--rows", str(10**9), "--dim", "64", "--config", str(place / "l2.yaml")]
    assert main(["plan", *arguments]) == 0
    text = capsys.readouterr().out
    for words in (
        "vectors    1,000,000,000 of 64 dimensions, l2",
        "index      ivf_pq: 1,000,000,000 vectors",
        "lists: 262,144 (about 3,000 vectors each), 3,815 vectors each on average",
        "of 100.0 GiB of memory",
        "codes: 32 bytes",
        "for recall 0.9;",
        "time       train ",
        "memory     searching ",
        "disk       embeddings 387.4 GiB, index ",
        "query      40 of 262,144 lists, 152,588 vectors compared by code",
    ):
        assert words in text
    assert "embed " not in text


def test_without_a_dimension_the_models_tell(place, capsys):
    found = planned(capsys, "--rows", 500, "--config", place / "low.yaml")
    assert (found["vectors"], found["dim"]) == (500, 1511)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "nothing to plan for: give --images, --embeddings or --rows"),
        ("--rows 0", "--rows must be from 1 to 1,000,000,000,000,000, got 0"),
        ("--rows 5 --dim 0", "--dim must be from 1"),
        ("--rows 5 --sample -1", "--sample must be from 1"),
        ("--dim 5 --images {0}/pictures", "--dim goes with --rows alone"),
        ("--images {0}/nowhere", "no such file or folder"),
        ("--images {0}/broken", "none of a sample of 1 files became a vector (1 rejected"),
        ("--images {0}/pictures --embeddings {0}/vectors", "not allowed with argument"),
        ("--embeddings {0}/pictures", "no Parquet files there"),
        ("--rows 5 --dim 5 --config {0}/typo.yaml", "index.memry: unknown key; did you mean mem"),
        ("--rows 1000000 --dim 512 --config {0}/small.yaml", "index.memory is 1.0 MiB, but the id"),
        ("--rows 1000000000 --dim 512", "raise index.memory to 68GiB (9GiB at the least)"),
        ("--rows 5 --dim 5 -- --streaming", "Beam options after -- go with index, query, dup"),
    ],
)
def test_wrong_requests_end_with_status_2(arguments, message, place, capsys):
    status = main(["plan", *(one.format(place) for one in arguments.split())])
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    assert message in output.err.splitlines()[-1]


def test_a_survey_counts_all_and_samples_evenly():
    files = [SourceFile(f"/{number}", number - 1, "") for number in range(1000)]
    there = trial.survey(iter(files), 100)
    assert (there.files, there.bytes) == (1000, sum(range(999)))
    places = [int(file.uri[1:]) for file in there.sample]
    assert len(set(places)) == 100
    assert 400 < np.mean(places) < 600
    assert trial.survey(files[:7], 100).sample == tuple(files[:7])
    assert trial.survey([], 5) == trial.Survey(0, 0, ())


def test_a_temporary_folder_goes_even_where_planning_fails(place, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = str(place / "small.yaml")
    images = str(place / "pictures")
    assert main(["plan", "--images", images, "--rows", "1000000", "--config", config]) == 2
    assert "raise index.memory" in capsys.readouterr().err
    assert not left(tmp_path)
