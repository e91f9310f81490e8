from __future__ import annotations

import contextlib
import datetime
import re
import sqlite3
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.store.matching import evaluate, matching_ids
from lookalike.store.objects import open_store
from lookalike.store.steps import steps_of
from lookalike.store.where import (
    Both,
    Column,
    Comparison,
    Either,
    In,
    IsNull,
    Like,
    Literal,
    Not,
    columns_of,
    parse,
)

LABELS = ["cat", "dog", "it's", None, "Cat", "c_t", "", "naïve\ncat"]
ROWS = [
    {"label": label, "width": width, "score": score, "good": good}
    for label in LABELS
    for width in (None, 0, 400, 500, 501)
    for score in (None, -1.5, 0.0, 0.25)
    for good in (None, True, False)
]
COLUMNS = {
    "label": pa.array([row["label"] for row in ROWS], pa.string()),
    "width": pa.array([row["width"] for row in ROWS], pa.int32()),
    "score": pa.array([row["score"] for row in ROWS], pa.float64()),
    "good": pa.array([row["good"] for row in ROWS], pa.bool_()),
}


@pytest.fixture(scope="module")
def database():
    base = sqlite3.connect(":memory:")
    base.execute("pragma case_sensitive_like = on")
    base.execute("create table t (row integer, label text, width integer, score real, good int)")
    base.executemany(
        "insert into t values (?, ?, ?, ?, ?)",
        [(i, *row.values()) for i, row in enumerate(ROWS)],
    )
    yield base
    base.close()


def matching(where):
    mask = evaluate(parse(where), COLUMNS).to_pylist()
    return [row for row, one in enumerate(mask) if one]


CONDITIONS = [
    "label = 'cat'",
    "label <> 'cat'",
    "label = 'it''s'",
    "label in ('cat', 'dog')",
    "label not in ('cat', 'dog')",
    "label is null",
    "label is not null",
    "label like 'c%t'",
    "label like 'c_t'",
    "label not like '%a%'",
    "label like '%'",
    "width > 400 and width <= 500",
    "width = 500.0",
    "width < 400.5",
    "width in (0, 500, 7.5)",
    "width not in (0, 9999999999999)",
    "500 <= width",
    "width > score",
    "score = -1.5 or score >= .25",
    "score in (0, 2.5e-1)",
    "good and not width = 400",
    "good = false or label = 'dog'",
    "not (good or width > 400)",
    "not not good",
    "label < 'd' and (score is null or width is not null)",
    "NOT good AND Label_IS_no_keyword is null".replace("Label_IS_no_keyword", "label"),
    "\"label\" = 'cat'",
]


@pytest.mark.parametrize("where", CONDITIONS)
def test_conditions_mean_what_they_mean_in_sql(where, database):
    expected = [row for (row,) in database.execute(f"select row from t where {where} order by row")]
    assert matching(where) == expected
    assert 0 < len(expected) < len(ROWS)


COMPARED = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])
SIMPLE = st.one_of(
    st.builds("width {} {}".format, COMPARED, st.integers(-1, 502)),
    st.builds("{1} {0} width".format, COMPARED, st.sampled_from([400, 500.5, -3])),
    st.builds("score {} {}".format, COMPARED, st.sampled_from([-1.5, 0, 0.25, 1e3])),
    st.builds("label {} {}".format, COMPARED, st.sampled_from(["'cat'", "'it''s'", "''"])),
    st.builds(
        "label {} '{}'".format,
        st.sampled_from(["like", "not like"]),
        st.text(st.sampled_from("cat%_. ïn"), max_size=5),
    ),
    st.builds(
        "{} {}".format,
        st.sampled_from(["label", "width", "score", "good"]),
        st.sampled_from(["is null", "is not null"]),
    ),
    st.sampled_from(["good", "good = false", "width in (400, 501)", "label not in ('', 'dog')"]),
)
NESTED = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
        st.builds("not ({})".format, inner),
        st.builds("{} or {}".format, SIMPLE, SIMPLE),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(where=NESTED)
