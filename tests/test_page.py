import base64
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lookalike.report import text
from lookalike.report.certificate import certificate_line
from lookalike.report.report import render_report
from lookalike.report.results import QueryResult, render_results
from lookalike.report.templates import data_uri
from lookalike.search.neighbour import Neighbour

HOSTILE = [
    '/d/"><script>alert(1)</script>.jpg',
    "/d/' onerror='alert(1).jpg",
    "/d/]]>--></style></title><img src=x>.jpg",
    "/d/&lt;b&gt;&amp;.jpg",
    "/d/line\nbreak\r\ttab\x00nul.jpg",
    "/d/photo\u202egpj.exe",
    "/d/not-utf8-\udcff\ud800.jpg",
    "/d/caf%C3%A9%20%FF.jpg",
    "/d/" + "n" * 300 + ".jpg",
    "javascript:alert(1)",
]
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "h1",
        "h2",
        "p",
        "dl",
        "div",
        "dt",
        "h3",
    ),
    *("dd", "section", "figure", "img", "figcaption", "span", "b", "i", "details", "summary", "ol"),
    *("ul", "li", "footer", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "line", "path", "polygon", "polyline"),
}
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "class", "style", "title", "alt", "src"),
    *("decoding", "role", "aria-label", "aria-labelledby", "id", "scope"),
    *("viewbox", "preserveaspectratio", "aria-hidden", "vector-effect", "x1", "x2", "y1", "y2"),
    *("d", "points"),
}
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would find: tags, attributes, text by the tag around it; checks nesting."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.texts, self.stack = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def values(self, tag, name):
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]

    def inside(self, tag):
        return [data for t, data in self.texts if t == tag]


def jpeg(color=(200, 30, 40)):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "JPEG")
    return buffer.getvalue()


def neighbour(uri, rank=1, score=0.5, **more):
    return Neighbour("/q.jpg", rank, uri, score, 7, **more)


def render(*results, thumbnail=lambda uri: None, title="t", **more):
    source = "".join(render_results(results, title=title, thumbnail=thumbnail, **more))
    source.encode("utf-8")  # what the caller writes
    return source


def assert_harmless(parsed):
    assert set(parsed.tags) <= TAGS
    assert {name for _, name, _ in parsed.attributes} <= ATTRIBUTES
    assert all(value.startswith("data:image/") for value in parsed.values("img", "src"))
    assert parsed.tags.count("style") == parsed.tags.count("title") == 1


strings = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=()), max_size=60),
    st.text("<>\"'&;/= \n\r\x00scriptonx-!", max_size=40),
)


@settings(max_examples=120, deadline=None)
@given(strings, strings, strings, st.dictionaries(strings, strings, max_size=3), strings)
def test_any_string_is_shown_as_text_and_nothing_else(query, uri, other, metadata, title):
    result = QueryResult(query, [neighbour(uri, duplicates=(other,), metadata=metadata)])
    failed = QueryResult(other, problem=uri)
    parsed = Page(
        render(result, failed, title=title, facts=[(other, query)], thumbnail=lambda _: jpeg())
    )
    assert_harmless(parsed)
    # Tags and attributes are those of the same page with plain strings: nothing came from a string.
    plain = QueryResult(
        "q",
        [
            neighbour(
                "u", duplicates=("d",), metadata=dict.fromkeys(map(str, range(len(metadata))), "v")
            )
        ],
    )
    same = Page(
        render(
            plain,
            QueryResult("d", problem="u" * bool(uri)),
            facts=[("a", "b")],
            thumbnail=lambda _: jpeg(),
        )
    )
    assert parsed.tags == same.tags
    assert [a[:2] for a in parsed.attributes] == [a[:2] for a in same.attributes]
    # And every string comes back from the page.
    assert parsed.values("h2", "title") == [text.visible(query), text.visible(other)]
    assert parsed.values("span", "title") == [text.visible(uri)]
    shown = {data for _, data in parsed.texts}
    assert {text.visible(s) for s in (query, uri, other, title) if s} <= shown


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_what_is_visible_hides_nothing_and_keeps_plain_text(string):
    shown = text.visible(string)
    shown.encode("utf-8")
    assert not any(c < " " or c in "\x7f\u202e\u2066\u200f" for c in shown)
    if all((c.isalnum() and c.isascii()) or c in "é海ب <>&'\"/" for c in string):
        assert shown == string


def test_a_right_to_left_override_cannot_disguise_a_name():
    assert text.visible("photo_\u202egpj.exe") == r"photo_\u202egpj.exe"


