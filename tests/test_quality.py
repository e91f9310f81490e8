"""The certificate's part of the report, and the drawings in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.report.certificate import certificate_section
from lookalike.report.plots import Point, draw_curve, draw_histogram, draw_shares, frontier


def row(nprobe, rerank, recall, cost, **more):
    return {
        "nprobe": nprobe,
        "rerank": rerank,
        "recall": recall,
        "low": recall - 0.02,
        "high": min(1.0, recall + 0.02),
        "cost": cost,
        "ms": cost / 1e6,
        **more,
    }


CERTIFICATE = {
    "k": 10,
    "target": 0.95,
    "recall": 0.97,
    "low": 0.952,
    "high": 0.98,
    "queries": 1000,
    "nprobe": 8,
    "rerank": 40,
    "reached": True,
    "advice": "",
    "weights": {"list": 500, "vector": 400},
    "losses": {"coarse_miss": 0.02, "code_error": 0.01, "final": 0.0},
    "levels": [
        {
            "k": 10,
            "rerank": 40,
            "queries": 1000,
            "before": [0.6, 0.57, 0.63],
            "after": [0.97, 0.952, 0.98],
        },
    ],
    "sweep": [
        row(1, 10, 0.4, 5_000),
        row(1, 100, 0.45, 50_000),
        row(8, 40, 0.97, 30_000),
        row(8, 80, 0.98, 60_000),
        row(16, 40, 0.979, 70_000),
    ],
}


class Cells(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.rows, self.open = [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("td", "th")
        if self.open:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th")

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data


def test_the_section_shows_curve_losses_and_levels():
    part = certificate_section(CERTIFICATE, "in words")
    assert part.startswith('<section class="part">\n<h2>Certificate</h2>\n<p>in words</p>')
    assert "circled: the setting chosen, nprobe 8 and 40 re-ranked" in part
    assert "a list more counts as 500, a vector re-ranked counts as 400" in part
    assert part.count('class="dot"') == 5 + 3  # each setting; the chosen one in a ring
    assert "where the 0.0300 of true neighbours are lost" in part
    assert "dropped by their codes <b>0.0100</b>" in part
    rows = Cells(part).rows
    level = ["recall@10", "0.600 (0.570–0.630)", "0.970 (0.952–0.980)", "40", "1,000"]
    assert level in rows
    settings = [cells for cells in rows if len(cells) == len(rows[2]) and cells[-1] != "queries"]
    # What a cheaper setting beats is left out; the cheapest comes first.
    assert [cells[:2] for cells in settings[1:]] == [["1", "10"], ["8", "40"], ["8", "80"]]
    assert [cells[-1] for cells in settings[1:]] == ["", "chosen", ""]
    assert "3 of 5 settings measured" in part


def test_what_would_help_stands_out():
    part = certificate_section({**CERTIFICATE, "reached": False, "advice": "raise <it>"}, "")
    assert '<p class="note bad">the target is not certain; raise &lt;it&gt;</p>' in part


@pytest.mark.parametrize("missing", [*CERTIFICATE, None])
def test_parts_that_are_missing_are_left_out(missing):
    kept = {key: CERTIFICATE[key] for key in CERTIFICATE if key != missing}
    part = certificate_section(kept if missing else {"recall": 1.0}, "")
    assert part.startswith("<section")
    assert certificate_section({}, "") == ""


def test_an_exact_index_has_no_curve_and_loses_nothing():
    losses = dict.fromkeys(CERTIFICATE["losses"], 0.0)
    exact = {**CERTIFICATE, "recall": 1.0, "losses": losses, "sweep": [row(8, 40, 1.0, 100)]}
    part = certificate_section(exact, "")
    assert "<svg" not in part
    assert "no true neighbour was lost" in part


def places(drawing, tag):
    """Points of the one polyline or polygon, as numbers."""
    (found,) = re.findall(rf'<{tag} points="([^"]*)"', drawing)
    return [tuple(map(float, pair.split(","))) for pair in found.split()]


def test_the_curve_is_where_the_numbers_are():
    """Costs 10, 100 and 1000 and recalls .5, .75 and 1: a diagonal, in per cent of the room."""
    points = [Point(10.0**i, y, y - 0.1, min(1, y + 0.1)) for i, y in ((1, 0.5), (2, 0.75), (3, 1))]
    drawn = draw_curve(points, points[1], 0.9, "a < b")
    assert places(drawn, "polyline") == [(0, 100), (50, 50), (100, 0)]
    band = places(drawn, "polygon")
    assert band == [(0, 80), (50, 30), (100, 0), (100, 20), (50, 70), (0, 100)]  # kept inside
    assert 'x1="0.00" y1="20.00" x2="100.00" y2="20.00"' in drawn  # the target
    assert 'aria-label="a &lt; b"' in drawn
    assert '<span class="x" style="left:50.00%">100</span>' in drawn
    assert '<span class="y" style="top:100.00%">0.5</span>' in drawn


def test_one_point_is_no_curve():
    point = Point(10, 0.5, 0.4, 0.6)
    assert draw_curve([], None, None, "") == ""
    assert draw_curve([point, point], point, 0.9, "") == ""


numbers = st.floats(0, 1)


@given(st.lists(st.tuples(st.floats(1, 1e9), numbers, numbers, numbers), max_size=12), numbers)
def test_everything_is_drawn_inside(values, target):
    points = [Point(x, sorted(ys)[1], min(ys), max(ys)) for x, *ys in values]
    line = frontier(points)
    assert [p.y for p in line] == sorted({p.y for p in line})
    for point in points:
        assert any(other.x <= point.x and other.y >= point.y for other in line)
    drawn = draw_curve(points, points[0] if points else None, target, "")
    if drawn:
        for x, y in places(drawn, "polyline") + places(drawn, "polygon"):
            assert -0.01 <= x <= 100.01
            assert -0.01 <= y <= 100.01
        for x, y in re.findall(r"M([-\d.]+) ([-\d.]+)h0", drawn):
            assert -0.01 <= float(x) <= 100.01
            assert -0.01 <= float(y) <= 100.01


def test_shares_fill_the_bar():
    drawn = draw_shares([("a & b", 0.03), ("c", 0.01), ("d", 0.0)])
    assert re.findall(r'class="shares".*?</div>', drawn)[0].count("<i ") == 2
    assert "width:75.00%" in drawn
    assert "width:25.00%" in drawn
    assert "a &amp; b <b>0.0300</b>" in drawn
    assert draw_shares([("a", 0.0)]) == ""


def test_histograms_are_where_the_numbers_are():
    """Shares 1/4 and 3/4 of all; of the second series all in the first bin, the highest."""
    drawn = draw_histogram([0, 10, 20], [1, 3], "a < b", over=[5, 0], words="<w>")
    assert places(drawn, "polygon") == [
        (0, 100),
        (0, 75),
        (50, 75),
        (50, 25),
        (100, 25),
        (100, 100),
    ]
    assert places(drawn, "polyline") == [(0, 0), (50, 0), (50, 100), (100, 100)]
    assert 'aria-label="a &lt; b"' in drawn
    assert "&lt;w&gt;" in drawn
    assert '<span class="x" style="left:50.00%">10</span>' in drawn


@pytest.mark.parametrize(
    ("edges", "counts"),
    [([], []), ([0, 1], []), ([0, 1], [0]), ([1, 0], [1]), ([0, "x"], [1]), (None, 3), ([0], [1])],
)
def test_numbers_that_are_no_histogram_draw_nothing(edges, counts):
    assert draw_histogram(edges, counts, "") == ""


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=40),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e9),
)
def test_histograms_stay_inside(pairs, low, span):
    edges = [low + span * i / len(pairs) for i in range(len(pairs) + 1)]
    counts, over = zip(*pairs, strict=True)
    drawn = draw_histogram(edges, list(counts), "", over=list(over))
    assert bool(drawn) == (any(counts) and edges[-1] > edges[0])
    if drawn:
        points = places(drawn, "polygon") + (places(drawn, "polyline") if any(over) else [])
        assert all(-0.01 <= x <= 100.01 and -0.01 <= y <= 100.01 for x, y in points)
