"""`python -m benchmarks.quality`: how good the features are on pictures that you name.

P@10 and mAP       each picture asked for the others of its folder, by cosine
robustness         pictures changed, asked for the original: mean cosine, recall@1
images/s           the model alone, one thread, on this machine as busy as it is
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.changes import CHANGES, Picture, changed
from benchmarks.command import arguments, run, say
from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.evaluation import average_precision, folder_label
from lookalike.images import preparing as images
from lookalike.images.pixels import Pixels
from lookalike.images.rejections import NotAnImage, Rejected
from lookalike.models.embedder import Embedder
from lookalike.models.fusing import fuse
from lookalike.models.handles import BUILTINS
from lookalike.models.resolving import DEFAULT_FEATURES, FeatureConfig, resolve_features
from lookalike.pipelines.models import choose_engines
from lookalike.sources.contents import Contents
from lookalike.sources.kinds import open_source

K = 10
_BLOCK = 512  # queries at once
_LARGE = (512, 512)  # pixels that pictures to be changed have


def precision_and_map(vectors: Vectors, labels: Sequence[str]) -> tuple[float, float] | None:
    """P@10 and mAP of unit rows, each asked for those of its label.

    None where no two share one, or all do: then every answer is right.
    """
    counts = Counter(labels)
    known = np.unique(np.asarray(labels), return_inverse=True)[1]
    queries = np.flatnonzero([counts[label] > 1 for label in labels])
    if not len(queries) or len(counts) == 1:
        return None
    precision = average = 0.0
    for start in range(0, len(queries), _BLOCK):
        rows = queries[start : start + _BLOCK]
        scores = vectors[rows] @ vectors.T
        scores[np.arange(len(rows)), rows] = -np.inf  # itself, last
        ranking = np.argsort(-scores, axis=1, kind="stable")[:, :-1]
        relevant = known[ranking] == known[rows, None]
        precision += float(relevant[:, :K].sum()) / K
        average += float(average_precision(relevant).sum())
    return precision / len(queries), average / len(queries)


def robustness(originals: Vectors, rows: Sequence[int], changed_: Vectors) -> tuple[float, float]:
    """Mean cosine of changed pictures to their originals (unit rows), and how many find them."""
    own = np.einsum("ij,ij->i", originals[list(rows)], changed_)
    # Equal pictures of a collection are as good an answer: nobody could tell them apart.
    best = (changed_ @ originals.T).max(axis=1)
    return float(own.mean()), float((own >= best - 1e-6).mean())


def measure(given: Namespace) -> list[dict[str, Any]]:
    """Measure every shipped feature and the default on at most `files` pictures of a source.

    Returns:
        For each feature its handle, or "default"; `dim`; `rate`, images/s of the models;
        `precision` at 10 and `mean_average_precision`, None where there is nothing to tell apart;
        and `robustness`: by change, the mean cosine to the original, and the share whose nearest
        it is.

    Raises:
        RequestError: There are fewer than two pictures.
    """
    with TemporaryDirectory(prefix="lookalike-quality-") as work:
        configured = [FeatureConfig(name, f"builtin:{name}") for name in BUILTINS]
        features = resolve_features(configured, Path(work), say)
        features = choose_engines(features, "auto", "cosine", Path(work), lambda line: None)
        embedders = [Embedder([one], Path(work), "cosine", threads=1) for one in features]
        sizes = list(dict.fromkeys(size for one in embedders for size in one.sizes))
        pictures, labels, larges = _read(given.images, given.files, [*sizes, _LARGE], given.changed)
        rows, folders = sorted(larges), len(set(labels))
        say(f"{len(labels):,} pictures of {folders:,} folders, {len(rows)} of them changed")
        altered = {
            name: [_again(larges[row], change, sizes) for row in rows]
            for name, change in CHANGES.items()
        }
        found: dict[str, tuple[float, dict[str, Vectors]]] = {}
        for feature, embedder in zip(features, embedders, strict=True):
            vectors, rate = _embed(embedder, pictures, sizes)
            others = {name: _embed(embedder, one, sizes)[0] for name, one in altered.items()}
            found[feature.handle] = rate, {"": vectors, **others}
    weights = {one.handle: one.weight for one in DEFAULT_FEATURES}
    parts = [found[handle] for handle in weights]
    name = " + ".join(f"{handle} {weight:g}" for handle, weight in weights.items())
    found[f"default: {name}"] = (
        1 / sum(1 / rate for rate, _ in parts),
        {
            change: fuse([part[change] for _, part in parts], [*weights.values()], "cosine")[0]
            for change in ("", *CHANGES)
        },
    )
    lines = []
    for handle, (rate, by_change) in found.items():
        vectors = by_change.pop("")
        precision, average = precision_and_map(vectors, labels) or (None, None)
        robust = {change: robustness(vectors, rows, one) for change, one in by_change.items()}
        lines.append(
            {
                "feature": handle,
                "dim": vectors.shape[1],
                "rate": rate,
                "precision": precision,
                "mean_average_precision": average,
                "robustness": robust,
            }
        )
    return lines


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The two tables."""
    rows = ["| feature | dimensions | P@10 | mAP | images/s |", "|---|---|---|---|---|"]
    for line in lines:
        scores = (line["precision"], line["mean_average_precision"])
        shown = " | ".join("-" if score is None else f"{score:.3f}" for score in scores)
        rows.append(f"| {line['feature']} | {line['dim']:,} | {shown} | {line['rate']:,.0f} |")
    rows += ["", "Mean cosine to the original, and how often it is the nearest:", ""]
    names = [line["feature"].removeprefix("builtin:").partition(":")[0] for line in lines]
    rows.append(f"| changed by | {' | '.join(names)} |")
    rows.append("|---" * (len(lines) + 1) + "|")
    for name in CHANGES:
        cells = ["{:.2f}, {:.2f}".format(*line["robustness"][name]) for line in lines]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