@given(st.text(max_size=400), st.integers(5, 80))
def test_shorten_keeps_both_ends_within_the_limit(string, limit):
    short = text.shorten(string, limit)
    assert len(short) <= limit
    if len(string) > limit:
        head, _, tail = short.rpartition("…")
        assert string.startswith(head)
        assert string.endswith(tail)
        assert head
        assert tail
    else:
        assert short == string


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/a/b/cat.jpg", "cat.jpg"),
        ("s3://bucket/caf%C3%A9%20noir.jpg", "café noir.jpg"),
        ("/a/%FF.jpg", "%FF.jpg"),  # not UTF-8: stays as listed
        ("vector:3", "vector:3"),
        ("/a/" + "x" * 300 + "-42.jpg", "x" * 26 + "…" + "x" * 10 + "-42.jpg"),
    ],
)
def test_short_names(uri, name):
    assert text.short_name(uri) == name


def test_thumbnails_are_data_uris_of_the_same_bytes():
    pictures = {"/q.jpg": jpeg((1, 2, 3)), "/n.jpg": jpeg((200, 100, 0))}
    parsed = Page(render(QueryResult("/q.jpg", [neighbour("/n.jpg")]), thumbnail=pictures.get))
    sources = parsed.values("img", "src")
    assert [base64.b64decode(s.partition("base64,")[2]) for s in sources] == list(pictures.values())
    assert all(s.startswith("data:image/jpeg;base64,") for s in sources)
    assert parsed.values("img", "alt") == ["query 1: q.jpg", "neighbour 1: n.jpg"]


def test_png_thumbnails_say_so_and_other_bytes_are_refused():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    assert data_uri(buffer.getvalue()).startswith("data:image/png;base64,iVBOR")
    with pytest.raises(ValueError, match="must be JPEG or PNG"):
        data_uri(b"<svg onload=alert(1)>")


def test_a_missing_thumbnail_leaves_a_placeholder_that_says_why():
    parsed = Page(render(QueryResult("/q.jpg", [neighbour("/n.jpg")])))
    assert "img" not in parsed.tags
    assert parsed.inside("div").count("file not readable now") == 2
    assert "neighbour 1: n.jpg: file not readable now" in parsed.values("div", "aria-label")


def test_the_page_fetches_nothing():
    source = render(QueryResult("/q.jpg", [neighbour("https://example.com/n.jpg")]))
    parsed = Page(source)
    policy = dict(
        zip(parsed.values("meta", "http-equiv"), parsed.values("meta", "content"), strict=False)
    )
    assert policy["Content-Security-Policy"] == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    )
    assert not {"script", "link", "a", "iframe"} & set(parsed.tags)
    style = "".join(parsed.inside("style"))
    assert "url(" not in style
    assert "@import" not in style


def test_rank_score_duplicates_and_metadata_are_shown():
    known = {"label": "cat", "year": 2021, "none": None}
    parsed = Page(
        render(
            QueryResult(
                "/q.jpg",
                [neighbour("/n.jpg", 3, 0.87654, duplicates=("/d1", "/d2"), metadata=known)],
            )
        )
    )
    assert parsed.inside("b") == ["3"]
    assert "0.877" in parsed.inside("span")
    assert parsed.values("i", "style") == ["width:87.7%"]
    assert "also at: 2 other places" in parsed.inside("summary")
    assert [data for data in parsed.inside("li") if data.strip()] == ["/d1", "/d2"]
    assert parsed.inside("dt") == ["label", "year"]
    assert parsed.inside("dd") == ["cat", "2021"]


@pytest.mark.parametrize(
    ("metric", "meaning", "bars"),
    [
        ("cosine", "score: cosine, 1 is identical", 1),
        ("l2", "score: distance, 0 is identical", 0),
        ("inner_product", "score: inner product, larger is closer", 0),
    ],
)
def test_the_metric_is_named(metric, meaning, bars):
    parsed = Page(
        render(
            QueryResult("/q.jpg", [neighbour("/n.jpg", score=12.5 if not bars else 1.0)]),
            metric=metric,
        )
    )
    assert meaning in parsed.inside("p")
    assert parsed.tags.count("i") == bars


def test_an_unknown_metric_is_refused_at_once():
    with pytest.raises(ValueError, match=r"metric must be one of cosine, .*, got 'cosin'"):
        render_results([], title="t", thumbnail=lambda _: None, metric="cosin")


