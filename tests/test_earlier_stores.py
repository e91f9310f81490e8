"""A store that an earlier version made with its defaults, when these were color-texture 1 alone.

tests/golden/earlier_default has its pictures, which lay in /pictures, the store as the commit
eb13909 wrote it (`index --config configs/quickstart.yaml`), and what it answered to each of them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lookalike.pipelines.cli import main

GOLDEN = Path(__file__).parent / "golden" / "earlier_default"
PICTURES = GOLDEN / "pictures"
NAME = "20261127T174005Z-7e7fe5"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(GOLDEN / "store", tmp_path_factory.mktemp("earlier") / "store"))


def answers(text: str) -> dict[str, list[tuple[str, float]]]:
    """Names and scores by the query's name."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in map(json.loads, text.splitlines()):
        query, uri = Path(line["query_uri"]).name, Path(line["uri"]).name
        found.setdefault(query, []).append((uri, line["score"]))
    return found


def ask(store: Path, output: Path, *more: str) -> dict[str, list[tuple[str, float]]]:
    wanted = ["--images", str(PICTURES), "-k", "6", "--output", str(output)]
    assert main(["query", "--store", str(store), *wanted, *more]) == 0
    return answers(output.read_text())


def test_it_answers_as_it_did_with_the_model_that_it_holds(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", "--store", str(store)]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}: 13 files checked: all as the manifest says")
    then = answers((GOLDEN / "answers.jsonl").read_text())
    now = ask(store, tmp_path / "answers.jsonl")
    assert len(now) == 6
    for query, rows in then.items():
        assert [name for name, _ in now[query]] == [name for name, _ in rows]
        assert [score for _, score in now[query]] == pytest.approx([s for _, s in rows], abs=1e-4)


def test_the_next_run_embeds_anew_says_why_and_publishes(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "--images", str(PICTURES), "--store", str(store)]) == 0
    said = capsys.readouterr().err.splitlines()
    for line in (
        "the choice of features is builtin:photo 0.7 + builtin:color-texture 0.3, "
        f"that of {NAME} is builtin:color-texture",
        f"builtin:color-texture is version 2 here, and another in {NAME}, "
        "whose vectors do not compare with it",
        f"everything is embedded anew; {NAME} serves until that is done",
    ):
        assert line in said
    published = (store / "CURRENT").read_text().strip()
    assert published != NAME
    assert main(["verify", "--store", str(store)]) == 0
    now = ask(store, tmp_path / "answers.jsonl")
    assert all(rows[0] == (query, pytest.approx(1, abs=1e-4)) for query, rows in now.items())
    assert dict(now["sun.png"])["sun-lower.png"] == now["sun.png"][1][1]
    # the old snapshot is as it was, until gc removes it
    assert main(["verify", "--store", str(store), "--snapshot", NAME]) == 0
