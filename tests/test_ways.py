"""Ways to ask, each against brute force over the stored vectors, by its definition."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lookalike
from lookalike import RequestError
from lookalike.distances import METRICS
from lookalike.images.cropping import Crop, asked_crop
from lookalike.pipelines.cli import main
from lookalike.search import choosing
from lookalike.search.searcher import Searcher
from tests.conftest import picture
from tests.vector_stores import best, brute_force, clustered, make_store

ROWS, DIM, K = 600, 24, 12
KINDS = {"exact": {"kind": "exact"}, "ivf_pq": {"kind": "ivf_pq", "nlist": 12, "nbits": 4}}
ALL = {"exact": {}, "ivf_pq": {"nprobe": 12, "rerank": ROWS}}  # so that nothing is missed
BLOCKS = (10, 14)


class Opened:
    """A store, its vectors, and queries that are none of them."""

    def __init__(self, folder: Path, metric: str, kind: str, **extra: Any) -> None:
        vectors = clustered(ROWS + 6, DIM, seed=4)
        if metric == "jaccard":
            vectors = np.abs(vectors)
        if extra:  # a hybrid's: blocks of unit length, by the square roots of their weights
            vectors = np.concatenate(
                [
                    np.sqrt(share) * part / np.linalg.norm(part, axis=1, keepdims=True)
                    for share, part in zip(
                        (0.3, 0.7), np.split(vectors, [BLOCKS[0]], 1), strict=True
                    )
                ],
                axis=1,
            ).astype("f4")
        self.ids, self.stored, _ = make_store(
            folder, vectors[:ROWS], metric, options=KINDS[kind], extra=extra
        )
        self.queries, self.metric, self.all = vectors[ROWS:], metric, ALL[kind]
        self.searcher: Searcher = lookalike.open(folder)
        self.labels = np.arange(ROWS) % 3

    def scores(self, queries: np.ndarray) -> np.ndarray:
        return brute_force(queries, self.stored, self.metric)

    def ask(self, k: int = K, **ways: Any) -> list[lookalike.Neighbours]:
        if not {"like", "vectors"} & set(ways):
            ways["vectors"] = self.queries
        return self.searcher.search(k=k, **self.all, **ways)

    def check(self, found: Any, rows: Any, scores: Any) -> None:
        """Whether an answer is of these rows, with these scores, in this order."""
        assert [one.id for one in found] == self.ids[np.asarray(rows, int)].tolist()
        assert [one.rank for one in found] == [*range(1, len(found) + 1)]
        np.testing.assert_allclose([one.score for one in found], scores, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", params=[f"{m} {k}" for m in METRICS for k in KINDS])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    metric, kind = request.param.split()
    return Opened(tmp_path_factory.mktemp("store"), metric, kind)


@pytest.fixture(scope="module")
def cosine(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tmp_path_factory.mktemp("cosine"), "cosine", "ivf_pq")


def units(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype("f8") / np.linalg.norm(vectors.astype("f8"), axis=1, keepdims=True)


# --- several pictures, and others that are not meant ---------------------------------------------


def test_together_by_the_mean(opened: Opened) -> None:
    some = opened.queries
    mean = (units(some) if opened.metric == "cosine" else some.astype("f8")).mean(0, keepdims=True)
    scores = opened.scores(mean)
    [found] = opened.ask(together="mean")
    rows = best(scores, K, opened.metric)[0]
    opened.check(found, rows, scores[0, rows])
    assert found.query_uri == "vector:0 + vector:1 + vector:2 + 3 more"


def test_together_by_the_best_of_all_scores(opened: Opened) -> None:
    scores = opened.scores(opened.queries)
    scores = scores.min(0) if opened.metric == "l2" else scores.max(0)
    [found] = opened.ask(together="max")
    rows = best(scores[None], K, opened.metric)[0]
    opened.check(found, rows, scores[rows])


def test_a_filter_and_exclusions_hold_for_pictures_together(opened: Opened) -> None:
    scores = opened.scores(opened.queries)
    scores = scores.min(0) if opened.metric == "l2" else -scores.max(0)
    scores[opened.labels != 1] = np.inf
    out = np.argsort(scores)[:2]
    scores[out] = np.inf
    [found] = opened.ask(together="max", where="label = 'group 1'", exclude=opened.ids[out])
    rows = np.argsort(scores, kind="stable")[:K]
    opened.check(found, rows, np.abs(scores[rows]) if opened.metric == "l2" else -scores[rows])


def test_unlike_takes_a_direction_away_or_is_refused(opened: Opened) -> None:
    if opened.metric in ("l2", "jaccard"):
        with pytest.raises(RequestError, match=rf"unlike: .*{opened.metric} compares no direct"):
            opened.ask(unlike=int(opened.ids[3]))
        return
    away = opened.stored[[3, 5]]
    one = opened.metric == "cosine"
    asked = (units(opened.queries) if one else opened.queries) - 0.5 * (
        units(away) if one else away
    ).mean(0)
    scores = opened.scores(asked)
    for found, own in zip(opened.ask(unlike=opened.ids[[3, 5]].tolist()), scores, strict=True):
        rows = best(own[None], K, opened.metric)[0]
        opened.check(found, rows, own[rows])


def test_pictures_that_cancel_out_are_refused(cosine: Opened) -> None:
    both = np.stack([cosine.queries[0], -cosine.queries[0]])
    with pytest.raises(RequestError, match=r"vector:0 \+ vector:1: .* cancel one another out"):
        cosine.ask(vectors=both, together="mean")


# --- weights -------------------------------------------------------------------------------------


def features() -> dict[str, Any]:
    return {
        "features": [
            {"name": name, "weight": weight, "info": {"dim": dim}}
            for name, weight, dim in zip(("low", "deep"), (3, 7), BLOCKS, strict=True)
        ]
    }


@pytest.fixture(scope="module", params=["cosine", "inner_product"])
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(tmp_path_factory.mktemp("hybrid"), request.param, "ivf_pq", **features())


def weighed(hybrid: Opened, queries: np.ndarray, weights: tuple[float, float]) -> np.ndarray:
    """The mean of the blocks' cosines by these weights."""
    parts = [
        brute_force(q, v, "cosine") * w / sum(weights)
        for q, v, w in zip(
            np.split(queries, [BLOCKS[0]], 1),
            np.split(hybrid.stored, [BLOCKS[0]], 1),
            weights,
            strict=True,
        )
    ]
    return parts[0] + parts[1]