def test_queries_without_answers_say_why():
    parsed = Page(render(QueryResult("/a.jpg", problem="truncated"), QueryResult("/b.jpg")))
    assert "not answered: truncated" in parsed.inside("p")
    assert "no neighbours found" in parsed.inside("p")


def test_queries_are_rendered_as_they_come():
    taken = []

    def results():
        for number in range(1000):
            taken.append(number)
            yield QueryResult(f"/{number}.jpg")

    pieces = render_results(results(), title="t", thumbnail=lambda _: None)
    seen = ""
    while "query 1" not in seen:
        seen += next(pieces)
    assert len(taken) == 1
    *_, foot = pieces
    assert "1,000 queries" in foot


FACTS = {
    "name": "20260102-030405-abcd",
    "created": "2026-01-02T03:04:05Z",
    "parent": "20260101-030405-aaaa",
    "metric": "cosine",
    "dim": 512,
    "model_fingerprint": "ab" * 32,
    "preprocessing_fingerprint": "cd" * 32,
    "counts": {
        "listed": 1234,
        "embedded": 1200,
        "unchanged": 10,
        "duplicate": 4,
        "rejected": 15,
        "ignored": 5,
        "removed": 3,
        "rejected_by_reason": {"empty": 4, "truncated": 11},
    },
    "features": [
        {
            "name": "low",
            "handle": "builtin:<x>",
            "weight": 1.0,
            "fingerprint": "ef" * 32,
            "info": {"dim": 512},
        }
    ],
    "projection": {"handle": "/m/<shop>", "inputs": 512, "dim": 128},
    "index": {"kind": "ivf_pq", "nlist": 1024, "code_bytes": 64, "template": "aa" * 32},
    "search": {"nprobe": 32, "rerank": 100},
    "certificate": {
        "k": 10,
        "recall": 0.9624,
        "low": 0.951,
        "high": 0.971,
        "queries": 500,
        "sweep": [
            {"nprobe": 1, "cost": 1000, "recall": 0.41, "low": 0.4, "high": 0.42},
            {"nprobe": 32, "cost": 32000, "recall": 0.9624},
        ],
    },
    "files": {
        "embedding": {"files": 2, "rows": 1200, "bytes": 2048},
        "index": {"files": 1, "rows": 0, "bytes": 10},
    },
    "before": {"counts": {"listed": 1190, "embedded": 1180}},
    "changes": {
        "previous": 1190,
        "unchanged": 1180,
        "changed": 7,
        "removed": 3,
        "added": 47,
        "renamed": 2,
        "rehashed": 1,
    },
    "samples": {
        "added": [{"uri": "/d/new.jpg", "status": "embedded"}],
        "removed": [{"uri": "/d/gone.jpg", "status": "removed"}],
        "renamed": [{"uri": "/d/to.jpg", "previous": "/d/<i>from.jpg"}],
        "rejected": [{"uri": "/d/<script>.jpg", "reason": "truncated", "detail": "cut & short"}],
    },
    "stages": {"scan": {"seconds": 2.0, "items": 1234, "rate": 617.0}, "train": {"seconds": 6.0}},
    "lists": {
        "lists": 1024,
        "median": 3,
        "max": 9,
        "imbalance": 1.25,
        "edges": [0, 5, 10],
        "counts": [900, 124],
    },
    "codes": {
        "edges": [0, 0.1, 0.2],
        "sample": {"rows": 500, "mean": 0.08, "p95": 0.15, "counts": [400, 100]},
        "fresh": {"rows": 20, "mean": 0.12, "p95": 0.19, "counts": [5, 15]},
    },
    "neighbourhoods": {
        "asked": 120,
        "fresh": 20,
        "living": 1200,
        "alike": "cosine of at least 0.98",
        "with_near_duplicates": 3,
        "share": 0.02,
        "group_count": 2,
        "groups": [{"size": 7, "members": [{"uri": "/d/new.jpg", "fresh": True}, {"uri": "/d/b"}]}],
        "outliers": [{"uri": "/d/odd.jpg", "likeness": 0.1234, "nearest": "/d/b", "fresh": True}],
        "nearest": {"edges": [0, 0.5, 1], "counts": [20, 100]},
    },
}


