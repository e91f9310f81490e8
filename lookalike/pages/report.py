"""The report of a snapshot: what became of the files, the index and its certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from lookalike.pages.markup import head, shorten, text, visible


def size_text(count: float) -> str:
    """Bytes for people: 512 bytes, 1.5 MiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


def _value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], decimals: int | None = None
) -> str:
    """Numbers to the right; a long word such as a fingerprint may break anywhere."""

    def cell(value: object, number: bool) -> str:
        kind = ' class="n"' if number else ' class="long"' if len(str(value)) > 24 else ""
        rounded = decimals is not None and isinstance(value, float)
        shown = f"{value:.{decimals}f}" if rounded else _value(value)
        return f"<td{kind}>{text(shown)}</td>"

    listed = [list(row) for row in rows]
    numeric = [
        bool(listed) and all(isinstance(row[i], (int, float)) or row[i] == "" for row in listed)
        for i in range(len(columns))
    ]
    head = "".join(
        f'<th scope="col"{" class=n" if right else ""}>{text(name)}</th>'
        for name, right in zip(columns, numeric, strict=True)
    )
    body = "".join(
        "<tr>" + "".join(cell(v, right) for v, right in zip(row, numeric, strict=True)) + "</tr>\n"
        for row in listed
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _part(heading: str, *content: str) -> str:
    return f'<section class="part">\n<h2>{text(heading)}</h2>\n{"".join(content)}</section>\n'


def _note(words: str, bad: bool = False) -> str:
    return f'<p class="note {"bad" if bad else "soft"}">{text(words)}</p>\n'


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


LEDGER = ("embedded", "unchanged", "duplicate", "rejected", "ignored")


def _ledger(counts: Mapping[str, object]) -> str:
    numbers = {key: int(_number(counts.get(key)) or 0) for key in ("listed", *LEDGER)}
    total = sum(numbers[key] for key in LEDGER)
    meanings = {
        "embedded": "a vector was made in this run",
        "unchanged": "known from the parent snapshot",
        "duplicate": "the same bytes as another file, shown beside it",
        "rejected": "an image, or named like one, that gave no vector",
        "ignored": "neither content nor name says image",
    }
    rows = [(key, numbers[key], meanings[key]) for key in LEDGER]
    balanced = total == numbers["listed"]
    sum_line = " + ".join(f"{numbers[key]:,}" for key in LEDGER)
    verdict = f"{numbers['listed']:,} listed = {sum_line}: the ledger balances"
    if not balanced:
        verdict = (
            f"{numbers['listed']:,} listed, but {sum_line} = {total:,}: the ledger does not balance"
        )
    others = [
        f"{key}: {_value(value)}"
        for key, value in counts.items()
        if key not in numbers and _number(value) is not None
    ]
    return _part(
        "Files",
        _table(("status", "files", "meaning"), rows),
        _note(verdict, not balanced),
        _note("; ".join(others)) if others else "",
    )


def _rejects(counts: Mapping[str, object], examples: Sequence[tuple[str, str, str]]) -> str:
    reasons = _mapping(counts.get("rejected_by_reason"))
    if not reasons and not examples:
        return ""
    by_number = sorted(reasons.items(), key=lambda item: (-(_number(item[1]) or 0), item[0]))
    parts = [_table(("reason", "files"), by_number)] if by_number else []
    if examples:
        rows = [
            (shorten(visible(uri), 160), reason, shorten(visible(detail), 200))
            for uri, reason, detail in examples
        ]
        parts += [
            _note("some of them, with the words of the decoder:"),
            _table(("file", "reason", "detail"), rows),
        ]
    return _part("Rejected", *parts)


def _features(manifest: Mapping[str, object]) -> str:
    listed = manifest.get("features")
    rows = []
    for feature in listed if isinstance(listed, (list, tuple)) else ():
        known, info = _mapping(feature), _mapping(_mapping(feature).get("info"))
        rows.append(
            [
                known.get("name", ""),
                known.get("handle", ""),
                known.get("weight", ""),
                info.get("dim", ""),
                str(known.get("fingerprint", ""))[:16],
            ]
        )
    if not rows:
        return ""
    prints = [
        f"{key.replace('_', ' ')} {manifest[key]}"
        for key in ("model_fingerprint", "preprocessing_fingerprint")
        if manifest.get(key)
    ]
    return _part(
        "Features",
        _table(("name", "handle", "weight", "dim", "fingerprint"), rows),
        *map(_note, prints),
    )


def _index(manifest: Mapping[str, object]) -> str:
    index, search = _mapping(manifest.get("index")), _mapping(manifest.get("search"))
    spec = {
        **_mapping(index.get("spec")),
        **{key: value for key, value in index.items() if key != "spec"},
    }
    rows: list[tuple[str, str]] = [
        (key, _value(value))
        for key, value in spec.items()
        if value is not None and not isinstance(value, (dict, list))
    ]
    rows += [
        (f"default {key}", _value(value)) for key, value in search.items() if value is not None
    ]
    return _part("Index", _table(("parameter", "value"), rows)) if rows else ""


def _certificate(certificate: Mapping[str, object]) -> str:
    if not certificate:
        return ""
    sweep = [row for row in _list(certificate.get("sweep")) if isinstance(row, Mapping)]
    columns = list(dict.fromkeys(str(key) for row in sweep for key in row))
    table = (
        _table(columns, [[row.get(key, "") for key in columns] for row in sweep], 3)
        if sweep
        else ""
    )
    explained = (
        "recall is the share of the true nearest neighbours, found by exact search, "
        "that the index returns"
    )
    return _part(
        "Certificate",
        f"<p>{text(certificate_line(certificate))}</p>\n{_note(explained)}",
        _curve(sweep),
        table,
    )


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def certificate_line(certificate: Mapping[str, object]) -> str:
    """The certificate in words: "recall@10 0.962 (0.951 to 0.971), 500 queries"."""
    recall, low, high = (_number(certificate.get(key)) for key in ("recall", "low", "high"))
    if recall is None:
        return "not measured"
    line = f"recall@{_value(certificate.get('k', '?'))} {recall:.3f}"
    if low is not None and high is not None:
        line += " (exactly)" if low == high else f" ({low:.3f} to {high:.3f})"
    queries = _number(certificate.get("queries"))
    return (
        line
        if queries is None
        else f"{line}, {queries:,.0f} {'query' if queries == 1 else 'queries'}"
    )


def _curve(sweep: Sequence[Mapping[str, object]]) -> str:
    """Recall over the settings tried, in their order, with their intervals."""
    points = [row for row in sweep if _number(row.get("recall")) is not None]
    if len(points) < 2:
        return ""

    def at(row: Mapping[str, object], key: str) -> float:
        value = _number(row.get(key))
        return 10 + 100 * (
            1 - float(value if value is not None else _number(row.get("recall")) or 0.0)
        )

    step = 560 / (len(points) - 1)
    xs = [50 + step * i for i in range(len(points))]
    path = " ".join(f"{x:.1f},{at(row, 'recall'):.1f}" for x, row in zip(xs, points, strict=True))
    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{at(row, "high"):.1f}" y2="{at(row, "low"):.1f}" '
        'style="stroke:var(--accent);stroke-width:1.5;opacity:.5"></line>'
        f'<circle cx="{x:.1f}" cy="{at(row, "recall"):.1f}" r="3.5" '
        'style="fill:var(--accent)"></circle>'
        for x, row in zip(xs, points, strict=True)
    )
    rules = "".join(
        f'<line x1="40" x2="620" y1="{y}" y2="{y}" style="stroke:var(--line)"></line>'
        f'<text x="32" y="{y + 4}" style="fill:var(--soft);font-size:11px;text-anchor:end">'
        f"{label}</text>"
        for y, label in ((10, "1"), (60, "0.5"), (110, "0"))
    )
    return (
        '<svg viewBox="0 0 640 122" role="img" '
        'aria-label="recall over the settings tried, values in the table below" '
        'style="display:block;max-width:40rem;width:100%;margin:1rem 0">'
        f'{rules}<polyline points="{path}" '
        f'style="fill:none;stroke:var(--accent);stroke-width:2"></polyline>{marks}</svg>\n'
    )


