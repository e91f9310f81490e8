"""The API of `lookalike serve`, through a real server, against brute force and the files."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import lookalike
from lookalike.pipelines.cli import main
from lookalike.serve.api import routes
from lookalike.serve.asking import FIELDS
from lookalike.serve.browsing import folders_under
from lookalike.serve.explorer import Explorer
from lookalike.serve.limits import Limits
from lookalike.serve.metrics import Metrics
from lookalike.serve.near_copies import NEAREST, near_copies
from tests.conftest import picture
from tests.documented import ROOT, script
from tests.serving import Served, serving
from tests.vector_stores import brute_force, clustered, make_store

ROWS, DIM, LOW = 400, 24, 10


def png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def served(indexed: tuple[Path, Path]) -> Iterator[Served]:
    with serving(indexed[0]) as found:
        yield found


@pytest.fixture(scope="module")
def rows(served: Served) -> dict[str, dict[str, Any]]:
    """Rows of the store by the end of their names."""
    found = served.get("/api/browse", order="stored", k=100)["images"]
    return {"/".join(one["uri"].split("/")[-2:]): one for one in found}


# --- pictures -----------------------------------------------------------------------------------


def scores_of(store: Path, vectors: np.ndarray) -> dict[int, float]:
    """Cosine of one vector to every stored one."""
    table = lookalike.dataset(store).to_table()
    stored = np.array(table["embedding"].to_pylist())
    scores = brute_force(np.asarray(vectors), stored, "cosine")[0]
    return dict(zip(table["id"].to_pylist(), scores.tolist(), strict=True))


def check(answer: Any, expected: dict[int, float], k: int) -> None:
    found = {one["id"]: one["score"] for one in answer["neighbours"]}
    best = sorted(expected, key=lambda one: -expected[one])[:k]
    assert [one["rank"] for one in answer["neighbours"]] == [*range(1, len(best) + 1)]
    assert list(found) == best
    assert [*found.values()] == pytest.approx([expected[one] for one in best], abs=1e-5)


def test_a_picture_that_is_sent(served: Served, indexed: tuple[Path, Path]) -> None:
    store, _ = indexed
    data = png(picture(77, (300, 200)))
    with lookalike.open(store) as searcher:
        expected = scores_of(store, searcher.embed(data))
        part = scores_of(store, searcher.embed(data, crop=(0.1, 0.2, 0.5, 0.6)))
    answer = served.send([("image", data)], k=7).json()
    check(answer, expected, 7)
    assert answer["complete"] is True
    [sent] = answer["query"]["picture"]
    check(served.send([("image", data)], k=5, crop=".1,.2,.5,.6").json(), part, 5)
    # it is kept, and asked for by name; in pixels too
    check(served.search(picture=sent, k=7), expected, 7)
    check(served.search(picture=[sent], k=5, crop=[30, 40, 150, 120]), part, 5)
    small = served.ask(f"/api/picture/{sent}/thumbnail?side=1024")
    assert Image.open(io.BytesIO(small.body)).size == (1024, 683)


def test_several_pictures_are_one_query(served: Served, indexed: tuple[Path, Path]) -> None:
    store, _ = indexed
    files = [png(picture(seed)) for seed in (70, 71, 72)]
    with lookalike.open(store) as searcher:
        first, second, away = searcher.embed(files)
    mean = (first + second) / np.linalg.norm(first + second) - 0.5 * away  # all of unit length
    answer = served.send(
        [("image", files[0]), ("image", files[1]), ("unlike_image", files[2])], k=6
    ).json()
    check(answer, scores_of(store, mean[None]), 6)
    best = {
        row: max(scores_of(store, one[None])[row] for one in (first, second))
        for row in scores_of(store, first[None])
    }
    sent = answer["query"]["picture"]
    check(served.search(picture=sent, together="max", k=6), best, 6)


def test_a_row_and_a_part_of_its_file(
    served: Served, indexed: tuple[Path, Path], rows: dict[str, dict[str, Any]]
) -> None:
    store, folder = indexed
    row, file = rows["first/3.png"], folder / "first" / "3.png"
    with lookalike.open(store) as searcher:
        whole = scores_of(store, searcher.embed(file.read_bytes()))
        part = scores_of(store, searcher.embed(file.read_bytes(), crop=(0, 0, 0.5, 0.5)))
    check(served.search(id=row["id"], k=5), whole, 5)
    check(served.search(uri=row["uri"], k=5), whole, 5)
    check(served.search(id=row["id"], k=5, crop="0,0,.5,.5"), part, 5)
    others = {one: score for one, score in whole.items() if one != row["id"]}
    check(served.get(f"/api/image/{row['id']}/neighbours", k=4), others, 4)
    check(served.get(f"/api/image/{row['id']}/neighbours", k=4, exclude_self="false"), whole, 4)


def test_duplicates_are_folded_under_their_picture(
    served: Served, rows: dict[str, dict[str, Any]]
) -> None:
    [found] = served.get("/api/duplicates")["images"]
    assert {found["uri"].rpartition("/")[2], found["duplicates"][0].rpartition("/")[2]} == {
        "0.png",
        "copy of zero.png",
    }
    answer = served.search(uri=found["duplicates"][0], k=1)
    assert answer["neighbours"][0]["id"] == found["id"]
    assert answer["neighbours"][0]["duplicates"] == found["duplicates"]


def test_thumbnails_and_originals(served: Served, rows: dict[str, dict[str, Any]]) -> None:
    row = rows["second/4.png"]
    small = served.ask(f"/api/image/{row['id']}/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.body)).size == (192, 144)
    again = served.ask(
        f"/api/image/{row['id']}/thumbnail", headers={"If-None-Match": small.headers["etag"]}
    )
    assert (again.status, again.body) == (304, b"")
    whole = served.ask(f"/api/image/{row['id']}/original")
    assert whole.body == Path(row["uri"]).read_bytes()
    assert whole.headers["content-type"] == "image/png"
    assert "sandbox" in whole.headers["content-security-policy"]
    told = served.get(f"/api/image/{row['id']}")
    assert (told["width"], told["height"], told["format"]) == (64, 48, "PNG")


def test_a_file_that_is_another_now_or_gone(tmp_path: Path, indexed: tuple[Path, Path]) -> None:
    folder, store = tmp_path / "pictures", tmp_path / "store"
    folder.mkdir()
    for seed in range(3):
        picture(seed).save(folder / f"{seed}.png")
    picture(3).save(folder / "3.tga")  # whose content alone does not say that it is a picture
    config = tmp_path / "c.yaml"
    config.write_text(
        "features: [{name: low, handle: 'builtin:color-texture'}]\nrunner: {workers: 1}\n"
    )
    given = ["--config", str(config), "--images", str(folder), "--store", str(store)]
    assert main(["index", *given]) == 0
    (folder / "0.png").write_text("a secret")
    (folder / "1.png").unlink()
    picture(9).save(folder / "2.png")
    with serving(store) as served:
        ids = {one["uri"][-5:]: one["id"] for one in served.get("/api/browse")["images"]}
        for name, status, reason in (
            ("0.png", 410, "another one"),
            ("1.png", 404, "No such file"),
            ("2.png", 410, "another"),
        ):
            found = served.ask(f"/api/image/{ids[name]}/original")
            assert (found.status, b"secret" in found.body) == (status, False)
            assert reason in found.json()["error"]
        old = served.ask(f"/api/image/{ids['3.tga']}/original")
        assert (old.status, old.body) == (200, (folder / "3.tga").read_bytes())
        for name in ("0.png", "1.png"):
            found = served.ask(f"/api/image/{ids[name]}/thumbnail")
            assert (found.status, set(found.json())) == (404, {"error"})


# --- rows of a store of vectors -----------------------------------------------------------------


class Vectors:
    """A hybrid's store of vectors, and what it should answer."""

    def __init__(self, folder: Path) -> None:
        vectors = clustered(ROWS, DIM, seed=4)
        parts = zip((0.3, 0.7), np.split(vectors, [LOW], 1), strict=True)
        blocks = [np.sqrt(w) * p / np.linalg.norm(p, axis=1, keepdims=True) for w, p in parts]
        features = [
            {"name": name, "handle": f"made:{name}", "weight": weight, "info": {"dim": dim}}
            for name, weight, dim in (("low", 0.3, LOW), ("deep", 0.7, DIM - LOW))
        ]
        self.ids, self.vectors, _ = make_store(
            folder,
            np.concatenate(blocks, axis=1).astype("f4"),
            extra={"features": features},
            options={"kind": "exact"},
        )
        self.labels = np.arange(ROWS) % 3

    def best(self, query: np.ndarray, k: int, allowed: Any = None) -> tuple[list[int], list[float]]:
        scores = brute_force(query[None], self.vectors, "cosine")[0]
        order = [i for i in np.argsort(-scores).tolist() if allowed is None or allowed[i]]
        return self.ids[order[:k]].tolist(), scores[order[:k]].tolist()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vectors, Served]]:
    store = tmp_path_factory.mktemp("vectors")
    found = Vectors(store)
    with serving(store) as served:
        yield found, served


