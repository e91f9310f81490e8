"""The benchmark's numbers for people."""

from __future__ import annotations

from typing import Any

from benchmarks.index.measure import K, fastest

_MIB = 1 << 20


def table(document: dict[str, Any]) -> str:
    """What was measured, and a line per way and setting."""
    least = document["recall"]
    lines = [
        f"{document['rows']:,} vectors of {document['dim']} components: {document['vectors']}",
        f"{document['queries']:,} queries held out, {document['rounds']} rounds, medians; "
        f"{document['cores']} cores, {document['workers']} processes to build with",
        ", ".join(f"{name} {value}" for name, value in document["versions"].items()),
        *(["", *_match(document["match"])] if document.get("match") else []),
        "",
        f"{'':30} {'build':>9} {'memory':>10} {'anonymous':>10} {'B/vector':>9}  index",
        *(_built(document, way) for way in document["ways"].values()),
        *(f"not run: {reason}" for reason in document["not_run"].values()),
        "",
        *_stages(document),
        "",
        f"{'':30} {f'recall@{K}':>9} {'queries/s':>10} {'one by one':>10}  setting",
        *(line for way in document["ways"].values() for line in _curve(way)),
        "",
        *_ratios(document, least),
        *_part(document),
    ]
    return "\n".join(lines)


def _built(document: dict[str, Any], way: dict[str, Any]) -> str:
    built = way["built"]
    if built["failed"]:
        return f"{way['title']:30} {built['failed']}"
    told = built["told"]
    chosen = f" ({told['chosen']})" if told.get("chosen") else ""
    return (
        f"{way['title']:30} {built['seconds']:7,.1f} s {built['resident'] / _MIB:6,.0f} MiB "
        f"{built['anonymous'] / _MIB:6,.0f} MiB {told['bytes'] / document['rows']:9,.1f}  "
        f"{told['key']}{chosen}"
    )


def _stages(document: dict[str, Any]) -> list[str]:
    """What took how long in the project's build, and its certificate."""
    told = document["ways"]["lookalike"]["built"]["told"]
    stages, certificate = told.get("stages", {}), told.get("certificate", {})
    if not stages:
        return []
    total = document["ways"]["lookalike"]["built"]["seconds"]
    parts = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in stages.items())
    without = total - stages.get("train", 0)
    return [
        f"{document['ways']['lookalike']['title']}: {parts}; without training {without:,.1f} s",
        f"certified: recall@{certificate['k']} {certificate['recall']:.3f} "
        f"({certificate['low']:.3f} to {certificate['high']:.3f}) at nprobe "
        f"{certificate['nprobe']}, re-ranking {certificate['rerank']}",
    ]


def _curve(way: dict[str, Any]) -> list[str]:
    return [
        f"{way['title']:30} {row['recall']:9.4f} {row['batch_rate']:10,.0f} "
        f"{row['single_rate']:10,.0f}  "
        + ", ".join(f"{name} {value}" for name, value in row["setting"].items())
        for row in sorted(way["curve"], key=lambda row: float(row["recall"]))
    ]


def _ratios(document: dict[str, Any], least: float) -> list[str]:
    """How much faster the project's search is at the recall asked for, and its build."""
    lines = []
    for name, way in document["ways"].items():
        if name == "lookalike" or way["built"]["failed"]:
            continue
        ratios = [
            _ratio(document["ways"]["lookalike"], way, least, rate)
            for rate in ("batch_rate", "single_rate")
        ]
        told = (
            f"{ratios[0]} its queries/s, {ratios[1]} one by one"
            if all(ratios)
            else "not both reach that"
        )
        lines.append(f"at recall@{K} {least:g}, beside {way['title']}: {told}")
    return lines


def _part(document: dict[str, Any]) -> list[str]:
    if document["exact_rows"] == document["rows"] or "exact" not in document["ways"]:
        return []
    return [
        f"exact search took {document['exact_rows']:,} of the rows; its rates are in proportion"
    ]


def _ratio(ours: dict[str, Any], way: dict[str, Any], least: float, rate: str) -> str:
    mine, theirs = fastest(ours, least, rate), fastest(way, least, rate)
    return f"{mine[rate] / theirs[rate]:.2f}x" if mine and theirs else ""


def _match(match: dict[str, Any]) -> list[str]:
    """The real vectors beside as many made from a tenth of them."""
    lines = [
        f"{match['rows']:,} real vectors beside as many made from {match['from_rows']:,} of "
        "them as the rest is made"
    ]
    for title, key in (("lists probed", "probes"), ("first by code", "codes")):
        lines.append(f"{title:16}" + "".join(f"{cell:>8}" for cell in match["real"][key]))
        lines += [
            f"  recall, {name:6}" + "".join(f"{value:8.3f}" for value in match[name][key].values())
            for name in ("real", "made")
        ]
    for key, title in (
        ("tenth", "1 - cosine to the 10th: 5, 25, 50, 75, 95 %"),
        ("nth", "median to the 1st, 10th, 100th"),
    ):
        for name in ("real", "made"):
            lines.append(f"{title}, {name:4}" + "".join(f"{x:8.3f}" for x in match[name][key]))
    return lines