def test_the_report_shows_the_facts():
    parsed = Page(render_report(FACTS, {"/d/new.jpg": jpeg()}))
    assert_harmless(parsed)
    cells = parsed.inside("td")
    notes = parsed.inside("p")
    assert "1,234 listed = 1,200 + 10 + 4 + 15 + 5: the ledger balances" in notes
    assert "1,190 before = 1,180 + 7 + 3: the comparison balances" in notes
    assert "renamed: 2; rehashed: 1" in notes
    assert cells[cells.index("truncated") + 1] == "11"
    assert cells.index("truncated") < cells.index("empty")  # the most frequent reason first
    assert "builtin:<x>" in cells
    assert "behind them the projection /m/<shop>, 512 to 128 components" in notes
    assert cells[cells.index("nlist") + 1] == "1,024"
    assert cells[cells.index("default nprobe") + 1] == "32"
    assert cells[cells.index("scan") : cells.index("scan") + 5] == [
        "scan",
        "2.00",
        "25%",
        "1,234",
        "617",
    ]
    assert "recall@10 0.962 (0.951 to 0.971), 500 queries" in notes
    assert parsed.tags.count("polyline") == 2  # the certificate's, and of the new vectors' codes
    at = cells.index("embedding")
    assert cells[at : at + 4] == ["embedding", "2", "1,200", "2.0 KiB"]
    assert "3 files, 2.0 KiB, but for this report" in notes


def test_samples_have_their_pictures_or_say_why_not():
    parsed = Page(render_report(FACTS, {"/d/new.jpg": jpeg()}))
    words = parsed.inside("div")
    assert parsed.values("img", "alt") == ["new.jpg"] * 2  # among the added, and in its group
    assert words.count("gone") == 1
    assert "was <i>from.jpg" in words
    assert "truncated: cut & short" in words
    assert "nearest 0.1234, new" in words
    headings = parsed.inside("h3")
    assert "Added: 1 of 47" in headings
    assert "Near-duplicates: 1 of 2 groups found" in headings
    assert "group 1: 7 files, 2 of them shown" in parsed.inside("p")


def test_a_first_snapshot_has_nothing_before_it():
    headings = Page(render_report({**FACTS, "parent": None, "before": None})).inside("h2")
    assert not any(heading.startswith("Since") for heading in headings)
    assert any(h.startswith("Since 20260101") for h in Page(render_report(FACTS)).inside("h2"))


@settings(max_examples=60, deadline=None)
@given(strings, strings, strings, strings)
def test_any_string_in_the_facts_is_shown_as_text_and_nothing_else(uri, reason, detail, name):
    def report_of(uri, reason, detail, name):
        rows = [{"uri": uri, "reason": reason, "detail": detail, "previous": detail}]
        near = {
            "asked": 3,
            "alike": name,
            "groups": [{"size": 2, "members": rows}],
            "outliers": [{"uri": uri, "likeness": 0.5, "nearest": detail}],
        }
        key = f"{name}?"  # none of those that a report knows
        facts = {
            "name": name,
            "parent": reason or "p",
            "changes": {"previous": 1, key: 1},
            "counts": {"rejected_by_reason": {reason: 1}},
            "stages": {key: {"seconds": 1.0}},
            "samples": dict.fromkeys(("added", "changed", "removed", "renamed", "rejected"), rows),
            "neighbourhoods": near,
            "files": {key: {"files": 1, "bytes": 1}},
            "index": {"reasons": [detail]},
            "search": {key: 1},
        }
        return Page(render_report(facts, {uri: jpeg()}))

    parsed = report_of(uri, reason, detail, name)
    assert_harmless(parsed)
    plain = report_of("u" * bool(uri), "r" * bool(reason), "d" * bool(detail), "n" * bool(name))
    assert parsed.tags == plain.tags


def test_a_ledger_that_does_not_balance_is_called_out():
    counts = {**FACTS["counts"], "listed": 1235}
    parsed = Page(render_report({**FACTS, "counts": counts}))
    assert any(
        "1,235 listed, but" in note and "does not balance" in note for note in parsed.inside("p")
    )


@pytest.mark.parametrize("missing", [*FACTS, None])
def test_the_report_goes_without_missing_parts(missing):
    kept = {} if missing is None else {key: FACTS[key] for key in FACTS if key != missing}
    assert_harmless(Page(render_report(kept)))


@pytest.mark.parametrize("value", [None, "words", 3, [], {}, [1, "a"], {"a": 1}])
@pytest.mark.parametrize("key", FACTS)
def test_the_report_takes_parts_of_other_versions(key, value):
    assert_harmless(Page(render_report({**FACTS, key: value})))


def test_an_exact_certificate_has_no_interval():
    line = certificate_line({"k": 10, "recall": 1.0, "low": 1.0, "high": 1.0, "queries": 1})
    assert line == "recall@10 1.000 (exactly), 1 query"
    assert certificate_line({}) == "not measured"