def same(answer: Any, expected: tuple[list[int], list[float]]) -> None:
    assert [one["id"] for one in answer["neighbours"]] == expected[0]
    scores = [one["score"] for one in answer["neighbours"]]
    assert scores == pytest.approx(expected[1], abs=1e-5)


def test_ways_to_ask_against_brute_force(vectors: tuple[Vectors, Served]) -> None:
    store, served = vectors
    one, two, away = (int(store.ids[row]) for row in (5, 50, 90))
    v, rows = store.vectors, np.arange(ROWS)
    same(served.search(id=one, k=12), store.best(v[5], 12))
    same(served.search(id=one, k=12, exclude_self=True), store.best(v[5], 12, rows != 5))
    where = {"where": "label = 'group 1' and uri != '/pictures/7.png'"}
    allowed = (store.labels == 1) & (rows != 7)
    same(served.search(id=one, k=9, **where), store.best(v[5], 9, allowed))
    same(served.search(id=[one, two], k=9), store.best((v[5] + v[50]) / 2, 9))
    same(served.search(id=one, unlike=[away], k=9), store.best(v[5] - 0.5 * v[90], 9))
    scores = brute_force(v[5][None], v, "cosine")[0]
    same(served.search(id=one, k=50, min_score=0.6), store.best(v[5], 50, scores >= 0.6))
    weights = {"low": 0.9, "deep": 0.1}
    factors = np.repeat([0.9 / 0.3, 0.1 / 0.7], [LOW, DIM - LOW])
    by_weights = (v * factors) @ v[5]
    found = served.search(id=one, k=9, weights=weights)
    order = np.argsort(-by_weights)[:9]
    same(found, (store.ids[order].tolist(), by_weights[order].tolist()))
    assert served.search(id=one, k=9, weights="low=.9,deep=.1") == found
    groups = served.search(id=one, k=3, group_by="label")["neighbours"]
    first = [next(i for i in np.argsort(-scores) if store.labels[i] == label) for label in range(3)]
    assert {row["id"] for row in groups} == set(store.ids[first].tolist())
    diverse = served.search(id=one, k=5, diversify=0.2)["neighbours"]
    assert diverse[0]["id"] == one
    assert [row["id"] for row in diverse] != store.best(v[5], 5)[0]


