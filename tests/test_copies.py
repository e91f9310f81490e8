"""Groups of near-copies, against all pairs compared one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv

from lookalike.copies import joining, pair_recall, spec, tiles
from lookalike.copies.components import Links, grouped, spanning
from lookalike.copies.distinct import deal, take
from lookalike.copies.finding import components_of, recall_of
from lookalike.copies.joining import find_links, join_tasks
from lookalike.copies.pair_recall import PairRecall, Sample
from lookalike.copies.spec import Join, asked_threshold, opened
from lookalike.copies.values import values_of
from lookalike.errors import RequestError
from lookalike.pipelines.cli import main
from lookalike.store.exchange import Reference, references
from lookalike.store.objects import Store, open_store
from lookalike.store.tombstones import write_tombstones
from tests import publishing
from tests.vector_stores import brute_force, clustered, make_store

IVF = {"kind": "ivf_pq", "code_bytes": 8, "nlist": 24}

Groups = set[frozenset[int]]


def oracle(
    ids: Any, vectors: Any, metric: str, threshold: float, values: Any = None, names: Any = ()
) -> Groups:
    """By all pairs, and by walking from row to row; of rows with a second name one is enough."""
    scores = brute_force(vectors, vectors, metric).astype("f4")
    near = scores <= threshold if metric == "l2" else scores >= np.float32(threshold)
    if values is not None:
        near &= np.equal.outer(np.array(values), np.array(values))
    np.fill_diagonal(near, False)
    left, found = set(range(len(ids))), set()
    while left:
        group, edge = set(), [left.pop()]
        while edge:
            row = edge.pop()
            group.add(int(ids[row]))
            new = set(np.flatnonzero(near[row]).tolist()) & left
            left -= new
            edge += new
        if len(group) > 1 or group & set(names):
            found.add(frozenset(group))
    return found


def steps(
    scratch: Store, join: Join, *, twice: bool = False
) -> tuple[list[Any], dict[int, Any], list[Any], Sample]:
    """What a job does, without an engine; `twice` as one that runs everything again."""
    joined = join.opened()
    Sample.drawn(joined, join.within).write(scratch, join)
    pieces: dict[int, list[Reference]] = {}
    dealt = []
    for task in range(len(joined.tasks)):
        for _ in range(1 + twice):
            record = deal(task, scratch, join)
        dealt.append(record)
        for partition, reference in references(json.loads(json.dumps(record)), task):
            pieces.setdefault(partition, []).append(reference)
    taken = {number: take(number, own, scratch, join) for number, own in pieces.items()}
    found = []
    for one in join_tasks(join, taken, joined.partitions):
        for _ in range(1 + twice):
            record = find_links(one, scratch)
        found.append(record)
    return dealt, taken, found, Sample.read(scratch, join)


def groups(
    root: Path, threshold: float, *, nprobe: int = 64, within: Any = None, twice: bool = False
) -> tuple[Groups, PairRecall]:
    """Of the store in `root`, by the steps of a job; from all lists, unless told otherwise."""
    opened.cache_clear()
    joined = opened(str(root), "one")
    join = Join(
        str(root), "one", threshold, min(nprobe, joined.trained.spec.nlist), within, "runs/join"
    )
    scratch = open_store(root.parent / f"scratch-{root.name}-{threshold}")
    dealt, taken, found, sample = steps(scratch, join, twice=twice)
    ids, first = components_of(scratch, joined, dealt, taken.values(), found)
    recall = recall_of(scratch, sample, dealt, ids, first)
    return {frozenset(own.tolist()) for own in grouped(ids, first)}, recall


# --- components ---------------------------------------------------------------------------------


@given(count=st.integers(1, 40), seed=st.integers(0, 10**6), share=st.floats(0, 3))
def test_a_forest_connects_what_all_pairs_do(count: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, count, (2, int(share * count)))
    labels, chosen = spanning(left, right, count)
    want = np.arange(count)
    for _ in range(count):
        for a, b in zip(left, right, strict=True):
            want[a] = want[b] = min(want[a], want[b])
    assert labels.tolist() == want.tolist()
    assert len(chosen) == count - len(set(want.tolist()))
    assert spanning(left[chosen], right[chosen], count)[0].tolist() == want.tolist()


def test_a_long_chain_is_one_component() -> None:
    order = np.random.default_rng(0).permutation(100_000)
    labels, chosen = spanning(order[:-1], order[1:], len(order))
    assert not labels.any()
    assert len(chosen) == len(order) - 1


def test_links_are_reduced_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    from lookalike.copies import components

    monkeypatch.setattr(components, "_HELD", 10)
    links = Links()
    for start in range(0, 900, 3):
        left = np.array([start, start + 1, start])
        links.add(left, np.array([start + 1, start + 2, start + 2]))
        assert sum(len(part) for part, _ in links._parts) <= 2 * 3 * (start // 3 + 1) + 13
    ids, first = links.arrays()
    assert ids.tolist() == list(range(900))
    assert first.tolist() == [3 * (i // 3) for i in range(900)]
    assert [own.tolist() for own in grouped(ids[:7], first[:7])] == [[0, 1, 2], [3, 4, 5], [6]]


def test_without_a_link_there_is_no_group() -> None:
    ids, first = Links().arrays()
    assert len(ids) == len(first) == 0
    assert list(grouped(ids, first)) == []


# --- groups -------------------------------------------------------------------------------------


def piled(seed: int, n: int = 900, d: int = 16) -> npt.NDArray[np.float32]:
    """Clusters, in them piles of equal vectors, chains of small steps, and near-copies."""
    rng = np.random.default_rng(seed)
    vectors = clustered(n, d, seed)
    vectors[50:150] = vectors[50]
    vectors[150:180] = vectors[7]
    step = rng.standard_normal(d) / d
    for row in range(200, 230):
        vectors[row] = vectors[row - 1] + step
    vectors[300:400] = vectors[400:500] + 0.02 * rng.standard_normal((100, d))
    vectors[600:700] = vectors[601] + 0.05 * rng.standard_normal((100, d))
    order = rng.permutation(n)
    return np.ascontiguousarray(vectors[order])


THRESHOLDS = {
    "cosine": (0.9, 0.97, 1.0),
    "l2": (0.0, 0.6, 2.0),
    "inner_product": (55.0, 90.0),
    "jaccard": (0.8, 0.97),
}


@pytest.mark.parametrize("options", [IVF, {"kind": "exact"}], ids=["ivf", "exact"])
@pytest.mark.parametrize("metric", THRESHOLDS)
def test_groups_are_those_of_all_pairs(
    metric: str, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "TASK_ROWS", 250)
    monkeypatch.setattr(joining, "_MOST_ROWS", 90)
    monkeypatch.setattr(spec, "_PARTITION_ROWS", 200)
    monkeypatch.setattr(tiles, "_QUERIES", 40)
    monkeypatch.setattr(tiles, "_MEMBERS", 30)
    ids, vectors, _ = make_store(tmp_path / "store", piled(1), metric, options=options)
    for threshold in THRESHOLDS[metric]:
        found, recall = groups(tmp_path / "store", threshold)
        want = oracle(ids, vectors, metric, threshold, names=(ids[1], ids[3]))
        assert found == want, threshold
        assert max(map(len, found)) >= 100 or threshold in (0.0, 1.0)
        if recall.rows:  # all rows are the sample
            assert (recall.recall, recall.low, recall.high) == (1.0, 1.0, 1.0)


def test_equal_vectors_of_a_small_product_are_grouped_by_another(tmp_path: Path) -> None:
    """With themselves they score below the threshold, with a longer vector above it."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((120, 8)).astype("f4")
    vectors /= 10 * np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[20:40], vectors[60:80] = vectors[20], vectors[60]
    vectors[100] = 200 * vectors[20]
    ids, vectors, _ = make_store(tmp_path / "store", vectors, "inner_product")
    found, _ = groups(tmp_path / "store", 1.5)
    want = oracle(ids, vectors, "inner_product", 1.5, names=(ids[1], ids[3]))
    assert found == want
    assert any(set(ids[20:40].tolist()) < group for group in found)
    assert not any(set(ids[60:80].tolist()) & group for group in found)


