"""Histograms for pages: steps, and a second series as a line over them, without any script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lookalike.pages.markup import text
from lookalike.pages.parts import as_list, as_number

_TICKS = 5
_FEWEST_DIGITS, _MOST_DIGITS = 3, 17


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
    ticks = [i / (_TICKS - 1) for i in range(_TICKS)]
    words_at = _words([values[0] * (1 - at) + values[-1] * at for at in ticks])
    marks = "".join(
        f'<span class="x" style="left:{100 * at:.2f}%">{word}</span>'
        for at, word in zip(ticks, words_at, strict=True)
    )
    under = f'<p class="note soft">{text(words)}</p>\n' if words else ""
    return (
        f'<div class="plot low" role="img" aria-label="{text(label)}">'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{drawn}</svg>{marks}</div>\n{under}"
    )


def _steps(xs: Sequence[float], shares: Sequence[float], top: float) -> str:
    corners = []
    for left, right, share in zip(xs, xs[1:], shares, strict=False):
        y = 100 * (1 - share / top)
        corners += [(100 * left, y), (100 * right, y)]
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in corners)


def _numbers(values: object) -> list[float]:
    """The values if they are finite numbers, none negative among counts; else none at all."""
    found = [as_number(value) for value in as_list(values)]
    return [] if any(value is None for value in found) else [float(value or 0) for value in found]


def _shares(counts: Sequence[float]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts] if total > 0 else []


def _words(numbers: Sequence[float]) -> list[str]:
    """Numbers as 1.2M, 340, 0.08, with as many digits as tell them from each other."""
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS):
        words = [_short(x, digits) for x in numbers]
        if len(set(words)) == len(words):
            return words
    return [repr(x) for x in numbers]


def _short(x: float, digits: int) -> str:
    for least, size, unit in ((1e15, 1, ""), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(x) >= least:
            return f"{x / size:.{digits}g}{unit}"
    return f"{float(f'{x:.{digits}g}'):.{max(digits, 6)}g}"


def legend(names: Mapping[str, str]) -> str:
    """What each colour (a CSS value) stands for."""
    items = "".join(
        f'<li><i style="background:{colour}"></i>{text(name)}</li>'
        for name, colour in names.items()
    )
    return f'<ul class="key">{items}</ul>\n'