Prepared = tuple[Pixels, ...]


def _read(
    source: str, count: int, sizes: Sequence[tuple[int, int]], sample: int
) -> tuple[list[Prepared], list[str], dict[int, Pixels]]:
    """Pictures at all sizes but the last, their folders, and some at the last, by their number."""
    pictures: list[Prepared] = []
    labels: list[str] = []
    larges: dict[int, Pixels] = {}
    with Contents() as contents:
        files = [file for file in open_source(source).files(lambda line: None) if not file.problem]
        step = max(1, len(files) // count)
        files = files[::step][:count]
        every = max(1, len(files) // max(1, sample))
        for file in files:
            try:
                data = contents.read(file)
                arrays = images.prepare(data, file.uri, sizes=sizes).arrays
            except (Rejected, NotAnImage, OSError):
                continue
            if len(labels) % every == 0 and len(larges) < sample:
                larges[len(labels)] = arrays[-1]
            pictures.append(tuple(arrays[:-1]))
            labels.append(folder_label(file.uri))
    if len(labels) < 2:
        raise RequestError(f"{source}: two pictures at least are needed, {len(labels)} found")
    return pictures, labels, larges


def _again(
    pixels: Pixels, change: Callable[[Picture], Picture], sizes: Sequence[tuple[int, int]]
) -> Prepared:
    data = changed(pixels.tobytes(), _LARGE[::-1], change)
    return tuple(images.prepare(data, "changed.png", sizes=sizes).arrays)


def _embed(
    embedder: Embedder, pictures: Sequence[Prepared], sizes: Sequence[tuple[int, int]]
) -> tuple[Vectors, float]:
    """Unit rows, zero where a feature finds nothing, and images/s."""
    places = [sizes.index(size) for size in embedder.sizes]
    chosen = [tuple(picture[place] for place in places) for picture in pictures]
    embedder.embed(chosen[:1])
    start = time.perf_counter()
    step = embedder.batch
    parts = [embedder.embed(chosen[i : i + step])[0] for i in range(0, len(chosen), step)]
    return np.concatenate(parts), len(chosen) / (time.perf_counter() - start)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and write the JSON file if asked."""
    parser = arguments("benchmarks.quality", __doc__)
    parser.add_argument("--images", metavar="SRC", required=True, help="folders are labels")
    parser.add_argument("--files", type=int, default=5000, help="at most so many (5000)")
    parser.add_argument("--changed", type=int, default=100, help="pictures to change (100)")
    given = parser.parse_args(argv)
    if given.files < 2 or given.changed < 1:
        parser.error("--files must be at least 2 and --changed at least 1")
    return run("bench-quality", given, measure, markdown)


if __name__ == "__main__":
    sys.exit(main())