def test_attempts_that_run_twice_change_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "store", piled(2), options=IVF)
    once = groups(tmp_path / "store", 0.95)
    (tmp_path / "scratch-store-0.95").rename(tmp_path / "other")
    assert groups(tmp_path / "store", 0.95, twice=True) == once


def test_few_lists_lose_pairs_and_the_sample_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all rows as the sample, by the share of pairs that came into one group."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((600, 16)).astype("f4")
    vectors[300:] = vectors[:300] + 0.17 * rng.standard_normal((300, 16)).astype("f4")
    ids, vectors, _ = make_store(tmp_path / "store", vectors, options=IVF)
    found, recall = groups(tmp_path / "store", 0.985, nprobe=1)
    group = {i: number for number, own in enumerate(found) for i in own}
    near = brute_force(vectors, vectors, "cosine").astype("f4") >= np.float32(0.985)
    np.fill_diagonal(near, False)
    shares = [
        np.mean(
            [
                group.get(int(ids[row]), -1) == group.get(int(ids[other]), -2)
                for other in np.flatnonzero(near[row])
            ]
        )
        for row in range(len(ids))
        if near[row].any()
    ]
    assert recall.rows == len(shares)
    assert recall.recall == pytest.approx(np.mean(shares))
    assert 0.5 < recall.recall < 1
    assert groups(tmp_path / "store", 0.9850001, nprobe=24)[1].recall == 1
    # and from some rows, with an interval
    monkeypatch.setattr(pair_recall, "SAMPLE", 200)
    _, part = groups(tmp_path / "store", 0.98500001, nprobe=1)
    assert part.sample == 200
    assert part.low < recall.recall < part.high