@pytest.mark.parametrize("weights", [(9, 1), (0, 2.5), (1, 1)])
def test_weights_make_the_score_a_mean_of_cosines(
    weights: tuple[float, float], hybrid: Opened
) -> None:
    scores = weighed(hybrid, hybrid.queries, weights)
    text = f"low={weights[0]},deep={weights[1]}"
    for found, own in zip(hybrid.ask(weights=text), scores, strict=True):
        rows = best(own[None], K, "cosine")[0]
        hybrid.check(found, rows, own[rows])
    [found] = hybrid.ask(weights={"low": weights[0], "deep": weights[1]}, together="max")
    rows = best(scores.max(0)[None], K, "cosine")[0]
    hybrid.check(found, rows, scores.max(0)[rows])


def test_the_weights_of_the_store_change_nothing(hybrid: Opened) -> None:
    plain, asked = hybrid.ask(), hybrid.ask(weights={"low": 0.3, "deep": 0.7})
    for one, other in zip(plain, asked, strict=True):
        assert [n.id for n in one] == [n.id for n in other]
        np.testing.assert_allclose([n.score for n in one], [n.score for n in other], atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"low": 1}, "name each feature of the store, which are low, deep; got low=1"),
        ("low=1,deep=0.5,other=2", "name each feature"),
        ("low=1,low=2", "named twice"),
        ("low", "needs a number for each feature"),
        ("low=0,deep=0", "one above 0"),
        ("low=-1,deep=2", "from 0 on"),
        ({"low": float("nan"), "deep": 1}, "weights: low: needs a finite number"),
        ([1, 2], "needs a mapping"),
    ],
)
def test_weights_that_are_none_are_refused(weights: Any, message: str, hybrid: Opened) -> None:
    with pytest.raises(RequestError, match=message):
        hybrid.ask(weights=weights)


def test_weights_need_a_hybrid(cosine: Opened, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="vectors made elsewhere alone"):
        cosine.ask(weights="low=1")
    extra = {**features(), "projection": {"handle": "a"}}
    make_store(tmp_path / "a", cosine.stored, options={"kind": "exact"}, extra=extra)
    with pytest.raises(RequestError, match="projection mixes"):
        lookalike.open(tmp_path / "a").search(vectors=cosine.queries, weights="low=1,deep=1")
    make_store(tmp_path / "b", cosine.stored, "l2", options={"kind": "exact"}, extra=features())
    with pytest.raises(RequestError, match="the metric l2 compares none"):
        lookalike.open(tmp_path / "b").search(vectors=cosine.queries, weights="low=1,deep=1")


# --- which of the rows found ---------------------------------------------------------------------


