"""Answers as they leave: JSON for the page, or a file to keep."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
from starlette.requests import Request
from starlette.responses import Response

from lookalike.cells import json_value
from lookalike.distances import Ids
from lookalike.json_text import to_json
from lookalike.report.certificate import certificate_line
from lookalike.search.answer_rows import answer_schema, answer_table, csv_lines, json_lines
from lookalike.search.neighbour import Neighbours
from lookalike.search.searcher import Searcher
from lookalike.serve import browsing
from lookalike.serve.limits import Limits
from lookalike.serve.near_copies import NEAREST, NearCopies
from lookalike.serve.query import FORMATS

_TYPES = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}


def json_response(value: Any) -> Response:
    """A value as JSON that every parser reads; nobody keeps it."""
    return _json(json_value(value))


def _json(value: Any) -> Response:
    """The same of what has nothing in it that JSON has not, as an answer's rows are."""
    return Response(to_json(value), 200, {"Cache-Control": "no-store"}, "application/json")


def tagged_response(request: Request, data: bytes, kind: str, keep: str) -> Response:
    """A file, or the word that the browser has it already."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": keep}
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(data, 200, headers, kind)


def answer_response(
    found: Neighbours, now: Searcher, format: str, more: Mapping[str, Any]
) -> Response:
    """The neighbours of a query in one of `FORMATS`; `more` goes with JSON."""
    if format == FORMATS[0]:
        rows = [{k: v for k, v in one.to_dict().items() if k != "query_uri"} for one in found]
        return _json(
            {
                "neighbours": rows,
                "snapshot": now.manifest["name"],
                "complete": found.complete,
                "metric": now.metric,
                **more,
            }
        )
    schema = answer_schema(now.metadata_schema)
    if format == "parquet":
        out = io.BytesIO()
        pq.write_table(answer_table(found, schema), out, compression="zstd")
        data = out.getvalue()
    elif format == "csv":
        data = "".join(csv_lines(found, schema.names)).encode("utf-8", "backslashreplace")
    else:
        data = "".join(json_lines(found)).encode()
    name = f'attachment; filename="lookalike.{format}"'
    headers = {"Content-Disposition": name, "Cache-Control": "no-store"}
    return Response(data, 200, headers, _TYPES[format])


def listing_response(
    listing: browsing.Listing, found: Neighbours, now: Searcher, scores: bool = False
) -> Response:
    """Rows that are no answer to a query."""
    return _json(
        {
            "images": _rows(found, scores),
            "total": listing.total,
            "next": listing.next,
            "snapshot": now.manifest["name"],
            "metric": now.metric,
        }
    )


def groups_response(
    near: NearCopies, offset: int, shown: Sequence[Ids], rows: Neighbours, now: Searcher
) -> Response:
    """Groups of near-copies from a place on: some rows of each, one group's after the other's."""
    told, end = iter(_rows(rows)), offset + len(shown)
    counts = [len(ids) for ids in near.groups[offset:end]]
    return _json(
        {
            "groups": [
                {"count": count, "images": [next(told) for _ in ids]}
                for count, ids in zip(counts, shown, strict=True)
            ],
            "total": len(near.groups),
            "next": end if end < len(near.groups) else None,
            "threshold": near.threshold,
            "looked": near.looked,
            "nearest": NEAREST,
            "of": near.of,
            "snapshot": now.manifest["name"],
            "metric": now.metric,
        }
    )


def _rows(found: Neighbours, scores: bool = False) -> list[dict[str, Any]]:
    left_out = {"query_uri", "rank", *(() if scores else ("score",))}
    return [{k: v for k, v in one.to_dict().items() if k not in left_out} for one in found]


def stats(now: Searcher, limits: Limits, problem: str) -> dict[str, Any]:
    """What there is to know of a snapshot.

    Args:
        now: It, open.
        limits: Of requests.
        problem: Why a newer one cannot be opened; "" where there is none.
    """
    manifest, certificate = now.manifest, now.manifest.get("certificate") or {}
    features = [
        {
            "name": one["name"],
            "handle": one["handle"],
            "weight": one["weight"],
            "dim": one["info"]["dim"],
        }
        for one in manifest.get("features") or []
    ]
    weighed = len(features) > 1 and not manifest.get("projection")
    return {
        "store": str(now.store),
        "snapshot": manifest["name"],
        "created": manifest.get("created"),
        "images": now.count,
        "metric": now.metric,
        "dim": now.dim,
        "index": {"kind": now.spec.kind, "nlist": now.spec.nlist, "nprobe": now.default_nprobe},
        "features": features,
        "weights": weighed and now.metric in ("cosine", "inner_product"),
        "unlike": now.metric in ("cosine", "inner_product"),
        "pictures": bool(features),
        "certificate": {
            "line": certificate_line(certificate),
            **{key: certificate.get(key) for key in ("k", "recall", "low", "high", "queries")},
        },
        "counts": manifest.get("counts") or {},
        "columns": browsing.columns_of(now),
        "limits": {
            "k": limits.k,
            "pictures": limits.pictures,
            "upload_bytes": limits.upload_bytes,
            "image_pixels": limits.image.max_pixels,
        },
        "problem": problem,
    }