def test_what_recall_is_told_as() -> None:
    assert PairRecall(1, 0, float("nan"), 0, 1).line() == (
        "recall of pairs: not measured, no row has a near-copy in a sample of one row"
    )
    assert PairRecall(2000, 31, 0.98, 0.9, 0.99).line() == (
        "recall of pairs 0.9800 (95% 0.900 to 0.990), of 31 rows with near-copies in a sample of "
        "2,000"
    )


def test_pairs_share_a_value(tmp_path: Path) -> None:
    """Rows are labelled by thirds; equal vectors of other labels are apart."""
    ids, vectors, _ = make_store(tmp_path / "store", piled(3), options=IVF)
    labels = [row % 3 for row in range(len(ids))]
    found, recall = groups(tmp_path / "store", 0.95, within=pa.field("label", pa.string()))
    assert found == oracle(ids, vectors, "cosine", 0.95, labels, (ids[1], ids[3]))
    assert found != oracle(ids, vectors, "cosine", 0.95, None, (ids[1], ids[3]))
    assert recall.recall == 1


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["a", None, "b", "a", "None"], pa.string()),
        ([1, 2, None, 1, 3], pa.int16()),
        ([0.5, None, 2.0, 0.5, -0.0], pa.float32()),
        ([None] * 5, pa.null()),
        ([b"a", None, b"", b"a", b"b"], pa.binary()),
        ([True, None, False, True, None], pa.bool_()),
    ],
    ids=["string", "int", "float", "null", "bytes", "bool"],
)
def test_values_are_equal_where_cells_are(cells: list[Any], kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(cells[:2], kind), pa.array(cells[2:], kind)])
    values = values_of(column).tolist()
    assert len(values) == len(cells)
    for a in range(5):
        for b in range(5):
            assert (values[a] == values[b]) == (cells[a] == cells[b])


def test_deleted_rows_are_in_no_group(tmp_path: Path) -> None:
    store = tmp_path / "store"
    ids, vectors, manifest = make_store(store, piled(4), options=IVF)
    whole, _ = groups(store, 0.9)
    gone = np.sort(np.concatenate([ids[::7], ids[:4]]))
    record = write_tombstones(open_store(store), "snapshots/one/dead.npy", gone)
    manifest["files"].append({**record.to_json(), "kind": "tombstones"})
    publishing.publish(open_store(store), {**manifest, "name": "two"})
    left = ~np.isin(ids, gone)
    opened.cache_clear()
    joined = opened(str(store), "two")
    join = Join(str(store), "two", 0.9, 24, None, "join")
    scratch = open_store(tmp_path / "scratch")
    dealt, taken, found, sample = steps(scratch, join)
    assert sample.of == left.sum()
    rows, first = components_of(scratch, joined, dealt, taken.values(), found)
    got = {frozenset(own.tolist()) for own in grouped(rows, first)}
    assert got == oracle(ids[left], vectors[left], "cosine", 0.9)
    assert got != whole


def test_a_pile_of_equal_vectors_is_compared_once(tmp_path: Path) -> None:
    """Twenty thousand would be 4 * 10^8 comparisons; one row of them is left to compare."""
    vectors = np.ones((20_000, 4), "f4")
    vectors[:50] = clustered(50, 4)
    make_store(tmp_path / "store", vectors)
    opened.cache_clear()
    join = Join(str(tmp_path / "store"), "one", 0.999999, 1, None, "join")
    _, taken, _, _ = steps(open_store(tmp_path / "scratch"), join)
    assert sum(record["distinct"] for record in taken.values()) == 51
    found, _ = groups(tmp_path / "store", 0.999999)
    assert max(map(len, found)) == 19_950