def test_any_condition_means_what_it_means_in_sql(where):
    base = sqlite3.connect(":memory:")
    base.execute("pragma case_sensitive_like = on")
    base.execute("create table t (row integer, label text, width integer, score real, good int)")
    base.executemany(
        "insert into t values (?, ?, ?, ?, ?)",
        [(i, *row.values()) for i, row in enumerate(ROWS)],
    )
    expected = [row for (row,) in base.execute(f"select row from t where {where} order by row")]
    base.close()
    assert matching(where) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        st.sampled_from("abz_ '\"()=<>!,.%5\\-\n\téand or not in is null like true"), max_size=30
    )
)
def test_any_text_is_a_condition_or_a_clear_refusal(text):
    with contextlib.suppress(RequestError):
        columns_of(parse(text))


def test_the_tree():
    found = parse('not a = 1 and b in (\'x\', 2.5, true) or "odd ""name" is not null or c')
    assert found == Either(
        (
            Both(
                (
                    Not(Comparison(Column("a"), "=", Literal(1))),
                    In(Column("b"), ("x", 2.5, True)),
                )
            ),
            Not(IsNull(Column('odd "name'))),
            Comparison(Column("c"), "=", Literal(True)),
        )
    )
    assert columns_of(found) == {"a", "b", "c", 'odd "name'}
    assert parse("x not like 'a%'") == Not(Like(Column("x"), "a%"))
    assert parse("5<x") == Comparison(Literal(5), "<", Column("x"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "where is empty"),
        ("  ", "where is empty"),
        ("width >", "at character 8: expected a column or a value, found the end"),
        ("width > 5 5", "at character 11: expected and, or, or the end, found '5'"),
        ("width ! 5", "at character 7: '!' means nothing here"),
        ("label = 'cat", "at character 9: the ' has no end"),
        ('"label = 3', 'at character 1: the " has no end'),
        ("(width > 5", r"at character 11: expected \), found the end"),
        ("width > 5)", r"at character 10: expected and, or, or the end, found '\)'"),
        ("label in 'cat'", r"at character 10: expected \(, found 'cat'"),
        ("label in ()", r"at character 11: expected a value, found '\)'"),
        ("label not 5", "at character 11: expected in or like, found '5'"),
        ("label like 5", "at character 12: expected a pattern in single quotes"),
        ("label is 5", "at character 10: expected null, found '5'"),
        ("label = null", "at character 9: nothing equals null; ask: is null"),
        ("1 = 1", "at character 1: a comparison needs a column"),
        ("'cat'", "at character 6: expected an operator, found the end"),
        ("width > and", "at character 9: expected a column or a value, found 'and'"),
        ("(" * 500 + "good" + ")" * 500, "at character 101: more than 100 levels deep"),
        ("not " * 5000 + "good", "more than 100 levels deep"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(where, message):
    with pytest.raises(RequestError, match=message):
        parse(where)


def test_many_alternatives_need_no_depth():
    where = " or ".join(f"width = {i}" for i in range(3000))
    assert len(matching(where)) == sum(row["width"] in range(3000) for row in ROWS)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            "label = 5",
            r"column label \(string\) cannot be compared with the number 5; it takes text",
        ),
        (
            "width = '5'",
            r"column width \(int32\) cannot be compared with the text '5'; .* a number",
        ),
        ("width = true", r"cannot be compared with true; it takes a number"),
        (
            "good = 1",
            r"column good \(bool\) cannot be compared with the number 1; .* true or false",
        ),
        ("width", r"column width \(int32\) cannot be compared with true"),
        ("width like '5'", r"column width \(int32\) cannot be matched with like"),
        ("label = width", r"column label \(string\) cannot be compared with width \(int32\)"),
        ("label in ('a', 3)", "column label .* the number 3"),
    ],
)
def test_types_that_do_not_compare_are_refused(where, message):
    with pytest.raises(RequestError, match=message):
        matching(where)