def test_the_same_by_url(vectors: tuple[Vectors, Served]) -> None:
    store, served = vectors
    one, away = int(store.ids[5]), int(store.ids[90])
    asked = {"k": 6, "where": "label = 'group 1'", "weights": "low=.5,deep=.5", "min_score": 0.1}
    by_url = served.get(f"/api/image/{one}/neighbours", **asked, unlike=away)
    by_json = served.search(id=one, unlike=away, exclude_self=True, **asked)
    assert by_url["neighbours"] == by_json["neighbours"] != []


def test_answers_to_keep(vectors: tuple[Vectors, Served]) -> None:
    store, served = vectors
    asked = {"id": int(store.ids[1]), "k": 8}
    rows = served.search(**asked)["neighbours"]
    files = {name: served.post({**asked, "format": name}) for name in ("jsonl", "csv", "parquet")}
    for name, found in files.items():
        assert found.headers["content-disposition"] == f'attachment; filename="lookalike.{name}"'
    lines = [json.loads(line) for line in files["jsonl"].body.splitlines()]
    assert [{k: v for k, v in line.items() if k != "query_uri"} for line in lines] == rows
    table = pq.read_table(io.BytesIO(files["parquet"].body)).to_pylist()
    assert [(one["id"], one["uri"], one["label"]) for one in table] == [
        (one["id"], one["uri"], one["label"]) for one in rows
    ]
    cells = [*csv.DictReader(io.StringIO(files["csv"].body.decode()))]
    assert [int(one["id"]) for one in cells] == [one["id"] for one in rows]
    assert json.loads(cells[0]["duplicates"]) == rows[0]["duplicates"] != []


