"""The report of a snapshot: what became of the files, the index and its certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lookalike.pages.markup import head, shorten, visible
from lookalike.pages.parts import as_list, as_mapping, as_note, as_number, as_part, as_table, shown
from lookalike.pages.quality import certificate_part


def size_text(count: float) -> str:
    """Bytes for people: 512 bytes, 1.5 MiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"


LEDGER = ("embedded", "unchanged", "duplicate", "rejected", "ignored")


def _ledger(counts: Mapping[str, object]) -> str:
    numbers = {key: int(as_number(counts.get(key)) or 0) for key in ("listed", *LEDGER)}
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
        f"{key}: {shown(value)}"
        for key, value in counts.items()
        if key not in numbers and as_number(value) is not None
    ]
    return as_part(
        "Files",
        as_table(("status", "files", "meaning"), rows),
        as_note(verdict, not balanced),
        as_note("; ".join(others)) if others else "",
    )


def _rejects(counts: Mapping[str, object], examples: Sequence[tuple[str, str, str]]) -> str:
    reasons = as_mapping(counts.get("rejected_by_reason"))
    if not reasons and not examples:
        return ""
    by_number = sorted(reasons.items(), key=lambda item: (-(as_number(item[1]) or 0), item[0]))
    parts = [as_table(("reason", "files"), by_number)] if by_number else []
    if examples:
        rows = [
            (shorten(visible(uri), 160), reason, shorten(visible(detail), 200))
            for uri, reason, detail in examples
        ]
        parts += [
            as_note("some of them, with the words of the decoder:"),
            as_table(("file", "reason", "detail"), rows),
        ]
    return as_part("Rejected", *parts)


def _features(manifest: Mapping[str, object]) -> str:
    listed = manifest.get("features")
    rows = []
    for feature in listed if isinstance(listed, (list, tuple)) else ():
        known, info = as_mapping(feature), as_mapping(as_mapping(feature).get("info"))
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
    return as_part(
        "Features",
        as_table(("name", "handle", "weight", "dim", "fingerprint"), rows),
        *map(as_note, prints),
    )


def _index(manifest: Mapping[str, object]) -> str:
    index, search = as_mapping(manifest.get("index")), as_mapping(manifest.get("search"))
    spec = {
        **as_mapping(index.get("spec")),
        **{key: value for key, value in index.items() if key != "spec"},
    }
    rows: list[tuple[str, str]] = [
        (key, shown(value))
        for key, value in spec.items()
        if value is not None and not isinstance(value, (dict, list))
    ]
    rows += [("why", str(reason)) for reason in as_list(index.get("reasons"))]
    rows += [(f"default {key}", shown(value)) for key, value in search.items() if value is not None]
    return as_part("Index", as_table(("parameter", "value"), rows)) if rows else ""


def certificate_line(certificate: Mapping[str, object]) -> str:
    """The certificate in words: "recall@10 0.962 (0.951 to 0.971), 500 queries"."""
    recall, low, high = (as_number(certificate.get(key)) for key in ("recall", "low", "high"))
    if recall is None:
        return "not measured"
    line = f"recall@{shown(certificate.get('k', '?'))} {recall:.3f}"
    if low is not None and high is not None:
        line += " (exactly)" if low == high else f" ({low:.3f} to {high:.3f})"
    queries = as_number(certificate.get("queries"))
    return (
        line
        if queries is None
        else f"{line}, {queries:,.0f} {'query' if queries == 1 else 'queries'}"
    )


def _files(listed: Sequence[object]) -> str:
    files: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    size: Counter[str] = Counter()
    for entry in map(as_mapping, listed):
        kind = str(entry.get("kind", "other"))
        files[kind] += 1
        rows[kind] += int(as_number(entry.get("rows")) or 0)
        size[kind] += int(as_number(entry.get("bytes")) or 0)
    if not files:
        return ""
    table = [
        (kind, count, rows[kind] or "", size_text(size[kind]))
        for kind, count in sorted(files.items())
    ]
    total = f"{sum(files.values()):,} files, {size_text(sum(size.values()))}"
    return as_part(
        "Files of the snapshot", as_table(("kind", "files", "rows", "size"), table), as_note(total)
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
    counts, certificate = (
        as_mapping(manifest.get("counts")),
        as_mapping(manifest.get("certificate")),
    )
    facts = [
        (label, shown(manifest[key]))
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
            certificate_part(certificate, certificate_line(certificate)),
            _files(as_list(manifest.get("files"))),
            "<footer>lookalike</footer>\n</body>\n</html>\n",
        )
    )