@pytest.mark.parametrize(
    ("kind", "values", "where", "expected"),
    [
        (pa.float32(), [0.1, 0.2], "x = 0.1", [0]),
        (pa.float32(), [0.1, -0.0], "x in (0.1, 0)", [0, 1]),
        (pa.float16(), [np.float16(0.1), np.float16(2)], "x <= 0.1", [0]),
        (pa.int8(), [5, 100], "x < 300", [0, 1]),
        (pa.int8(), [5, 100], "x in (300, 5)", [0]),
        (pa.int64(), [2**53 + 1, 2**53], "x = 9007199254740993", [0]),
        (pa.int64(), [2**53 + 1, 2**53], "x in (9007199254740993)", [0]),
        (pa.uint64(), [2**64 - 1, 1], "x > -1", [0, 1]),
        (pa.uint64(), [2**64 - 1, 1], "x = 18446744073709551615", [0]),
        (pa.int64(), [1, 2], "x < 100000000000000000000", [0, 1]),
        (pa.decimal128(6, 2), [1, 2], "x > 1.5", [1]),
        (pa.large_string(), ["a", "b"], "x = 'a'", [0]),
        (pa.dictionary(pa.int8(), pa.string()), ["a", "b"], "x like 'b%'", [1]),
        (
            pa.date32(),
            [datetime.date(2024, 1, 2), datetime.date(2025, 1, 1)],
            "x < '2024-12-31'",
            [0],
        ),
        (
            pa.timestamp("us"),
            [datetime.datetime(2024, 1, 2, 3), None],
            "x >= '2024-01-02T03:00:00'",
            [0],
        ),
        (pa.list_(pa.int8()), [[1], None], "x is null", [1]),
        (pa.null(), [None, None], "x = 5 or x like 'a' or x in (1)", []),
        (pa.null(), [None, None], "x is null", [0, 1]),
    ],
)
def test_columns_of_every_type(kind, values, where, expected):
    mask = evaluate(parse(where), {"x": pa.array(values, kind)})
    assert [row for row, one in enumerate(mask.to_pylist()) if one] == expected


def test_dates_and_lists_say_what_they_take():
    columns = {"x": pa.array([datetime.date(2024, 1, 2)]), "y": pa.array([[1]])}
    with pytest.raises(RequestError, match=r"column x holds date32.*, 'soon' is none; write it as"):
        evaluate(parse("x > 'soon'"), columns)
    with pytest.raises(RequestError, match=r"column y \(list.*it takes only is null"):
        evaluate(parse("y = 1"), columns)


@pytest.fixture
def files(tmp_path):
    """Two files of a store, the second without `label`."""
    first = pa.table(
        {
            "uri": [f"/a/{i}.png" for i in range(10)],
            "width": range(10),
            "label": ["cat", None] * 5,
            "embedding": [[0.0]] * 10,
        }
    )
    second = pa.table({"uri": ["/b/0.png", "/b/1.png"], "width": [3, 700], "Size": [1, 2]})
    for name, table in (("first", first), ("second", second)):
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=4)
    return open_store(tmp_path), {9: "second.parquet", 2: "first.parquet"}


def test_ids_come_from_every_file_in_order(files):
    found = matching_ids(*files, "width >= 3 and width < 9 or uri like '/b/%'")
    assert found.dtype == np.int64
    assert found.tolist() == [*((2 << 32) + row for row in range(3, 9)), 9 << 32, (9 << 32) + 1]
    assert matching_ids(*files, "width > 1000").tolist() == []


def test_a_column_that_a_file_lacks_is_null_there(files):
    assert matching_ids(*files, "label = 'cat'").tolist() == [
        (2 << 32) + i for i in range(0, 10, 2)
    ]
    assert ((matching_ids(*files, "label is null") >> 32) == 9).sum() == 2
    assert matching_ids(*files, '"Size" = 2').tolist() == [(9 << 32) + 1]