def test_a_store_without_models_takes_rows_alone(tmp_path: Path) -> None:
    ids, *_ = make_store(tmp_path, clustered(30, 8), options={"kind": "exact"})
    with serving(tmp_path) as served:
        assert served.get("/api/stats")["pictures"] is False
        assert len(served.search(id=int(ids[3]), k=4)["neighbours"]) == 4
        refused = served.send([("image", png(picture(1)))])
        assert (refused.status, "without models" in refused.json()["error"]) == (400, True)


# --- looking around -----------------------------------------------------------------------------


def test_rows_at_random_and_in_order(vectors: tuple[Vectors, Served]) -> None:
    store, served = vectors
    found = [served.get("/api/browse", k=20, seed=seed)["images"] for seed in (1, 1, 2)]
    ids = [[one["id"] for one in some] for some in found]
    assert ids[0] == ids[1] != ids[2]
    assert len({*ids[0]}) == 20
    assert {*ids[0]} <= set(store.ids.tolist())
    seen: list[int] = []
    offset: int | None = 0
    while offset is not None:
        part = served.get("/api/browse", order="stored", k=90, offset=offset)
        seen, offset = seen + [one["id"] for one in part["images"]], part["next"]
    assert seen == store.ids.tolist()
    some = served.get("/api/browse", where="label = 'group 2'", k=1000)
    assert {one["id"] for one in some["images"]} == set(store.ids[store.labels == 2].tolist())
    assert some["total"] == len(some["images"])


def test_folders(served: Served, indexed: tuple[Path, Path]) -> None:
    _, folder = indexed
    top = served.get("/api/folders")
    assert (top["folder"], top["total"]) == (str(folder), 20)
    assert {one["name"]: one["count"] for one in top["folders"]}.items() >= {("second", 10)}
    inside = served.get("/api/browse", folder=f"{folder}/second", k=100)["images"]
    assert sorted(one["uri"] for one in inside) == sorted(
        str(path) for path in (folder / "second").iterdir()
    )
    below = served.get("/api/folders", under=f"{folder}/second")
    assert (below["own"], below["top"]) == (10, str(folder))
    assert served.get("/api/browse", folder=f"{folder}/sec_nd")["images"] == []


@pytest.mark.parametrize(
    ("folders", "first", "second"),
    [
        (
            ["/a/b", "file:///a/c", "file:///a/d"],
            ["/a", "file:///a"],
            ["file:///a/c", "file:///a/d"],
        ),
        (["/a/b", "s3://bucket/x"], ["/a", "s3://bucket"], ["s3://bucket/x"]),
        (["", "cat", "dog/old"], ["", "cat", "dog"], ["dog/old"]),
        (["s3://one/x", "s3://two/y"], ["s3://one", "s3://two"], ["s3://two/y"]),
    ],
)
def test_names_of_several_kinds_are_all_in_a_folder(
    folders: list[str], first: list[str], second: list[str]
) -> None:
    counts = dict.fromkeys(folders, 2)
    top = folders_under(counts, "")
    own = [""] if top["own"] else []
    assert own + [one["folder"] for one in top["folders"]] == first
    assert top["total"] == 2 * len(folders)
    below = folders_under(counts, first[-1])
    assert [one["folder"] for one in below["folders"]] == second
    assert below["total"] == 2 * len(second)


def test_outliers_are_what_is_least_like_another(vectors: tuple[Vectors, Served]) -> None:
    store, served = vectors
    scores = brute_force(store.vectors, store.vectors, "cosine")
    np.fill_diagonal(scores, -2)
    nearest = dict(zip(store.ids.tolist(), scores.max(axis=1).tolist(), strict=True))
    found = served.get("/api/outliers", k=10)["images"]
    assert len(found) == 10
    told = [one["score"] for one in found]
    assert told == sorted(told)
    assert told == pytest.approx([nearest[one["id"]] for one in found], abs=1e-5)


def linked(nearest: np.ndarray, good: np.ndarray) -> set[frozenset[int]]:
    """Components of rows (n,), each beside its nearest ones (n, m), where those pairs are good."""
    group = {row: {row} for row in range(len(nearest))}
    for row, place in zip(*np.nonzero(good), strict=True):
        one, other = group[int(row)], group[int(nearest[row, place])]
        if one is not other:
            one |= other
            group.update(dict.fromkeys(other, one))
    return {frozenset(own) for own in group.values() if len(own) > 1}


