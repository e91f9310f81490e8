"""Names of objects on S3: keys to the byte, options apart, references as URIs have them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.errors import RequestError
from lookalike.sources.containers import is_table, is_tar
from lookalike.store.s3_uri import S3Name, canonical, parse, resolve, split_options, without_dots

WHERE = "?endpoint_override=127.0.0.1:9&scheme=http"


@pytest.mark.parametrize(
    ("uri", "key", "name"),
    [
        ("s3://b", "", "s3://b"),
        ("s3://b/", "", "s3://b"),
        ("s3://b/a.png", "a.png", "s3://b/a.png"),
        ("s3://b//a.png", "/a.png", "s3://b//a.png"),
        ("s3://b/p//a.png", "p//a.png", "s3://b/p//a.png"),
        ("s3://b/p/./a.png", "p/./a.png", "s3://b/p/./a.png"),
        ("s3://b/p/../a.png", "p/../a.png", "s3://b/p/../a.png"),
        ("s3://b/p/", "p/", "s3://b/p/"),
        ("s3://b/a b+c.png", "a b+c.png", "s3://b/a%20b+c.png"),
        ("s3://b/a%20b%2Bc.png", "a b+c.png", "s3://b/a%20b+c.png"),
        ("s3://b/100%.png", "100%.png", "s3://b/100%25.png"),
        ("s3://b/100%25.png", "100%.png", "s3://b/100%25.png"),
        ("s3://b/a#1?.png", "a#1?.png", "s3://b/a%231%3F.png"),
        ("s3://b/é.png", "é.png", "s3://b/%C3%A9.png"),
        ("s3://b/a%0Ab.png", "a\nb.png", "s3://b/a%0Ab.png"),
        ("S3://b/a.png?region=x", "a.png", "s3://b/a.png?region=x"),
        ("s3://b/a.png?", "a.png", "s3://b/a.png"),
        ("s3://k:s%2F@b/a.png", "a.png", "s3://k:s%2F@b/a.png"),
    ],
)
def test_keys_in_uris(uri: str, key: str, name: str) -> None:
    found = parse(uri)
    assert (found.bucket, found.key, found.uri) == ("b", key, name)
    assert canonical(name) == name
    assert "k:s" not in found.shown
    assert "region" not in found.shown


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.sampled_from(["", WHERE]))
def test_every_key_comes_back_from_its_uri(key: str, options: str) -> None:
    name = S3Name("b", key, options)
    assert parse(name.uri) == name
    assert name.uri.isascii()
    assert name.uri.isprintable()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3:///a.png", r"names no bucket; write s3://bucket/key"),
        ("s3://b/%E9.png", r"^s3://b/%E9.png: a key of S3 is UTF-8, this is none"),
        ("s3://b/a?regoin=x", r"^s3://b/a: unknown option 'regoin' after \?; known: .*%3F"),
    ],
)
def test_names_of_nothing(uri: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse(uri)


def test_options_stand_after_a_mark_and_a_name() -> None:
    assert split_options("s3://b/what?.png?region=x") == ("s3://b/what?.png", "?region=x")
    assert split_options("gs://b/a.csv") == ("gs://b/a.csv", "")
    assert is_tar(f"s3://b/a.TAR.gz{WHERE}")
    assert is_table(f"s3://b/a.parquet{WHERE}")
    assert not is_table("s3://b/a.png?region=x.parquet")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("x.png", "d/e/x.png"),
        ("./x.png", "d/e/x.png"),
        ("sub/x.png", "d/e/sub/x.png"),
        ("sub/../x.png", "d/e/x.png"),
        ("sub/./x.png", "d/e/sub/x.png"),
        ("../x.png", "d/x.png"),
        ("../../x.png", "x.png"),
        ("../../../x.png", "x.png"),
        ("/x.png", "x.png"),
        ("/a/../x.png", "x.png"),
        ("/../x.png", "x.png"),
        ("//x.png", "/x.png"),
        ("a//x.png", "d/e/a//x.png"),
        ("%2E%2E/x.png", "d/e/../x.png"),
        ("a b%20c.png", "d/e/a b c.png"),
        ("50%.png", "d/e/50%.png"),
        ("what?.png", "d/e/what?.png"),
        ("a#b.png", "d/e/a#b.png"),
        ("s3://b/x.png", "x.png"),
        ("s3://b/a//../x.png", "a//../x.png"),
    ],
)
def test_lines_of_a_manifest_on_s3(line: str, key: str) -> None:
    assert resolve(f"s3://b/d/e/m.csv{WHERE}", line) == S3Name("b", key, WHERE).uri


def test_lines_with_places_of_their_own() -> None:
    base = f"s3://b/d/m.csv{WHERE}"
    assert resolve(base, "s3://other/x y.png") == f"s3://other/x%20y.png{WHERE}"
    assert resolve(base, "s3://other/x.png?region=eu") == "s3://other/x.png?region=eu"
    assert resolve(base, "gs://other/x y.png") == "gs://other/x y.png"
    assert resolve("gs://b/d/m.csv", "../x y.png") == "gs://b/x y.png"
    assert (
        resolve("gs://b/d/m.csv?retry_limit_seconds=3", "x") == "gs://b/d/x?retry_limit_seconds=3"
    )
    slashes = "?endpoint_override=http://127.0.0.1:9/"
    assert resolve(f"s3://b/d/m.csv{slashes}", "x.png") == f"s3://b/d/x.png{slashes}"


def test_dots_lead_where_they_do_in_uris() -> None:
    """The examples of RFC 3986, 5.2.4 and 5.4, without their first /."""
    for path, expected in {
        "a/b/c/./../../g": "a/g",
        "mid/content=5/../6": "mid/6",
        "b/c/.": "b/c/",
        "b/c/..": "b/",
        "b/c/../../../g": "g",
        "b/c/g.": "b/c/g.",
        "b/c/..g": "b/c/..g",
        "a//../b": "a/b",
        "../": "",
        "": "",
    }.items():
        assert without_dots(path) == expected, path