def test_no_neighbour_is_worse_than_the_least_score(opened: Opened) -> None:
    scores = opened.scores(opened.queries)
    order = best(scores, ROWS, opened.metric)
    edge = float(np.sort(np.take_along_axis(scores, order, 1)[:, 5])[2])
    for row, found in enumerate(opened.ask(min_score=edge)):
        own = scores[row, order[row, :K]]
        good = own <= edge * (1 + 1e-6) if opened.metric == "l2" else own >= edge - 1e-6
        near = np.abs(own - edge) < 1e-5
        assert good.sum() - near.sum() <= len(found) <= good.sum() + near.sum()
        assert found.complete
        opened.check(found, order[row, : len(found)], own[: len(found)])


def test_the_best_of_each_group(opened: Opened) -> None:
    scores = opened.scores(opened.queries)
    order = best(scores, ROWS, opened.metric)
    for row, found in enumerate(opened.ask(k=7, group_by="label", per_group=2)):
        rows = [r for g in range(3) for r in order[row][opened.labels[order[row]] == g][:2]]
        rows.sort(key=order[row].tolist().index)
        opened.check(found, rows, scores[row, rows])
        assert found.complete, "all rows were looked at"


def test_groups_are_looked_for_until_there_are_enough(cosine: Opened) -> None:
    """The nearest hundred rows are all of one group, and the next is far away."""
    far = cosine.searcher.search(vectors=cosine.queries[:1], k=100, **cosine.all)[0]
    inside = ", ".join(f"'{one.uri}'" for one in far)
    [found] = cosine.ask(
        vectors=cosine.queries[0], k=2, group_by="format", where=f"uri in ({inside})"
    )
    assert [one.id for one in found] == [far[0].id]
    assert found.complete