@pytest.mark.parametrize("threshold", [None, 0.9, 0.7])
def test_near_copies_against_brute_force(
    vectors: tuple[Vectors, Served], threshold: float | None
) -> None:
    store, served = vectors
    scores = brute_force(store.vectors, store.vectors, "cosine")
    np.fill_diagonal(scores, -2)
    nearest = np.argsort(-scores, axis=1)[:, :NEAREST]
    expected = linked(nearest, np.take_along_axis(scores, nearest, 1) >= (threshold or 0.97))
    assert expected or threshold is None
    asked, groups, offset = {} if threshold is None else {"threshold": threshold}, [], 0
    while offset is not None:
        found = served.get("/api/near-copies", k=2, offset=offset, **asked)
        groups, offset = groups + found["groups"], found["next"]
    assert (found["looked"], found["of"], found["total"]) == (ROWS, ROWS, len(expected))
    assert found["threshold"] == (threshold or 0.97)
    counts = [one["count"] for one in groups]
    assert counts == sorted(map(len, expected), reverse=True)
    places = {int(row): place for place, row in enumerate(store.ids)}
    for one in groups:
        own = {places[row["id"]] for row in one["images"]}
        assert len(own) == len(one["images"]) == min(one["count"], 24)
        assert any(own <= group and len(group) == one["count"] for group in expected)


@pytest.mark.parametrize("where", ["label = 'group 1'", "label != 'group 1'", "label = 'none'"])
def test_near_copies_that_fulfil_a_condition(vectors: tuple[Vectors, Served], where: str) -> None:
    """Of the groups of all rows those that pass, where they are two or more."""
    store, served = vectors
    scores = brute_force(store.vectors, store.vectors, "cosine")
    np.fill_diagonal(scores, -2)
    nearest = np.argsort(-scores, axis=1)[:, :NEAREST]
    whole = linked(nearest, np.take_along_axis(scores, nearest, 1) >= 0.7)
    holds = {"=": int.__eq__, "!": int.__ne__}[where[6]]
    chosen = {row for row in range(ROWS) if holds(row % 3, 1)} if "group" in where else set()
    expected = {part for group in whole if len(part := group & chosen) > 1}
    assert expected != whole
    assert bool(expected) == bool(chosen)
    found = served.get("/api/near-copies", k=100, threshold=0.7, where=where)
    assert (found["looked"], found["of"], found["total"]) == (*[len(chosen)] * 2, len(expected))
    counts = [one["count"] for one in found["groups"]]
    assert counts == sorted(map(len, expected), reverse=True)
    for one in found["groups"]:
        own = {int(np.searchsorted(store.ids, row["id"])) for row in one["images"]}
        assert any(own <= group and len(group) == one["count"] for group in expected)


