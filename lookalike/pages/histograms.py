"""Histograms for pages: steps, and a second series as a line over them, without any script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lookalike.pages.markup import text
from lookalike.pages.parts import as_list, as_number

_TICKS = 5


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
    xs, shares = _numbers(edges), _shares(_numbers(counts))
    second = _shares(_numbers(over))
    if len(xs) != len(shares) + 1 or not any(shares) or xs[-1] <= xs[0]:
        return ""
    second = second if len(second) == len(shares) else []
    top = max([*shares, *second])
    steps = _steps(xs, shares, top)
    drawn = (
        f'<polygon points="0,100 {steps} 100,100" style="fill:var(--accent);opacity:.45"></polygon>'
    )
    if any(second):
        drawn += (
            f'<polyline points="{_steps(xs, second, top)}" vector-effect="non-scaling-stroke" '
            'style="fill:none;stroke:var(--bad);stroke-width:1.8"></polyline>'
        )
    drawn += (
        '<line x1="0" y1="100" x2="100" y2="100" vector-effect="non-scaling-stroke" '
        'style="stroke:var(--soft);stroke-width:1"></line>'
    )
    span = xs[-1] - xs[0]
    ticks = [xs[0] + span * i / (_TICKS - 1) for i in range(_TICKS)]
    marks = "".join(
        f'<span class="x" style="left:{100 * (x - xs[0]) / span:.2f}%">{_short(x, span)}</span>'
        for x in ticks
    )
    under = f'<p class="note soft">{text(words)}</p>\n' if words else ""
    return (
        f'<div class="plot low" role="img" aria-label="{text(label)}">'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{drawn}</svg>{marks}</div>\n{under}"
    )


def _steps(xs: Sequence[float], shares: Sequence[float], top: float) -> str:
    span = xs[-1] - xs[0]
    corners = []
    for left, right, share in zip(xs, xs[1:], shares, strict=False):
        y = 100 * (1 - share / top)
        corners += [(100 * (left - xs[0]) / span, y), (100 * (right - xs[0]) / span, y)]
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)


def _numbers(values: object) -> list[float]:
    """The values if they are finite numbers, none negative among counts; else none at all."""
    found = [as_number(value) for value in as_list(values)]
    return [] if any(value is None for value in found) else [float(value or 0) for value in found]


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total > 0 else []


def _short(x: float, span: float) -> str:
    """A number with as many digits as its axis tells apart: 1.2M, 340, 0.08."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(x) >= size:
            return (
                f"{x / size:.3g}{unit if size > 1e4 else ''}" if size > 1e4 else f"{x / 1e3:.3g}k"
            )
    digits = 0 if span >= 8 else 1 if span >= 2 else 2 if span >= 0.1 else 3
    return f"{x:.{digits}f}"


def legend(names: Mapping[str, str]) -> str:
    """What each colour (a CSS value) stands for."""
    items = "".join(
        f'<li><i style="background:{colour}"></i>{text(name)}</li>'
        for name, colour in names.items()
    )
    return f'<ul class="key">{items}</ul>\n'
