"""The certificate in words, and its section of a report: the curve, what is lost where, levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lookalike.report.plots import Point, draw_curve, draw_shares, frontier
from lookalike.report.templates import draw
from lookalike.report.text import as_list, as_mapping, as_number, shown

_LOSSES = (
    ("coarse_miss", "in lists not scanned"),
    ("code_error", "dropped by their codes"),
    ("final", "lost in re-ranking"),
)
_SWEEP = (
    ("nprobe", "nprobe"),
    ("rerank", "re-ranked"),
    ("recall", "recall"),
    ("low", "low"),
    ("high", "high"),
    ("cost", "cost"),
    ("ms", "ms"),
    ("coarse_miss", "lost: lists"),
    ("code_error", "lost: codes"),
)


def certificate_line(certificate: Mapping[str, object]) -> str:
    """The certificate in words: "recall@10 0.962 (0.951 to 0.971), 500 queries"."""
    recall, low, high = (as_number(certificate.get(key)) for key in ("recall", "low", "high"))
    if recall is None:
        return "not measured"
    line = f"recall@{shown(certificate.get('k', '?'))} {recall:.3f}"
    if low is not None and high is not None:
        line += " (exactly)" if low == high else f" ({low:.3f} to {high:.3f})"
    queries = as_number(certificate.get("queries"))
    if queries is None:
        return line
    return f"{line}, {queries:,.0f} {'query' if queries == 1 else 'queries'}"


def losses_line(certificate: Mapping[str, object]) -> str:
    """Where true neighbours are lost, in words; "" where none are, or nothing is known."""
    named = ", ".join(f"{share:.4f} {name}" for name, share in _losses(certificate) if share)
    return f"lost: {named}" if named else ""


def certificate_section(certificate: Mapping[str, object], line: str) -> str:
    """The section; "" without a certificate. `line` is the certificate in words."""
    if not certificate:
        return ""
    sweep = [row for row in as_list(certificate.get("sweep")) if isinstance(row, Mapping)]
    curve = _curve(certificate, sweep)
    recall, losses, lost = as_number(certificate.get("recall")), "", ""
    if recall is not None and as_mapping(certificate.get("losses")):
        losses = draw_shares(_losses(certificate))
        lost = f"where the {1 - recall:.4f} of true neighbours are lost:"
    return draw(
        "sections.html.jinja",
        "certificate",
        line=line,
        advice=str(certificate.get("advice") or ""),
        curve=curve,
        words=_curve_words(certificate, sweep) if curve else "",
        lost=lost if losses else lost and "no true neighbour was lost",
        losses=losses,
        levels=_levels(as_list(certificate.get("levels"))),
        sweep=_sweep(certificate, sweep),
    )


def _losses(certificate: Mapping[str, object]) -> list[tuple[str, float]]:
    losses = as_mapping(certificate.get("losses"))
    return [(name, as_number(losses.get(key)) or 0.0) for key, name in _LOSSES]


def _curve(certificate: Mapping[str, object], sweep: Sequence[Mapping[str, object]]) -> str:
    chosen = _chosen(certificate, sweep)
    return draw_curve(
        [point for row in sweep if (point := _point(row))],
        _point(chosen) if chosen else None,
        as_number(certificate.get("target")),
        "recall over the cost of a query, values in the table below",
    )


def _curve_words(certificate: Mapping[str, object], sweep: Sequence[Mapping[str, object]]) -> str:
    weights, target = as_mapping(certificate.get("weights")), as_number(certificate.get("target"))
    extra = ", ".join(
        f"a {word} counts as {shown(weights[key])}"
        for key, word in (("list", "list more"), ("vector", "vector re-ranked"))
        if key in weights
    )
    k, nprobe, rerank = (shown(certificate.get(key, "?")) for key in ("k", "nprobe", "rerank"))
    words = [
        f"recall@{k} over codes scanned per query" + (f" ({extra})" if extra else ""),
        f"circled: the setting chosen, nprobe {nprobe} and {rerank} re-ranked"
        if _chosen(certificate, sweep)
        else "",
        f"dashed: the target, {target:g}" if target is not None else "",
        "band: 95% interval; grey: settings that a cheaper one beats",
    ]
    return "; ".join(word for word in words if word)


def _point(row: Mapping[str, object]) -> Point | None:
    x, y = as_number(row.get("cost")), as_number(row.get("recall"))
    if x is None or y is None or x <= 0:
        return None
    low, high = as_number(row.get("low")), as_number(row.get("high"))
    return Point(x, y, y if low is None else low, y if high is None else high)


def _chosen(
    certificate: Mapping[str, object], sweep: Sequence[Mapping[str, object]]
) -> Mapping[str, object] | None:
    keys = ("nprobe", "rerank")
    wanted = [certificate.get(key) for key in keys]
    return next((row for row in sweep if [row.get(key) for key in keys] == wanted), None)


def _levels(levels: Sequence[object]) -> list[tuple[object, ...]]:
    return [
        (
            f"recall@{shown(level.get('k', '?'))}",
            _interval(level.get("before")),
            _interval(level.get("after")),
            level.get("rerank", ""),
            level.get("queries", ""),
        )
        for level in map(as_mapping, levels)
    ]


def _interval(value: object) -> str:
    numbers = [as_number(each) for each in as_list(value)]
    if len(numbers) != 3 or any(each is None for each in numbers):
        return ""
    recall, low, high = (float(each or 0) for each in numbers)
    return f"{recall:.3f} ({low:.3f}–{high:.3f})"


def _sweep(
    certificate: Mapping[str, object], sweep: Sequence[Mapping[str, object]]
) -> dict[str, object] | None:
    """A table of what no cheaper setting beats."""
    if not sweep:
        return None
    points = {id(row): point for row in sweep if (point := _point(row)) is not None}
    best = frontier(list(points.values()))
    kept = [row for row in sweep if not points or points.get(id(row)) in best]
    kept.sort(key=lambda row: as_number(row.get("cost")) or 0.0)
    columns = [(key, name) for key, name in _SWEEP if any(key in row for row in kept)]
    chosen = _chosen(certificate, sweep)
    return {
        "summary": f"{len(kept):,} of {len(sweep):,} settings measured, "
        "those that no cheaper one beats",
        "columns": [*(name for _, name in columns), ""],
        "rows": [
            [*(row.get(key, "") for key, _ in columns), "chosen" if row is chosen else ""]
            for row in kept
        ],
    }