def test_an_unknown_column_is_refused_with_those_there_are(files):
    with pytest.raises(
        RequestError,
        match=re.escape(
            "there is no column size, did you mean Size; the columns are Size, label, uri, width"
        ),
    ):
        matching_ids(*files, "size = 2")
    with pytest.raises(RequestError, match="there is no column embedding; the columns are"):
        matching_ids(*files, "embedding is null")


def test_a_damaged_file_is_named(files):
    store, names = files
    store.local("first.parquet").write_bytes(b"nothing")
    with pytest.raises(RequestError, match=r"first\.parquet: cannot be filtered"):
        matching_ids(store, names, "width = 3")


# --- times, decimals, bytes: each against values written out ----------------------------------

UTC = datetime.timezone.utc
HOURS = [datetime.datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in range(5)]
ZONED = {
    "berlin": pa.array(HOURS, pa.timestamp("us", "Europe/Berlin")),
    "york": pa.array(HOURS, pa.timestamp("s", "America/New_York")),
    "fixed": pa.array(HOURS, pa.timestamp("ns", "+05:30")),
    "utc": pa.array(HOURS, pa.timestamp("ms", "UTC")),
    "naive": pa.array([one.replace(tzinfo=None) for one in HOURS], pa.timestamp("us")),
    "day": pa.array([datetime.date(2024, 1, 1)] * 5),
}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("berlin > '2024-01-01T02:00:00'", [2, 3, 4]),
        ("berlin = '2024-01-01 02:00'", [1]),
        ("berlin >= '2024-01-01T02:00:00Z'", [2, 3, 4]),
        ("berlin = '2024-01-01T02:00:00+01:00'", [1]),
        ("berlin = '2023-12-31T22:30:00-03:30'", [2]),
        ("berlin >= '2024-01-01'", [0, 1, 2, 3, 4]),
        ("berlin < '2024-01-02'", [0, 1, 2, 3, 4]),
        ("york < '2024-01-01'", [0, 1, 2, 3, 4]),
        ("york = '2023-12-31T20:00:00'", [1]),
        ("fixed = '2024-01-01T05:30'", [0]),
        ("fixed in ('2024-01-01T07:30:00', '2024-01-01T01:00:00z')", [1, 2]),
        ("utc > '2024-01-01T02:59:59.999999999'", [3, 4]),
        ("utc = '2024-01-01T02:59:59.999999999'", []),
        ("utc != '2024-01-01T03:00:00+0000'", [0, 1, 2, 4]),
        ("'2024-01-01T03:00:00Z' <= berlin", [3, 4]),
        ("berlin = york and york = fixed and fixed = utc", [0, 1, 2, 3, 4]),
        ("naive >= '2024-01-01T03:00:00'", [3, 4]),
        ("naive < '9999-12-31' and fixed < '9999-12-31' and fixed > '0001-01-01'", [0, 1, 2, 3, 4]),
        ("day < berlin", [0, 1, 2, 3, 4]),
        ("day > york", [0, 1, 2, 3, 4]),
        ("day < naive", [1, 2, 3, 4]),
        ("day < '2024-01-01T00:00:01'", [0, 1, 2, 3, 4]),
        ("day = '2024-01-01T12:00'", []),
    ],
)
def test_times_with_zones(where, expected):
    mask = evaluate(parse(where), ZONED)
    assert [row for row, one in enumerate(mask.to_pylist()) if one] == expected


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("naive > '2024-01-01T00:00:00Z'", "naive .* has no time zone, and .* names one; write it"),
        ("day = '2024-01-01T00:00+01:00'", "day .* has no time zone"),
        ("naive < berlin", "naive .* berlin .*: only one of them has a time zone"),
        ("berlin > '2024-10-27T02:30:00'", "not one moment there; write it with an offset"),
        ("berlin > '2024-03-31T02:30:00'", "not one moment there; write it with an offset"),
        ("berlin > 'soon'", "berlin holds timestamp.*'soon' is none; .*with an offset 2024-12-31T"),
        ("berlin > '2024-02-30'", "'2024-02-30' is none"),
        ("berlin > '2024-01-01T24:00'", "is none"),
        ("berlin > '2024-01-01T00:00 Europe/Paris'", "is none"),
        ("berlin > 1704067200", "berlin .* a date or time in single quotes"),
    ],
)
def test_what_is_no_moment_is_refused(where, message):
    with pytest.raises(RequestError, match=message):
        evaluate(parse(where), ZONED)