def test_a_pile_of_near_equal_vectors_makes_few_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a million pairs, of which no more are scored than it takes to connect the rows."""
    rng = np.random.default_rng(0)
    vectors = (np.ones((1000, 8)) + 1e-3 * rng.standard_normal((1000, 8))).astype("f4")
    make_store(tmp_path / "store", vectors)
    scored = []
    exact = tiles.score_pairs

    def counted(*given: Any) -> Any:
        scored.append(len(given[2]))
        return exact(*given)

    monkeypatch.setattr(tiles, "score_pairs", counted)
    monkeypatch.setattr(pair_recall, "SAMPLE", 0)
    found, recall = groups(tmp_path / "store", 0.999)
    assert [len(own) for own in found] == [1000]
    assert sum(scored) < 4000
    assert recall.rows == 0


# --- what is asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threshold", "metric", "want"),
    [
        (None, "cosine", 0.97),
        (None, "jaccard", 0.97),
        (0.5, "cosine", 0.5),
        (1.0, "cosine", 1.0),
        (-3.0, "inner_product", -3.0),
        (0.0, "l2", 0.0),
        (None, "l2", "largest distance"),
        (None, "inner_product", "smallest inner product"),
        (1.01, "cosine", "at most 1"),
        (0.0, "jaccard", "above 0"),
        (-1.0, "l2", "largest dist"),
        (float("nan"), "l2", "must be a number"),
        (float("inf"), "inner_product", "a number"),
    ],
)
def test_a_threshold_means_what_the_metric_does(
    threshold: float | None, metric: str, want: float | str
) -> None:
    if isinstance(want, float):
        assert asked_threshold(threshold, metric) == want
    else:
        with pytest.raises(RequestError, match=want):
            asked_threshold(threshold, metric)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of piles and clusters."""
    root = tmp_path_factory.mktemp("copies")
    make_store(root / "store", piled(6), options=IVF)
    return root


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def by_group(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["group"], []).append(row)
    return [found[number] for number in range(1, len(found) + 1)]


