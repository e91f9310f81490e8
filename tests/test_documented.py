"""The code blocks of the README and of the pages that have some, run as a reader would."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lookalike.pipelines import flags
from lookalike.pipelines.cli import main
from lookalike.pipelines.config import parse_config
from tests.conftest import picture
from tests.documented import ROOT, blocks, languages, marked, script

README, BEAM = ROOT / "README.md", ROOT / "docs" / "beam.md"
API, READING = ROOT / "docs" / "python-api.md", ROOT / "docs" / "reading-a-store.md"
COMMAND = Path(sys.executable).with_name("lookalike")
LABELS = ("dog", "cat")


def index_labelled(folder: Path) -> None:
    """Bring the store of pictures to what the pages on Python take it for: with labels."""
    source, store = str(folder / "labelled.csv"), str(folder / "pictures.store")
    assert main(["index", "--images", source, "--store", store]) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: pictures, a store of them, vectors."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "Pictures").symlink_to(folder / "pictures")  # of the home folder
    (folder / "pictures").mkdir()
    names = [f"pictures/{number}.png" for number in range(12)]
    for number, name in enumerate(names):
        picture(number).save(folder / name)
    for name in ("some.jpg", "cat.jpg"):
        picture(3, (900, 600)).save(folder / name)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "pictures.txt").write_text("\n".join([*names, "broken.png"]))
    rows = "".join(f"{folder}/{name},{LABELS[i % 2]}\n" for i, name in enumerate(names))
    (folder / "labelled.csv").write_text(f"uri,label\n{rows}")
    index_labelled(folder)
    for where, count in (("vectors", 40), ("own", 2000)):
        (folder / where).mkdir()
        for number in range(3):
            rng = np.random.default_rng(number)
            vectors = pa.array(rng.normal(size=count * 32).astype(np.float32))
            table = {
                "uri": [f"{where}/{number}/{row}" for row in range(count)],
                "embedding": pa.FixedSizeListArray.from_arrays(vectors, 32),
            }
            pq.write_table(pa.table(table), folder / where / f"{number}.parquet")
    np.save(folder / "queries.npy", np.ones((2, 32), np.float32))
    return folder


def run_as_reader(command: list[str], place: Path) -> str:
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        **os.environ,
        "HOME": str(place),
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join([str(COMMAND.parent), os.environ["PATH"]]),
    }
    environment.pop("XDG_CACHE_HOME", None)
    ended = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def run_python(page: Path, place: Path, without: Collection[str] = ()) -> str:
    """All of a page's Python but blocks that import some library, in one go; errors name lines."""
    code = f"exec(compile({script(page, without=without)!r}, {str(page)!r}, 'exec'))"
    return run_as_reader([sys.executable, "-c", code], place)


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert languages(README) == {"python", "yaml", ""}
    assert languages(BEAM) == languages(API) == languages(READING) == {"python"}
    assert len(marked(README, "not run")) == 2


@pytest.mark.slow
def test_the_readmes_python(place: Path) -> None:
    out = run_python(README, place)
    first = out.splitlines()[0].split()
    assert first[:1] + first[2:3] == ["1", f"{place}/pictures/3.png"]
    assert float(first[1]) > 0.8
    [written] = place.glob("vectors-*")
    table = pq.read_table(written)
    given = (place / "pictures.txt").read_text().splitlines()
    assert sorted(table["uri"].to_pylist()) == sorted(given[:-1])
    [written] = place.glob("failed-*")
    assert pq.read_table(written).select(["uri", "reason"]).to_pylist() == [
        {"uri": "broken.png", "reason": "corrupt"}
    ]


# What the words of the README's commands stand for.
WORDS = {"F": "configs/quickstart.yaml", "SRC": "pictures", "STORE": "pictures.store"}


@pytest.mark.slow
@pytest.mark.parametrize(("line", "code"), blocks(README, ""))
def test_the_readmes_commands(line: int, code: str, place: Path) -> None:
    words = {**WORDS, **({"STORE": "of-vectors.store"} if "--embeddings" in code else {})}
    for command in code.splitlines():
        assert command.startswith("lookalike "), command
        command = re.sub(r"\b[A-Z]+\b", lambda word: words.get(word[0], word[0]), command)
        run_as_reader(["sh", "-c", command], place)


def synopses() -> list[tuple[str, str]]:
    """(command, line) of the README's synopses; one that goes on is of the command before it."""
    found = []
    for _, code in marked(README, "synopsis"):
        commands: list[str] = []
        for line in code.splitlines():
            named = re.match(r"lookalike ([a-z]+(?: \| [a-z]+)*)", line)
            commands = named[1].split(" | ") if named else commands
            found += [(command, line) for command in commands]
    return found