@pytest.mark.parametrize(
    ("kind", "values", "where", "expected"),
    [
        (pa.timestamp("ns"), [1, 2, None], "x > '1970-01-01T00:00:00.000000001'", [1]),
        (pa.timestamp("ns"), [1, 2], "x = '1970-01-01T00:00:00.000000002'", [1]),
        (pa.timestamp("us"), [0, 1], "x >= '1970-01-01T00:00:00.0000001'", [1]),
        (pa.timestamp("us"), [-1, 0], "x < '1969-12-31T23:59:59.9999995'", [0]),
        (pa.time64("us"), [datetime.time(12, 30), None], "x <= '12:30'", [0]),
        (pa.time32("s"), [datetime.time(12, 30)], "x > '12:29:59.9'", [0]),
        (pa.duration("us"), [1_500_000, 10], "x = 1.5", [0]),
        (pa.duration("s"), [1, 2], "x > 1.5", [1]),
        (pa.decimal128(38, 2), [10, 11], "x in (10, 11.0, 1e999)", [0, 1]),
        (pa.decimal128(20, 0), [2**63, 2**63 + 1], f"x = {2**63 + 1}", [1]),
        (pa.decimal128(4, 2), [1, 2], "x < 1.005", [0]),
        (pa.int64(), [2**53, 2**53 + 1], "x > 9007199254740992.0", [1]),
        (pa.int8(), [1, 2], "x > -1e999 and x < 1e999", [0, 1]),
        (pa.binary(), [b"\x00\xff", b"", None], "x = '00FF' or x = ''", [0, 1]),
        (pa.binary(2), [b"ab", b"cd"], "x in ('6364', '61')", [1]),
        (pa.binary(1), [b"a", b"b"], "x > '61'", [1]),
    ],
)
def test_numbers_between_steps_and_bytes(kind, values, where, expected):
    mask = evaluate(parse(where), {"x": pa.array(values, kind)})
    assert [row for row, one in enumerate(mask.to_pylist()) if one] == expected


@given(
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.fractions(min_value=-(2**65), max_value=2**65, max_denominator=3),
)
def test_steps_compare_as_fractions_do(values, operator, exact):
    by_python = {
        "=": "__eq__",
        "!=": "__ne__",
        "<": "__lt__",
        "<=": "__le__",
        ">": "__gt__",
        ">=": "__ge__",
    }[operator]
    found = steps_of(pa.array(values, pa.int64())).compare(operator, exact).to_pylist()
    assert found == [None if v is None else getattr(Fraction(v), by_python)(exact) for v in values]


@pytest.mark.parametrize(
    ("kind", "value", "where", "wanted"),
    [
        (pa.binary(), b"a", "x = 'zz'", "write it as hexadecimal digits"),
        (pa.binary(), b"a", "x like 'a%'", "it takes hexadecimal digits in single quotes"),
        (pa.duration("s"), 1, "x = '1 day'", "it takes a number of seconds"),
        (pa.time32("s"), datetime.time(1), "x = 'noon'", "write it as 23:59"),
        (pa.decimal128(4, 2), 1, "x = '1'", "it takes a number"),
        (pa.struct([("a", pa.int8())]), {"a": 1}, "x = 1", "only is null and is not null"),
    ],
)
def test_every_type_says_what_it_takes(kind, value, where, wanted):
    with pytest.raises(RequestError, match=wanted):
        evaluate(parse(where), {"x": pa.array([value], kind)})