def test_an_answer_says_that_it_is_not_complete(
    cosine: Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(choosing, "DEEPEST", 64)
    found = cosine.ask(k=4, group_by="label")
    assert [one.complete for one in found] == [False] * 6
    assert [len(one) for one in found] == [3] * 6


def mmr(scores: np.ndarray, alike: np.ndarray, k: int, balance: float, sign: int) -> list[int]:
    """As Carbonell and Goldstein have it, row by row."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        left = [i for i in range(len(scores)) if i not in chosen]
        chosen.append(
            max(
                left,
                key=lambda i: (
                    balance * sign * scores[i]
                    - (1 - balance) * max(sign * alike[i, j] for j in chosen)
                    if chosen
                    else sign * scores[i]
                ),
            )
        )
    return chosen


@pytest.mark.parametrize("balance", [0, 0.4, 1])
def test_diverse_answers_are_those_of_maximal_marginal_relevance(
    balance: float, opened: Opened
) -> None:
    scores = opened.scores(opened.queries)
    sign = -1 if opened.metric == "l2" else 1
    pool = best(scores, 120, opened.metric)
    for row, found in enumerate(opened.ask(diversify=balance)):
        own = pool[row]
        alike = brute_force(opened.stored[own], opened.stored[own], opened.metric)
        chosen = own[mmr(scores[row, own], alike, K, balance, sign)]
        opened.check(found, chosen, scores[row, chosen])


def test_diverse_and_of_all_groups_and_weighed(hybrid: Opened) -> None:
    scores = weighed(hybrid, hybrid.queries, (8, 2))
    found = hybrid.ask(weights="low=8,deep=2", diversify=True, group_by="label", per_group=4)
    for row, one in enumerate(found):
        own = best(scores[row : row + 1], 120, "cosine")[0]
        alike = weighed(hybrid, hybrid.stored[own], (8, 2))[:, own]
        counts, rows = np.zeros(3), []
        for position in mmr_within(scores[row, own], alike, hybrid.labels[own], 4):
            rows.append(own[position])
            counts[hybrid.labels[own[position]]] += 1
        hybrid.check(one, rows, scores[row, rows])
        assert (counts == 4).all()


def mmr_within(scores: np.ndarray, alike: np.ndarray, groups: np.ndarray, each: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < K:
        taken = [int(groups[i]) for i in chosen]
        left = [i for i in range(len(scores)) if i not in chosen and taken.count(groups[i]) < each]
        chosen.append(
            max(left, key=lambda i: 0.5 * scores[i] - 0.5 * alike[i, chosen].max())
            if chosen
            else int(np.argmax(scores))
        )
    return chosen


# --- rows of the store ---------------------------------------------------------------------------


def test_rows_as_queries_are_their_vectors(opened: Opened) -> None:
    uris = ["/pictures/7.png", int(opened.ids[9]), "/c"]  # the last is another name of row 3
    expected = opened.ask(vectors=opened.stored[[7, 9, 3]])
    found = opened.ask(like=uris)
    assert [one.query_uri for one in found] == ["/pictures/7.png", "/pictures/9.png", "/c"]
    for one, other in zip(found, expected, strict=True):
        assert [(n.id, n.score) for n in one] == [(n.id, n.score) for n in other]
    for one, row in zip(opened.ask(like=uris, exclude_self=True), (7, 9, 3), strict=True):
        assert opened.ids[row] not in [n.id for n in one]
        assert len(one) == K
        assert one.complete


def test_a_name_with_quotes_is_a_name(cosine: Opened) -> None:
    with pytest.raises(RequestError, match="like: /it's' or 'a' = 'a is no picture of this snap"):
        cosine.ask(like="/it's' or 'a' = 'a")


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        ({"like": "/nowhere.png"}, "like: /nowhere.png is no picture of this snapshot"),
        ({"like": 1.5}, "like: needs uris or ids"),
        ({"like": [b"a"]}, "like: needs whole numbers"),
        ({"like": "/c", "vectors": [1]}, "one of them only"),
        ({"crop": "0,0,1,1"}, "crop: is of pictures"),
        ({"exclude_self": True}, "exclude_self: vector:0 has neither a name nor bytes"),
        ({"exclude_self": 1}, "exclude_self: must be True or False"),
        ({"together": "all"}, "together: must be mean or max, got 'all'"),
        ({"min_score": "x"}, "min_score: needs a finite number, got 'x'"),
        ({"min_score": float("inf")}, "min_score: needs a finite number"),
        ({"group_by": "colour"}, "no column 'colour'; the columns are id, uri"),
        ({"group_by": "embedding"}, "no column 'embedding'"),
        ({"group_by": 3}, "group_by: needs the name of a column"),
        ({"per_group": 2}, "per_group: only with group_by"),
        ({"group_by": "label", "per_group": 0}, "per_group: needs a whole number from 1"),
        ({"diversify": 1.5}, "diversify: needs a number from 0"),
        ({"diversify": "much"}, "diversify: needs a finite number"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line(
    ways: dict[str, Any], message: str, cosine: Opened
) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        cosine.ask(**ways)
    assert "\n" not in str(refused.value)


# --- parts of pictures ---------------------------------------------------------------------------


def test_parts_in_pixels_and_in_shares() -> None:
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    np.testing.assert_array_equal(Crop(3, 5, 10, 6).of(pixels), pixels[5:11, 3:13])
    np.testing.assert_array_equal(Crop(0.5, 0.25, 0.5, 0.5).of(pixels), pixels[5:15, 15:])
    np.testing.assert_array_equal(Crop(0, 0, 1, 1).of(pixels), pixels)
    half = Crop(20, 10, 20, 20).of(pixels, (60, 40))  # a picture that was reduced by two
    np.testing.assert_array_equal(half, pixels[5:15, 10:20])
    assert Crop(0.999, 0.999, 0.0001, 0.0001).of(pixels).shape == (1, 1, 3)
    for wrong in (Crop(25, 0, 6, 5), Crop(0.6, 0, 0.5, 1)):
        with pytest.raises(ValueError, match="leaves"):
            wrong.of(pixels)


@pytest.mark.parametrize(
    "crop", ["1,2,3", "a,b,c,d", "0,0,0,5", "-1,0,5,5", "0,0,nan,1", 7, [1, 2]]
)
def test_what_is_no_rectangle_is_refused(crop: Any) -> None:
    with pytest.raises(RequestError, match="crop: needs x, y, w, h"):
        asked_crop(crop)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A picture that lies on its side in its file, and its lower right part, upright."""
    folder = tmp_path_factory.mktemp("photo")
    upright = picture(77, (400, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(folder / "whole.png", exif=exif)
    upright.crop((200, 150, 400, 300)).save(folder / "part.png")
    return folder / "whole.png", folder / "part.png"


@pytest.mark.parametrize("crop", [(200, 150, 200, 150), (0.5, 0.5, 0.5, 0.5), "200,150,200,150"])
def test_a_part_is_embedded_as_a_file_of_it_would_be(
    crop: Any, photo: tuple[Path, Path], indexed: tuple[Path, Path]
) -> None:
    whole, part = photo
    searcher = lookalike.open(indexed[0])
    [expected] = searcher.embed(part)
    upright = Image.open(whole)
    for form in (whole, whole.read_bytes(), upright):
        np.testing.assert_allclose(searcher.embed(form, crop)[0], expected, atol=1e-6)
    assert np.abs(searcher.embed(whole)[0] - expected).max() > 1e-3


def answers(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["query", *arguments, "--json"]) == 0, capsys.readouterr().err
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_command_asks_as_python_does(
    photo: tuple[Path, Path], indexed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, pictures = indexed
    searcher = lookalike.open(store)
    names = [str(path) for path in sorted(pictures.glob("first/*.png"))[:3]]
    common = ["--store", str(store), "-k", "4"]
    cases: list[tuple[list[str], dict[str, Any]]] = [
        (
            ["--images", str(photo[0]), "--crop", ".5,.5,.5,.5"],
            {"images": str(photo[0]), "crop": (0.5, 0.5, 0.5, 0.5)},
        ),
        (["--images", *names, "--together", "mean"], {"images": names, "together": "mean"}),
        (
            ["--images", *names, "--together", "max", "--exclude-self"],
            {"images": names, "together": "max", "exclude_self": True},
        ),
        (
            ["--images", names[0], "--unlike", names[1], "--unlike", names[2]],
            {"images": names[0], "unlike": names[1:]},
        ),
        (
            ["--images", names[0], "--min-score", ".9", "--exclude-self"],
            {"images": names[0], "min_score": 0.9, "exclude_self": True},
        ),
        (["--like", *names[:2], "--diversify", ".3"], {"like": names[:2], "diversify": 0.3}),
        (
            ["--like", names[0], "--diversify", "--group-by", "format", "--per-group", "2"],
            {"like": names[0], "diversify": True, "group_by": "format", "per_group": 2},
        ),
    ]
    for flags, ways in cases:
        expected = [one.to_dict() for answer in searcher.search(k=4, **ways) for one in answer]
        found = answers(capsys, *common, *flags)
        assert [row["uri"] for row in found] == [row["uri"] for row in expected], flags
        np.testing.assert_allclose(
            [row["score"] for row in found], [row["score"] for row in expected], atol=1e-5
        )


def test_a_copy_under_another_name_is_itself(indexed: tuple[Path, Path], tmp_path: Path) -> None:
    store, pictures = indexed
    first = pictures / "first" / "1.png"
    (copy := tmp_path / "copy.jpg").write_bytes(first.read_bytes())
    searcher = lookalike.open(store)
    data = copy.read_bytes()
    for form in (lambda: first, lambda: copy, lambda: data, lambda: io.BytesIO(data)):
        assert searcher.search(form(), k=1)[0][0].uri == str(first)
        [found] = searcher.search(form(), k=5, exclude_self=True)
        assert len(found) == 5
        assert str(first) not in [one.uri for one in found]
    with pytest.raises(RequestError, match="image:0 has neither a name nor bytes"):
        searcher.search(Image.open(copy), exclude_self=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images", "PICTURE", "--crop", "0,0,5000,10"], "leaves 64 x 48 pixels"),
        (["--images", "PICTURE", "--crop", "1,2"], "crop: needs x, y, w, h"),
        (["--images", "PICTURE", "--crop", ".5,.5,.6,.5"], "crop: 0.5,0.5,0.6,0.5 are shares"),
        (["--images", "PICTURE", "--crop", "-5,0,9,9"], "with - is given as --crop=VALUE"),
        (["--images", "PICTURE", "--crop=-5,0,9,9"], "from 0 on and w, h above 0"),
        (["--images", "FOLDER", "--crop", "0,0,900,9"], "files can be used, for example"),
        (["--images", "PICTURE", "--nothing", "x"], "--nothing x; see: lookalike query --help"),
        (["--like", ""], "like: '' is no picture"),
        (["--vectors", "nothing.npy", "--unlike", __file__], "nothing.npy: no such file"),
        (["--images", "nothing.png", "--unlike", __file__], "nothing.png: no such file"),
        (["--like", "PICTURE", "--crop", "0,0,1,1"], "--crop 0,0,1,1: only with --images"),
        (["--like", "nothing.jpg"], "like: nothing.jpg is no picture"),
        (["--images", "PICTURE", "--weights", "low=1"], "weights: "),
        (["--images", "PICTURE", "--diversify", "2"], "diversify: needs a number from 0"),
        (["--images", "PICTURE", "--group-by", "nothing"], "no column 'nothing'"),
        (["--images", "PICTURE", "--unlike", "/nowhere"], "/nowhere"),
    ],
)
def test_the_command_refuses_with_status_2(
    flags: list[str], message: str, indexed: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    store, pictures = indexed
    places = {"PICTURE": sorted(pictures.glob("first/*.png"))[0], "FOLDER": pictures}
    given = [str(places.get(one, one)) for one in flags]
    assert main(["query", "--store", str(store), *given]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