@pytest.mark.parametrize(("command", "line"), synopses())
def test_the_readmes_synopses_name_what_there_is(
    command: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        flags.make_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"--[a-z-]+", line)) <= known


def test_the_readmes_config_is_the_default() -> None:
    [(_, text)] = blocks(README, "yaml")
    documented = yaml.safe_load(text)
    found = parse_config(documented, [])
    usual = parse_config({"features": documented["features"]}, [])
    index = {**usual.index, **documented["index"], "memory": 4 << 30}
    assert found == parse_config({"features": documented["features"], "index": index}, [])


@pytest.fixture(scope="module")
def beam_page(place: Path) -> str:
    return run_python(BEAM, place)


@pytest.mark.slow
def test_the_page_on_beam(place: Path, beam_page: str) -> None:
    [line] = beam_page.splitlines()
    ids, scores = line.strip("[]").split("] [")
    assert [int(one) for one in ids.split()] == [0, (1 << 32) + 5]
    assert [float(one) for one in scores.split()] == pytest.approx([1, 1], abs=1e-5)
    tables = {name: pq.read_table(next(place.glob(f"{name}-*"))) for name in ("tables", "products")}
    assert tables["tables"].num_rows == 12
    products = tables["products"].select(["product", "uri"]).to_pylist()
    assert sorted((one["product"], one["uri"]) for one in products) == [
        (17, "pictures/0.png"),
        (18, "./pictures/1.png"),
    ]
    rows = [pq.read_metadata(path).num_rows for path in (place / "shards/embeddings").iterdir()]
    assert sum(rows) == 12
    found = place / "own.store" / "index"
    assert sorted(path.name.partition("-")[0] for path in found.iterdir()) == ["0", "1"]


@pytest.mark.slow
@pytest.mark.usefixtures("beam_page")
def test_what_a_pipeline_wrote_can_be_indexed(place: Path) -> None:
    """As the page says."""
    written = shlex.quote(str(next(place.glob("tables-*"))))
    store = str(place / "written.store")
    run_as_reader(["sh", "-c", f"lookalike index --embeddings {written} --store {store}"], place)
    out = run_as_reader(["lookalike", "status", "--store", store], place)
    assert "12" in out


@pytest.mark.slow
def test_the_page_on_python(place: Path) -> None:
    index_labelled(place)  # the commands of other pages index other things
    lines = run_python(API, place).splitlines()
    store = str(place / "pictures.store")
    assert re.fullmatch(
        rf"Searcher\(store='{store}', snapshot='.*', rows=12, metric='cosine'\)", lines[0]
    )
    assert [line.split()[0] for line in lines[1:4]] == ["1", "2", "3"]
    assert lines[1].split()[2:] == [f"{place}/pictures/3.png", "cat"]
    asked = [line.split() for line in lines[4:9]]
    assert [name for name, _ in asked] == [f"image:{row}" for row in range(5)]
    assert [float(score) for _, score in asked] == pytest.approx(
        [float(lines[1].split()[1])] * 5, abs=0.02
    )
    assert lines[9].split(maxsplit=2)[:2] == ["4", "True"]
    assert [lines[9].count(label) for label in LABELS] == [2, 2]
    count, row = lines[10].split(maxsplit=1)
    assert (count, json.loads(row)["label"]) == ("3", "cat")
    assert lines[11] == "2 False 12"
    assert len(lines) == 12


BESIDE = ("duckdb", "polars", "pandas", "datasets", "lance", "lancedb", "webdataset")


@pytest.mark.slow
def test_the_page_on_reading_a_store(place: Path) -> None:
    absent = [name for name in BESIDE if find_spec(name) is None]
    lines = run_python(READING, place, absent).splitlines()
    assert lines[0].startswith("12 ['id', 'uri', 'content_sha256', 'width', ")
    expected = {
        "duckdb": "[('cat', 6, 64.0), ('dog', 6, 64.0)]",
        "polars": "6",
        "pandas": "{'cat': 64.0, 'dog': 64.0}",
    }
    there = len(expected) - len(expected.keys() & set(absent))
    assert lines[1 : 1 + there] == [expected[name] for name in expected if name not in absent]
    assert lines[1 + there] == "True"
    ids, rows = lines[2 + there].rsplit(" ", 1)
    assert (json.loads(ids)[0] & 0xFFFFFFFF, len(json.loads(ids)), rows) == (0, 3, "12")
    exported = {
        "duckdb": "[(12, 2)]",
        "pandas": "12",
        "datasets": "12 True",
        "lance": "['cat', 'cat', 'cat']",
        "lancedb": "True",
        "webdataset": "12 3 True",
    }
    assert lines[3 + there :] == [exported[n] for n in exported if n not in absent]