def test_the_command_writes_groups_in_every_format(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["duplicates", "--store", str(place / "store")]
    page = tmp_path / "page.html"
    assert main([*given, "--output", str(tmp_path / "a.parquet"), "--html", str(page)]) == 0
    told = capsys.readouterr()
    assert not told.out
    rows = rows_of(tmp_path / "a.parquet")
    expected, _ = groups(place / "store", 0.97)
    assert {frozenset(row["id"] for row in own) for own in by_group(rows)} == expected
    copies = sum(not row["keep"] for row in rows)
    assert told.err.splitlines()[-1] == (
        f"{len(expected):,} groups of {len(rows):,} pictures, {copies:,} of them copies of others "
        f"(3 same file): {tmp_path / 'a.parquet'}, {page}"
    )
    assert "recall of pairs 1.0000 (95% 1.000 to 1.000), of" in told.err
    sizes = [len({row["id"] for row in own}) for own in by_group(rows)]
    assert sizes == sorted(sizes, reverse=True)
    for own in by_group(rows):
        assert [row["keep"] for row in own] == [True] + [False] * (len(own) - 1)
        assert {row["copy_of"] for row in own[1:]} == {own[0]["uri"]}
        assert own[0]["copy_of"] is None
        assert own[0]["score"] == pytest.approx(1)
    text = page.read_text()
    assert text.count("<section") == len(expected)
    assert f"group 1: {len(by_group(rows)[0])} pictures" in text
    assert "more are in the output file" in text

    assert main([*given, "--output", str(tmp_path / "a.jsonl"), "--json"]) == 0
    told = capsys.readouterr()
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == rows
    facts = json.loads(told.out)
    assert (facts["groups"], facts["pictures"], facts["copies"]) == (
        len(expected),
        len(rows),
        copies,
    )
    assert facts["relations"] == {"same file": 3}
    assert facts["recall"]["recall"] == 1

    assert main([*given, "--output", str(tmp_path / "a.csv")]) == 0
    nulls = csv.ConvertOptions(strings_can_be_null=True)
    read = csv.read_csv(tmp_path / "a.csv", convert_options=nulls)
    assert read["uri"].to_pylist() == [row["uri"] for row in rows]
    assert read["keep"].to_pylist() == [row["keep"] for row in rows]


def test_names_of_the_same_bytes_are_a_group(place: Path, tmp_path: Path) -> None:
    """Rows 1 and 3 have other names; at a threshold that nothing else reaches, only these."""
    output = tmp_path / "a.parquet"
    assert (
        main(
            [
                "duplicates",
                "--store",
                str(place / "store"),
                "--threshold",
                "1",
                "--within",
                "uri",
                "--output",
                str(output),
            ]
        )
        == 0
    )
    found = by_group(rows_of(output))
    assert [[row["uri"] for row in own] for own in found] == [
        ["/a", "/b", "/pictures/1.png"],
        ["/c", "/pictures/3.png"],
    ]
    assert {row["relation"] for own in found for row in own[1:]} == {"same file"}


def test_workers_find_what_one_process_does(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, more tasks than one, and scratch that is kept till the end."""
    from lookalike.pipelines import tasks

    monkeypatch.setattr(joining, "TASK_ROWS", 200)
    monkeypatch.setattr(tasks, "_WORTH_A_PROCESS", 100)
    config, scratch = tmp_path / "config.yaml", tmp_path / "scratch"
    scratch.mkdir()
    found = []
    for workers in (1, 2):
        config.write_text(f"runner: {{workers: {workers}}}\n")
        output = tmp_path / f"{workers}.parquet"
        assert (
            main(
                [
                    "duplicates",
                    "--store",
                    str(place / "store"),
                    "--config",
                    str(config),
                    "--scratch",
                    str(scratch),
                    "--output",
                    str(output),
                ]
            )
            == 0
        )
        found.append(rows_of(output))
    assert found[0] == found[1]
    assert list(scratch.rglob("*.json")) == []


def test_a_job_that_was_stopped_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a place of scratch: what is done is not done again, and the groups are the same."""
    from lookalike.pipelines import duplicates

    scratch, output = tmp_path / "scratch", tmp_path / "a.parquet"
    scratch.mkdir()
    given = [
        "duplicates",
        "--store",
        str(place / "store"),
        "--scratch",
        str(scratch),
        "--output",
        str(output),
    ]

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(duplicates, "components_of", stop)
        assert main(given) == 1
    assert not output.exists()
    kept = {path: path.stat().st_mtime_ns for path in scratch.rglob("joined/*")}
    assert kept

    def no_more(*_: Any) -> None:
        raise AssertionError("done already")

    with monkeypatch.context() as patch:
        patch.setattr(joining, "links_of", no_more)
        assert main(given) == 0
    expected, _ = groups(place / "store", 0.97)
    assert {frozenset(row["id"] for row in own) for own in by_group(rows_of(output))} == expected


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_small_stores(rows: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of five rows, all but so many deleted."""
    store, output, page = tmp_path / "store", tmp_path / "a.parquet", tmp_path / "page.html"
    ids, _, manifest = make_store(store, np.ones((5, 4), "f4"), files=2)
    record = write_tombstones(open_store(store), "snapshots/one/dead.npy", ids[: 5 - rows])
    manifest["files"].append({**record.to_json(), "kind": "tombstones"})
    publishing.publish(open_store(store), {**manifest, "name": "two"})
    assert (
        main(["duplicates", "--store", str(store), "--output", str(output), "--html", str(page)])
        == 0
    )
    told = capsys.readouterr().err.splitlines()[-1]
    found = rows_of(output)
    copies = [row for row in found if row["relation"] != "same file"]
    assert len({row["id"] for row in copies}) == (2 if rows == 2 else 0)
    assert told.startswith("1 group of 3 pictures, 2" if rows == 2 else "0 groups of 0 pictures, 0")
    assert ("no near-copies found" in page.read_text()) == (rows < 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give --output FILE or --html PAGE"),
        ("--output {0}/a.txt", "the name must end in .parquet, .csv, .jsonl"),
        ("--output {0}/none/a.csv", "no such folder"),
        ("--output {0}/a.csv --threshold 2", "at most 1, as the store's metric is cosine"),
        ("--output {0}/a.csv --within colour", "--within: there is no column 'colour'"),
        ("--output {0}/a.csv --scratch {0}/none", "no such folder; make it first"),
    ],
)
def test_wrong_requests_end_with_status_2(
    arguments: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments.format(place).split()
    assert main(["duplicates", "--store", str(place / "store"), *given]) == 2
    assert message in capsys.readouterr().err
    assert not (place / "a.csv").exists()
