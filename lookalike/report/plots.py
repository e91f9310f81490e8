"""Where the shapes of small plots lie: a curve with its band, a histogram, a bar of shares.

Places are per cent of the room, from the left and from the top; the shapes themselves, SVG, are in
plots.html.jinja.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from lookalike.report.templates import draw
from lookalike.report.text import as_list, as_number

_TEMPLATE = "plots.html.jinja"
_TICKS = 5
_FEWEST_DIGITS, _MOST_DIGITS = 3, 17


# --- a curve --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One thing measured: y in [0, 1] with its bounds, at x > 0."""

    x: float
    y: float
    low: float
    high: float


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no cheaper one beats, by x."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (each.x, -each.y)):
        if not kept or point.y > kept[-1].y:
            kept.append(point)
    return kept


def draw_curve(
    points: Sequence[Point], chosen: Point | None, target: float | None, label: str
) -> str:
    """The frontier of the points over a logarithmic x, with its band and all the points.

    Args:
        points: At least two with different x, else nothing is drawn; nor is one that is not finite.
        chosen: One to mark.
        target: A level to mark.
        label: What a reader who cannot see it is told.
    """
    points = [point for point in points if _is_finite(point)]
    chosen = chosen if chosen and _is_finite(chosen) else None
    everything = [*points, *([chosen] if chosen else [])]
    if not points or len({log10(point.x) for point in everything}) < 2:
        return ""
    best = frontier(points)
    left = log10(min(point.x for point in everything))
    right = log10(max(point.x for point in everything))
    edges = [point.y for point in best] + ([target] if target is not None else [])
    bottom = max(0.0, min(floor(10 * min(edges)) / 10, 0.9))

    def across(x: float) -> float:
        return 100 * (log10(x) - left) / (right - left)

    def down(y: float) -> float:
        return 100 * (1 - (max(y, bottom) - bottom) / (1 - bottom))

    def at(point: Point) -> tuple[float, float]:
        return across(point.x), down(point.y)

    ticks = [round(bottom + i * _step(1 - bottom), 6) for i in range(50)]
    band = [(across(p.x), down(p.high)) for p in best]
    band += [(across(p.x), down(p.low)) for p in reversed(best)]
    return draw(
        _TEMPLATE,
        "curve",
        label=label,
        ticks=[(down(tick), f"{tick:g}") for tick in ticks if tick <= 1 + 1e-9],
        marks=[(across(x), _units(x, 6)) for x in _decades(left, right)],
        band=_corners(band),
        best=[at(p) for p in best],
        best_line=_corners([at(p) for p in best]),
        beaten=[at(p) for p in points if p not in best and p.y >= bottom],
        chosen=at(chosen) if chosen else None,
        target=None if target is None else down(target),
    )


def _is_finite(point: Point) -> bool:
    return point.x > 0 and all(map(isfinite, (point.x, point.y, point.low, point.high)))


def _step(span: float) -> float:
    """Distance of ticks, so that there are about five."""
    return next(step for step in (0.02, 0.05, 0.1, 0.2) if span / step <= 6)


def _decades(left: float, right: float) -> list[float]:
    """Round numbers between two powers of ten: 1, 2 and 5 times one where there is room."""
    kept = (1, 2, 5) if right - left < 2.5 else (1,)
    tries = [many * 10.0**power for power in range(floor(left), ceil(right) + 1) for many in kept]
    return [x for x in tries if left <= log10(x) <= right]


# --- a histogram ----------------------------------------------------------------------------------


def draw_histogram(
    edges: object, counts: object, label: str, *, over: object = (), words: str = ""
) -> str:
    """Steps of the share of values in each bin; "" where the numbers make no histogram.

    Args:
        edges: (bins + 1,) ascending.
        counts: (bins,) of values.
        label: What a reader who cannot see it is told.
        over: (bins,) of a second series, drawn as a line at its own shares.
        words: Of the x axis.
    """
    values, shares = _numbers(edges), _shares(_numbers(counts))
    second = _shares(_numbers(over))
    if len(values) != len(shares) + 1 or not any(shares) or values[-1] <= values[0]:
        return ""
    # Places along the axis, 0 to 1, of numbers whose difference may be too large for a float.
    scale = max(abs(values[0]), abs(values[-1]))
    scaled = [value / scale for value in values]
    xs = [(x - scaled[0]) / (scaled[-1] - scaled[0]) for x in scaled]
    second = second if len(second) == len(shares) else []
    top = max([*shares, *second])
    ticks = [i / (_TICKS - 1) for i in range(_TICKS)]
    marks = _told_apart([values[0] * (1 - at) + values[-1] * at for at in ticks])
    return draw(
        _TEMPLATE,
        "histogram",
        label=label,
        steps=_steps(xs, shares, top),
        over=_steps(xs, second, top) if any(second) else "",
        marks=[(100 * at, word) for at, word in zip(ticks, marks, strict=True)],
        words=words,
    )


def _steps(xs: Sequence[float], shares: Sequence[float], top: float) -> str:
    corners = []
    for left, right, share in zip(xs, xs[1:], shares, strict=False):
        y = 100 * (1 - share / top)
        corners += [(100 * left, y), (100 * right, y)]
    return _corners(corners)


def _numbers(values: object) -> list[float]:
    """The values if all are finite numbers; else none at all."""
    found = [as_number(value) for value in as_list(values)]
    return [] if any(value is None for value in found) else [float(value or 0) for value in found]


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total > 0 else []


def _told_apart(numbers: Sequence[float]) -> list[str]:
    """Numbers as 1.2M, 340, 0.08, with as many digits as tell them from each other."""
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS):
        words = [_units(x, digits) for x in numbers]
        if len(set(words)) == len(words):
            return words
    return [repr(x) for x in numbers]


# --- a bar of shares ------------------------------------------------------------------------------


def draw_shares(shares: Sequence[tuple[str, float]], decimals: int = 4) -> str:
    """Parts of a whole as one bar, each with its name and number below; "" where all are 0."""
    total = sum(share for _, share in shares)
    if not (total > 0 and isfinite(total)):
        return ""
    return draw(
        _TEMPLATE,
        "shares",
        widths=[100 * share / total for _, share in shares],
        names=[(name, f"{share:,.{decimals}f}") for name, share in shares],
    )


# --- what they share ------------------------------------------------------------------------------


def _corners(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in places)


def _units(x: float, digits: int) -> str:
    """A number with at most so many digits: 1500000 as 1.5M."""
    for least, size, unit in ((1e15, 1, ""), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(x) >= least:
            return f"{x / size:.{digits}g}{unit}"
    return f"{float(f'{x:.{digits}g}'):.{max(digits, 6)}g}"