def test_near_copies_of_few_rows_of_a_large_store(
    vectors: tuple[Vectors, Served], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of those that pass are looked at, though they are few in a sample of all rows."""
    store, _ = vectors
    twice = np.concatenate([store.vectors, store.vectors[:5]])
    ids, _, _ = make_store(tmp_path, twice, options={"kind": "exact"})
    monkeypatch.setattr("lookalike.serve.near_copies.SAMPLE", 40)
    few = " or ".join(f"uri like '%/{row}.png'" for row in (*range(5), *range(ROWS, ROWS + 5)))
    with lookalike.open(tmp_path) as searcher:
        found = near_copies(searcher, 0.9999, few)
    assert (found.looked, found.of) == (10, 10)
    expected = {(int(ids[row]), int(ids[ROWS + row])) for row in range(5)}
    assert {tuple(group.tolist()) for group in found.groups} == expected


def test_copies_and_outliers_that_fulfil_a_condition(vectors: tuple[Vectors, Served]) -> None:
    store, served = vectors
    copied = {row["label"]: row["id"] for row in served.get("/api/duplicates")["images"]}
    assert len(copied) == 2
    for label, row in copied.items():
        found = served.get("/api/duplicates", where=f"label = '{label}'")
        assert ([one["id"] for one in found["images"]], found["total"]) == ([row], 1)
    found = served.get("/api/outliers", k=10, where="label = 'group 2'")
    scores = brute_force(store.vectors, store.vectors, "cosine")
    np.fill_diagonal(scores, -2)
    own = sorted(scores[2::3].max(axis=1).tolist())[:10]
    assert [one["score"] for one in found["images"]] == pytest.approx(own, abs=1e-5)
    assert found["total"] == len(scores[2::3])


def test_near_copies_of_a_large_store_are_those_of_a_sample(
    vectors: tuple[Vectors, Served], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, _ = vectors
    monkeypatch.setattr("lookalike.serve.near_copies.SAMPLE", 40)
    make_store(tmp_path, store.vectors, options={"kind": "exact"})
    with lookalike.open(tmp_path) as searcher:
        found = near_copies(searcher, 0.9)
    assert (found.looked, found.of) == (40, ROWS)
    scores = brute_force(store.vectors, store.vectors, "cosine")
    assert 0 < len(found.groups) <= 40
    for ids in found.groups:
        own = scores[np.ix_(*[np.searchsorted(store.ids, ids)] * 2)]
        assert ((own >= 0.9).sum(axis=1) > 1).all()  # with another one of its group


def test_near_copies_by_a_metric_without_a_usual_threshold(tmp_path: Path) -> None:
    store = clustered(60, 8)
    make_store(tmp_path, np.concatenate([store, store[:5] + 1e-3]), "l2")
    with serving(tmp_path) as served:
        refused = served.ask("/api/near-copies")
        assert (refused.status, refused.json()["error"][:12]) == (400, "threshold: t")
        found = served.get("/api/near-copies", threshold=0.01)
        assert [one["count"] for one in found["groups"]] == [2] * 5


def test_values_of_columns(vectors: tuple[Vectors, Served]) -> None:
    _, served = vectors
    label = served.get("/api/values", column="label")
    assert {one["value"]: one["count"] for one in label["values"]} == {
        "group 0": 134,
        "group 1": 133,
        "group 2": 133,
    }
    width = served.get("/api/values", column="width")
    assert (width["least"], width["greatest"]) == (4, 4)


def test_stats(vectors: tuple[Vectors, Served], served: Served) -> None:
    found = vectors[1].get("/api/stats")
    assert (found["images"], found["snapshot"], found["weights"]) == (ROWS, "one", True)
    assert {one["name"]: one["type"] for one in found["columns"]} == {
        "uri": "text",
        "width": "number",
        "height": "number",
        "format": "text",
        "bytes": "number",
        "label": "text",
    }
    own = served.get("/api/stats")
    assert own["certificate"]["line"].startswith("recall@10 1.000")
    assert (own["weights"], own["pictures"], own["images"]) == (False, True, 20)


def test_the_api_is_described(served: Served, indexed: tuple[Path, Path]) -> None:
    described = served.get("/api/openapi.json")
    with closing(Explorer(lookalike.open(indexed[0]), Limits())) as explorer:
        paths = {route.path for route in routes(explorer, Metrics())} - {"/", "/static/{name}"}
    assert set(described["paths"]) == paths
    assert set(described["components"]["schemas"]["Query"]["properties"]) == set(FIELDS)
    page = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    assert [
        path
        for path in paths
        if path.replace("{", "<").replace("}", ">") not in page and path != "/api/openapi.json"
    ] == []
    texts = json.dumps(described)
    assert all(
        name in described["components"]["schemas"]
        for name in re.findall(r"#/components/schemas/(\w+)", texts)
    )


@pytest.mark.slow
def test_the_page_on_serving_runs(tmp_path: Path, indexed: tuple[Path, Path]) -> None:
    (tmp_path / "pictures.store").symlink_to(indexed[0])
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    ended = subprocess.run(
        [sys.executable, "-c", script(ROOT / "docs" / "serve.md")],
        cwd=tmp_path,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_metrics_count_what_was_answered(served: Served) -> None:
    served.get("/api/stats")
    served.ask("/nowhere")
    text = served.ask("/metrics").body.decode()
    found = dict(re.findall(r"^(lookalike_serve_\S+) (\S+)$", text, re.MULTILINE))
    assert float(found['lookalike_serve_requests_total{route="stats",status="200"}']) >= 1
    assert float(found['lookalike_serve_requests_total{route="none",status="404"}']) >= 1
    assert float(found["lookalike_serve_vectors"]) == 20


def test_uploads_make_room(indexed: tuple[Path, Path]) -> None:
    files = [png(picture(seed)) for seed in range(60, 63)]
    room = len(files[1]) + len(files[2])
    with serving(indexed[0], limits=Limits(kept_bytes=room)) as served:
        sent = [served.send([("image", one)]).json()["query"]["picture"][0] for one in files]
        gone = served.post({"picture": sent[0]})
        assert (gone.status, "upload it again" in gone.json()["error"]) == (404, True)
        assert served.search(picture=sent[1:])["neighbours"]