def _files(listed: Sequence[object]) -> str:
    files: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for entry in map(_mapping, listed):
        kind = str(entry.get("kind", "other"))
        files[kind] += 1
        rows[kind] += int(_number(entry.get("rows")) or 0)
        size[kind] += int(_number(entry.get("bytes")) or 0)
    if not files:
        return ""
    table = [
        (kind, count, rows[kind] or "", size_text(size[kind]))
        for kind, count in sorted(files.items())
    ]
    total = f"{sum(files.values()):,} files, {size_text(sum(size.values()))}"
    return _part(
        "Files of the snapshot", _table(("kind", "files", "rows", "size"), table), _note(total)
    )


def render_report(
    manifest: Mapping[str, object], examples: Sequence[tuple[str, str, str]] = ()
) -> str:
    """The report of a snapshot: what became of the files, the index and its certificate.

    Args:
        manifest: As in manifest.json; parts that are missing are left out. `counts` holds the
            statuses of the ledger and `rejected_by_reason`, from reason to number of files.
        examples: Some rejected files as (uri, reason, detail).
    """
    counts, certificate = _mapping(manifest.get("counts")), _mapping(manifest.get("certificate"))
    facts = [
        (label, _value(manifest[key]))
        for key, label in (
            ("created", "created"),
            ("parent", "parent"),
            ("metric", "metric"),
            ("dim", "dimensions"),
        )
        if manifest.get(key) is not None
    ]
    facts.append(("certificate", certificate_line(certificate)))
    return "".join(
        (
            head(f"Snapshot {manifest.get('name', '')}".strip(), facts),
            _ledger(counts),
            _rejects(counts, examples),
            _features(manifest),
            _index(manifest),
            _certificate(certificate),
            _files(_list(manifest.get("files"))),
            "<footer>lookalike</footer>\n</body>\n</html>\n",
        )
    )
