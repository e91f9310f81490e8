"""The report of a snapshot: what became of the files, the index and its certificate."""

from __future__ import annotations

from collections.abc import Mapping

from lookalike.pages.changes import changes_part, ledger_part, rejects_part
from lookalike.pages.insides import features_part, files_part, index_part, stages_part
from lookalike.pages.markup import head
from lookalike.pages.nearby import nearby_part
from lookalike.pages.parts import as_mapping, as_number, shown
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


def render_report(facts: Mapping[str, object], pictures: Pictures | None = None) -> str:
    """The page of one snapshot.

    Args:
        facts: As in report.json; parts that are missing are left out.
        pictures: Small JPEG or PNG files by the names of the files that they show.
    """
    certificate, small = as_mapping(facts.get("certificate")), pictures or {}
    line = certificate_line(certificate)
    return "".join(
        (
            head(f"Snapshot {facts.get('name') or ''}".strip(), _summary(facts, line)),
            changes_part(facts, small),
            ledger_part(facts),
            rejects_part(facts, small),
            certificate_part(certificate, line),
            index_part(facts),
            nearby_part(facts, small),
            stages_part(facts),
            features_part(facts),
            files_part(facts),
            "<footer>lookalike</footer>\n</body>\n</html>\n",
        )
    )


def _summary(facts: Mapping[str, object], line: str) -> list[tuple[str, str]]:
    counts = as_mapping(facts.get("counts"))
    labels = {"created": "created", "parent": "parent", "metric": "metric", "dim": "dimensions"}
    known = [
        (label, shown(facts[key])) for key, label in labels.items() if facts.get(key) is not None
    ]
    if as_number(counts.get("vectors")) is not None:
        known.append(("vectors", shown(counts["vectors"])))
    return [*known, ("certificate", line)]
