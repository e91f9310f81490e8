"""JSON that strict parsers read."""

from __future__ import annotations

import json
import math
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.json_text import plain, to_json
from lookalike.pipelines.answers import to_file
from lookalike.pipelines.cli import main
from lookalike.report.results import QueryResult
from lookalike.search.neighbour import Neighbour
from lookalike.store import snapshot
from lookalike.store.durable import write_json
from lookalike.store.objects import open_store


def strict(text):
    """What a parser makes of it that takes RFC 8259 at its word; text or bytes."""

    def refuse(word):
        raise ValueError(f"no JSON: {word}")

    found = json.loads(text, parse_constant=refuse)
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "null"),
        (-math.inf, "null"),
        ([1.5, math.inf, "NaN"], '[1.5, null, "NaN"]'),
        ({"a": {"b": (math.nan, None, True)}}, '{"a": {"b": [null, null, true]}}'),
        (np.float32("nan"), "null"),
        (np.float32(0.5), "0.5"),
        (np.longdouble("inf"), "null"),
        (np.int64(7), "7"),
        (np.bool_(True), "true"),
        (np.array([[1.0, np.nan]]), "[[1.0, null]]"),
        (np.array(["2024-01-02"], "datetime64[D]"), '["2024-01-02"]'),
        ({math.nan: 1, 2: 2, 0.5: 3, True: 4}, '{"null": 1, "2": 2, "0.5": 3, "true": 4}'),
        ({1.5}, "[1.5]"),
        (date(2024, 1, 2), '"2024-01-02"'),
        ("a\udc80", '"a\\\\udc80"'),
        ({"\udc80": "é"}, '{"\\\\udc80": "\\u00e9"}'),
        (10**400, "1" + "0" * 400),
    ],
)
def test_values(value, text):
    assert to_json(value) == text
    strict(to_json(value))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_VALUES)
def test_whatever_it_is_strict_parsers_read_it(value):
    assert strict(to_json(value)) == plain(value)
    assert strict(to_json(value, ascii_only=False).encode()) == plain(value)


def test_what_has_no_nan_is_as_python_writes_it():
    value = {"b": [1, 2.5, "é", None], "a": {"x": True}}
    assert to_json(value, indent=1) == json.dumps(value, indent=1)
    assert to_json(value, sort_keys=True) == json.dumps(value, sort_keys=True)


class _Searcher:
    metadata_schema = pa.schema([("f", pa.float64())])


def test_json_lines_of_answers(tmp_path):
    near = Neighbour("/q", 1, "/a", math.inf, 3, (), {"f": math.nan, "deep": [1.0, -math.inf]})
    with to_file(tmp_path / "a.jsonl", _Searcher()) as sink:
        sink(QueryResult("/q", (near,)))
    (line,) = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert strict(line) == {
        "query_uri": "/q",
        "rank": 1,
        "uri": "/a",
        "score": None,
        "id": 3,
        "duplicates": [],
        "f": None,
        "deep": [1.0, None],
    }


def test_files_of_a_store(tmp_path):
    write_json(tmp_path, "one.json", {"ratio": math.nan})
    assert strict((tmp_path / "one.json").read_bytes()) == {"ratio": None}


def test_a_manifest_is_what_it_says_though_a_number_was_none(tmp_path):
    snapshot.write_manifest(
        open_store(tmp_path), {"name": "one", "files": [], "fitness": {"x": math.inf}}
    )
    found = strict((tmp_path / "snapshots/one/manifest.json").read_bytes())
    assert found["fitness"] == {"x": None}
    assert list(snapshot.check_manifest(found)) == []


def write_table(path, rows, first=0):
    """Vectors with metadata that JSON has no words for."""
    odd = [math.nan, math.inf, -math.inf, None, 1.5]
    columns = {
        "uri": [f"/group {i % 2}/{first + i}" for i in range(rows)],
        "embedding": pa.array(
            np.random.default_rng(first).standard_normal((rows, 4)).tolist(), pa.list_(pa.float32())
        ),
        "f": pa.array([odd[i % 5] for i in range(rows)], pa.float64()),
        "h": pa.array([np.float16(odd[i % 5] or 0) for i in range(rows)], pa.float16()),
    }
    pq.write_table(pa.table(columns), path)


def test_every_output_of_every_command(tmp_path, capsys):
    store, table, queries = tmp_path / "s", tmp_path / "v.parquet", tmp_path / "q.npy"
    np.save(queries, np.eye(4, dtype=np.float32))
    labels = tmp_path / "labels.csv"
    labels.write_text("uri,label\n" + "".join(f"/group {i % 2}/{i},{i % 2}\n" for i in range(10)))
    index = ["index", "--embeddings", str(table), "--json"]
    query = ["query", "--vectors", str(queries), "-k", "20"]

    def said(*arguments):
        capsys.readouterr()
        assert main([*arguments, "--store", str(store)]) == 0, arguments
        return capsys.readouterr().out

    for rows in (10, 12):
        write_table(table, rows)
        assert strict(said(*index))["new"]
    lines = [strict(line) for line in said(*query, "--json").splitlines()]
    assert [line["f"] for line in lines].count(None) >= 4 * 8
    assert {line["f"] for line in lines} == {None, 1.5}
    said(*query, "--output", str(tmp_path / "a.jsonl"))
    assert [strict(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()] == lines
    for arguments in (
        ["status"],
        ["verify"],
        ["evaluate", "--labels", str(labels)],
        ["gc", "--dry-run"],
        ["forget", "--uri", "/group 0/0", "--dry-run"],
        ["rollback"],
        ["gc"],
        ["forget", "--uri", "/group 0/0"],
    ):
        assert strict(said(*arguments, "--json")), arguments
    capsys.readouterr()
    assert main(["plan", "--rows", "500", "--dim", "4", "--json"]) == 0
    assert strict(capsys.readouterr().out)["vectors"] == 500
    files = [*store.rglob("*.json")]
    assert len(files) >= 3
    for path in files:
        strict(path.read_bytes())
