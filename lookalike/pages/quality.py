"""The certificate's part of a report: the curve, what is lost where, and recall by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lookalike.pages.curves import Point, draw_curve, draw_shares, frontier
from lookalike.pages.markup import text
from lookalike.pages.parts import as_list, as_mapping, as_note, as_number, as_part, as_table, shown

_LOSSES = (
    ("coarse_miss", "in lists not scanned"),
    ("code_error", "dropped by their codes"),
    ("final", "lost in re-ranking"),
)
_SWEEP = (
    ("nprobe", "nprobe"), ("rerank", "re-ranked"), ("recall", "recall"), ("low", "low"),
    ("high", "high"), ("cost", "cost"), ("ms", "ms"), ("coarse_miss", "lost: lists"),
    ("code_error", "lost: codes"),
)  # fmt: skip


def certificate_part(certificate: Mapping[str, object], line: str) -> str:
    """The section; "" without a certificate. `line` is the certificate in words."""
    if not certificate:
        return ""
    sweep = [row for row in as_list(certificate.get("sweep")) if isinstance(row, Mapping)]
    advice = str(certificate.get("advice") or "")
    return as_part(
        "Certificate",
        f"<p>{text(line)}</p>\n",
        as_note(
            "recall is the share of the true nearest neighbours, found by exact search, "
            "that the index returns"
        ),
        as_note(f"the target is not certain; {advice}", bad=True) if advice else "",
        _curve(certificate, sweep),
        _losses(certificate),
        _levels(as_list(certificate.get("levels"))),
        _sweep(certificate, sweep),
    )


def losses_line(certificate: Mapping[str, object]) -> str:
    """Where true neighbours are lost, in words; "" where none are, or nothing is known."""
    losses = as_mapping(certificate.get("losses"))
    parts = [(name, as_number(losses.get(key)) or 0.0) for key, name in _LOSSES]
    named = ", ".join(f"{share:.4f} {name}" for name, share in parts if share)
    return f"lost: {named}" if named else ""


def _curve(certificate: Mapping[str, object], sweep: Sequence[Mapping[str, object]]) -> str:
    points = {id(row): point for row in sweep if (point := _point(row)) is not None}
    row = _chosen(certificate, sweep)
    target = as_number(certificate.get("target"))
    drawn = draw_curve(
        list(points.values()),
        points.get(id(row)),
        target,
        "recall over the cost of a query, values in the table below",
    )
    if not drawn:
        return ""
    weights = as_mapping(certificate.get("weights"))
    extra = ", ".join(
        f"a {word} counts as {shown(weights[key])}"
        for key, word in (("list", "list more"), ("vector", "vector re-ranked"))
        if key in weights
    )
    k = shown(certificate.get("k", "?"))
    nprobe, rerank = shown(certificate.get("nprobe")), shown(certificate.get("rerank"))
    words = [
        f"recall@{k} over codes scanned per query" + (f" ({extra})" if extra else ""),
        f"circled: the setting chosen, nprobe {nprobe} and {rerank} re-ranked" if row else "",
        f"dashed: the target, {target:g}" if target is not None else "",
        "band: 95% interval; grey: settings that a cheaper one beats",
    ]
    return drawn + as_note("; ".join(word for word in words if word))


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


def _losses(certificate: Mapping[str, object]) -> str:
    losses, recall = as_mapping(certificate.get("losses")), as_number(certificate.get("recall"))
    if not losses or recall is None:
        return ""
    shares = [(name, as_number(losses.get(key)) or 0.0) for key, name in _LOSSES]
    drawn = draw_shares(shares)
    if not drawn:
        return as_note("no true neighbour was lost")
    return as_note(f"where the {1 - recall:.4f} of true neighbours are lost:") + drawn


def _levels(levels: Sequence[object]) -> str:
    rows = []
    for level in map(as_mapping, levels):
        before, after = _interval(level.get("before")), _interval(level.get("after"))
        name, depth = f"recall@{shown(level.get('k', '?'))}", level.get("rerank", "")
        rows.append((name, before, after, depth, level.get("queries", "")))
    columns = ("", "codes alone", "re-ranked", "depth", "queries")
    return as_table(columns, rows) if rows else ""


def _interval(value: object) -> str:
    numbers = [as_number(each) for each in as_list(value)]
    if len(numbers) != 3 or any(each is None for each in numbers):
        return ""
    recall, low, high = (float(each or 0) for each in numbers)
    return f"{recall:.3f} ({low:.3f}–{high:.3f})"


def _sweep(certificate: Mapping[str, object], sweep: Sequence[Mapping[str, object]]) -> str:
    """What no cheaper setting beats, in a table that opens."""
    if not sweep:
        return ""
    points = {id(row): point for row in sweep if (point := _point(row)) is not None}
    best = frontier(list(points.values()))
    rows = [row for row in sweep if not points or points.get(id(row)) in best]
    rows.sort(key=lambda row: as_number(row.get("cost")) or 0.0)
    columns = [(key, name) for key, name in _SWEEP if any(key in row for row in rows)]
    chosen = _chosen(certificate, sweep)
    body = [
        [*(row.get(key, "") for key, _ in columns), "chosen" if row is chosen else ""]
        for row in rows
    ]
    summary = f"{len(rows):,} of {len(sweep):,} settings measured, those that no cheaper one beats"
    return (
        f'<details class="sweep"><summary>{text(summary)}</summary>\n'
        f"{as_table([*(name for _, name in columns), ''], body, 3)}</details>\n"
    )
