"""The types of what `manifest.json` holds; docs/format.md and docs/json.md say what it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict


class FileJson(TypedDict):
    """A file of the store, as records name it."""

    path: str
    sha256: str
    bytes: int


class FileLine(FileJson, total=False):
    """A file of a snapshot; the keys beyond `kind` depend on that."""

    kind: str
    file_no: int
    rows: int
    partition: list[int]
    delta: bool


class Level(TypedDict):
    """Recall@k at the chosen setting: `[recall, low, high]` before and after re-ranking."""

    k: int
    rerank: int
    queries: int
    before: list[float]
    after: list[float]


class SweepRow(TypedDict):
    """What one setting came to; `before` and `after` map levels to `[recall, low, high]`."""

    nprobe: int
    rerank: int
    recall: float
    low: float
    high: float
    cost: int
    ms: float
    coarse_miss: float
    code_error: float
    before: dict[str, list[float]]
    after: dict[str, list[float]]


class Certificate(TypedDict, total=False):
    """The measured recall, and the setting that was chosen by it."""

    k: int
    target: float
    recall: float
    low: float
    high: float
    queries: int
    population: int
    nprobe: int
    rerank: int
    reached: bool
    levels: list[Level]
    losses: dict[str, float]
    weights: dict[str, float]
    advice: str
    sweep: list[SweepRow]


class Manifest(TypedDict, total=False):
    """Of a snapshot; an earlier version of the program may have left out some keys."""

    format: str
    version: int
    name: str
    digest: str
    created: str
    scanned: str
    lookalike: str
    parent: str | None
    sources: list[str]
    request: Mapping[str, Any]
    metric: str
    dim: int
    model_fingerprint: str
    preprocessing_fingerprint: str
    features: list[Mapping[str, Any]]
    projection: Mapping[str, Any]
    counts: dict[str, Any]
    changes: Mapping[str, Any]
    files: list[FileLine]
    index: Mapping[str, Any]
    search: Mapping[str, Any]
    certificate: Certificate
    stages: dict[str, float]
    next_file_no: int
