"""The report of a snapshot: what became of the files, the index and its certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lookalike.faults import Faults
from lookalike.pages.changes import changes_part, ledger_part, rejects_part
from lookalike.pages.insides import features_part, files_part, index_part, stages_part
from lookalike.pages.markup import head
from lookalike.pages.nearby import nearby_part
from lookalike.pages.parts import as_mapping, as_note, as_number, as_part, shown
from lookalike.pages.quality import certificate_part
from lookalike.pages.tiles import Pictures


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


def render_report(
    facts: Mapping[str, object], pictures: Pictures | None = None, faults: Faults | None = None
) -> str:
    """The page of one snapshot.

    Args:
        facts: As in report.json; parts that are missing are left out. `faults` names facts that
            could not be had, and why.
        pictures: Small JPEG or PNG files by the names of the files that they show.
        faults: Takes note of sections that cannot be made; each has a note in its place.
    """
    certificate, small = as_mapping(facts.get("certificate")), pictures or {}
    made, lost = faults or Faults(), as_mapping(facts.get("faults"))
    line = made.spare("certificate line", lambda: certificate_line(certificate), "not known")
    # Every section, and the facts that it is about.
    sections: tuple[tuple[str, tuple[str, ...], Callable[[], str]], ...] = (
        ("Changes", ("samples",), lambda: changes_part(facts, small)),
        ("Files", (), lambda: ledger_part(facts)),
        ("Rejected", (), lambda: rejects_part(facts, small)),
        ("Certificate", (), lambda: certificate_part(certificate, line)),
        ("Index", ("lists", "codes"), lambda: index_part(facts)),
        ("Neighbours", ("neighbourhoods",), lambda: nearby_part(facts, small)),
        ("Time", ("stages",), lambda: stages_part(facts)),
        ("Features", (), lambda: features_part(facts)),
        ("Files of the snapshot", ("files",), lambda: files_part(facts)),
    )
    title = f"Snapshot {facts.get('name') or ''}".strip()
    pieces = [made.spare("summary", lambda: head(title, _summary(facts, line)), head(title, ()))]
    for heading, about, make in sections:
        content = made.spare(f"section {heading}", make, "")
        why = [made.noted.get(f"section {heading}"), *(lost.get(one) for one in about)]
        notes = [as_note(f"left out: {one}", bad=True) for one in why if one]
        pieces.append(content + (as_part(heading, *notes) if notes else ""))
    pieces.append("<footer>lookalike</footer>\n</body>\n</html>\n")
    return "".join(pieces)


def _summary(facts: Mapping[str, object], line: str) -> list[tuple[str, str]]:
    counts = as_mapping(facts.get("counts"))
    labels = {"created": "created", "parent": "parent", "metric": "metric", "dim": "dimensions"}
    known = [
        (label, shown(facts[key])) for key, label in labels.items() if facts.get(key) is not None
    ]
    if as_number(counts.get("vectors")) is not None:
        known.append(("vectors", shown(counts["vectors"])))
    return [*known, ("certificate", line)]
