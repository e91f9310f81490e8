"""Small drawings for pages: a curve with its band, and a bar of shares, without any script.

Shapes are SVG stretched to the room there is, with lines that keep their width; words are HTML laid
over it, so that they have the size of other text on a narrow screen too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from lookalike.pages.markup import text

_COLOURS = ("var(--accent)", "var(--bad)", "var(--soft)", "var(--ink)", "var(--track)")


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
    line = frontier(points)
    left = log10(min(point.x for point in everything))
    right = log10(max(point.x for point in everything))
    edges = [point.y for point in line] + ([target] if target is not None else [])
    bottom = max(0.0, min(floor(10 * min(edges)) / 10, 0.9))

    def at(x: float, y: float) -> tuple[float, float]:
        across = 100 * (log10(x) - left) / (right - left)
        return across, 100 * (1 - (max(y, bottom) - bottom) / (1 - bottom))

    def path(corners: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)

    ticks = [round(bottom + i * _step(1 - bottom), 6) for i in range(50)]
    ticks = [tick for tick in ticks if tick <= 1 + 1e-9]
    band = [at(p.x, p.high) for p in line] + [at(p.x, p.low) for p in reversed(line)]
    drawn = [_line(at(10**left, tick), at(10**right, tick), "--line", 1) for tick in ticks]
    drawn.append(
        f'<polygon points="{path(band)}" style="fill:var(--accent);opacity:.16"></polygon>'
    )
    if target is not None:
        drawn.append(_line(at(10**left, target), at(10**right, target), "--bad", 1.5, "6 4"))
    drawn += [
        _dot(at(p.x, p.y), "--soft", 5, 0.45) for p in points if p not in line and p.y >= bottom
    ]
    drawn.append(
        f'<polyline points="{path([at(p.x, p.y) for p in line])}" vector-effect='
        '"non-scaling-stroke" style="fill:none;stroke:var(--accent);stroke-width:2"></polyline>'
    )
    drawn += [_dot(at(p.x, p.y), "--accent", 6) for p in line]
    if chosen is not None:
        place = at(chosen.x, chosen.y)
        drawn += [_dot(place, "--ink", 15), _dot(place, "--card", 10), _dot(place, "--accent", 6)]
    words = [
        f'<span class="y" style="top:{at(10**left, tick)[1]:.2f}%">{tick:g}</span>'
        for tick in ticks
    ]
    words += [
        f'<span class="x" style="left:{at(x, 1)[0]:.2f}%">{_short(x)}</span>'
        for x in _decades(left, right)
    ]
    return (
        f'<div class="plot" role="img" aria-label="{text(label)}">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(drawn)}</svg>{''.join(words)}</div>\n"
    )


def draw_shares(shares: Sequence[tuple[str, float]], decimals: int = 4) -> str:
    """Parts of a whole as one bar, each with its name and number below; "" where all are 0."""
    total = sum(share for _, share in shares)
    if not (total > 0 and isfinite(total)):
        return ""
    bar = "".join(
        f'<i style="width:{100 * share / total:.2f}%;background:{colour}"></i>'
        for (_, share), colour in zip(shares, _COLOURS, strict=False)
        if share > 0
    )
    names = "".join(
        f'<li><i style="background:{colour}"></i>{text(name)} <b>{share:,.{decimals}f}</b></li>'
        for (name, share), colour in zip(shares, _COLOURS, strict=False)
    )
    return f'<div class="shares" aria-hidden="true">{bar}</div>\n<ul class="key">{names}</ul>\n'


def _is_finite(point: Point) -> bool:
    return point.x > 0 and all(map(isfinite, (point.x, point.y, point.low, point.high)))


def _line(
    start: tuple[float, float], end: tuple[float, float], colour: str, width: float, dash: str = ""
) -> str:
    dashed = f";stroke-dasharray:{dash}" if dash else ""
    return (
        f'<line x1="{start[0]:.2f}" y1="{start[1]:.2f}" x2="{end[0]:.2f}" y2="{end[1]:.2f}" '
        f'vector-effect="non-scaling-stroke" style="stroke:var({colour});'
        f'stroke-width:{width:g}{dashed}"></line>'
    )


def _dot(place: tuple[float, float], colour: str, width: float, opacity: float = 1) -> str:
    """A line of no length with round ends, which stays round however the drawing is stretched."""
    x, y = place
    return (
        f'<path class="dot" d="M{x:.2f} {y:.2f}h0" vector-effect="non-scaling-stroke" '
        f'style="stroke:var({colour});stroke-width:{width:g};stroke-linecap:round;'
        f'opacity:{opacity:g}"></path>'
    )


def _step(span: float) -> float:
    """Distance of ticks, so that there are about five."""
    return next(step for step in (0.02, 0.05, 0.1, 0.2) if span / step <= 6)


def _decades(left: float, right: float) -> list[float]:
    """Round numbers between two powers of ten: 1, 2 and 5 times one where there is room."""
    kept = (1, 2, 5) if right - left < 2.5 else (1,)
    tries = [many * 10.0**power for power in range(floor(left), ceil(right) + 1) for many in kept]
    return [x for x in tries if left <= log10(x) <= right]


def _short(x: float) -> str:
    """1500000 as 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:g}{unit}"
    return f"{x:g}"
