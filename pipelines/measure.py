"""What `pipelines.bench` measures: stages of lookalike, each beside a plain way to do it.

Baselines run in turn with what they are compared with, so that a slow or busy machine tells on
both. What is reported is the ratio; the rest is its evidence.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter, time
from typing import Any

import numpy as np
from PIL import Image

import lookalike
from lookalike import images, models, snapshot
from lookalike.embedding import BATCH
from lookalike.errors import RequestError
from lookalike.features import Embedder, Feature
from lookalike.images import NotAnImage, Rejected
from lookalike.metrics import better_is_higher, score
from lookalike.recall import recall_at_k
from lookalike.sampling import all_ids, read_sample
from lookalike.sources import open_source
from lookalike.storage import read_bytes
from pipelines.config import Config, PublishConfig
from pipelines.demo.pictures import recipes
from pipelines.index import run_index
from pipelines.models import install, resolve_features
from pipelines.progress import Progress

DRAWN = 180
DECODED = 200  # pictures per measurement of decoding
QUERIES, K = 200, 10
SEARCHES = 5  # per round: one search takes milliseconds


@dataclass
class Row:
    """One comparison: rates of ours and of the baseline, a number per round."""

    stage: str
    ours: str
    baseline: str
    unit: str
    rates: list[float] = field(default_factory=list)
    baseline_rates: list[float] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return median(self.rates) / median(self.baseline_rates)

    def to_json(self) -> dict[str, Any]:
        """With the medians."""
        medians = {"rate": median(self.rates), "baseline_rate": median(self.baseline_rates)}
        return {**self.__dict__, **medians, "ratio": self.ratio}


def measure(config: Config, files: list[Path], rounds: int, work: Path) -> list[Row]:
    """Measure everything; `files` are pictures that can be decoded, all in one folder."""
    (work / "models").mkdir()
    features = resolve_features(config.features, work / "models", lambda line: None)
    install(work / "store", features, work / "models")
    embedder = Embedder(features, work / "store", config.metric)
    decode = Row("decode", "lookalike.images", "Pillow open, convert, resize", "images/s/core")
    stage, loop = "embed stage", "plain loop, same decode and model"
    in_processes = f"{stage}, {config.runner.processes} processes"
    plain = Row("embed", in_processes, loop, "images/s")
    hub = Row("embed", in_processes, "plain loop, hub.load's model", "images/s")
    searches: dict[str, Row] = {}
    hub_embed = _hub_embed(features, work / "store")

    encoded = [path.read_bytes() for path in files[:DECODED]]
    size = embedder.sizes[0]
    for number in range(rounds):
        rates = _in_turn(
            encoded,
            lambda data: _decode(data, size, embedder.min_side),
            lambda data: _pillow(data, size),
        )
        decode.rates.append(rates[0])
        decode.baseline_rates.append(rates[1])

        # The first round as configured, the others with a compressed index.
        forced = {**config.index, "kind": "ivf_pq"} if number else config.index
        store = work / f"store-{number}"
        rate, start_up = _embed_stage(replace(config, index=forced), files[0].parent, store)
        for row in (plain, hub):
            row.rates.append(rate)
            row.notes["start_up_s"] = start_up
        plain.baseline_rates.append(_loop(files, embedder, config, embedder.embed))
        hub.baseline_rates.append(_loop(files, embedder, config, hub_embed))

        found = _search(store, number)
        row = searches.setdefault(found.ours, found)
        if row is not found:
            row.rates += found.rates
            row.baseline_rates += found.baseline_rates
    return [decode, plain, hub, *searches.values()]


def _in_turn(items: Sequence[bytes], *ways: Callable[[bytes], Any]) -> list[float]:
    """Items/s of each way, changing ways at every item, and who goes first."""
    seconds = [0.0] * len(ways)
    for number, item in enumerate(items):
        for step in range(len(ways)):
            way = (number + step) % len(ways)
            began = perf_counter()
            ways[way](item)
            seconds[way] += perf_counter() - began
    return [len(items) / spent for spent in seconds]


def _decode(data: bytes, size: tuple[int, int], min_side: int) -> Any:
    return images.resize(images.decode(data, min_side=min_side).pixels, size)


def _pillow(data: bytes, size: tuple[int, int]) -> Any:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))


class _EmbedClock(Progress):
    """Says nothing; notes when the embed stage began."""

    began = 0.0

    @contextmanager
    def stage(self, name: str, *_: Any, **__: Any) -> Iterator[None]:
        if name == "embed":
            self.began = time()
        yield


def _embed_stage(config: Config, folder: Path, store: Path) -> tuple[float, float]:
    """Index the folder; returns the warm images/s of the embed stage, and its start-up in seconds.

    Warm is from when every process has finished its first unit to the end of the last one, which
    the times of the finished shards tell; what that rate does not explain is start-up.
    """
    clock = _EmbedClock(quiet=True)
    clear = replace(config, publish=PublishConfig(min_recall=0, max_rejected_share=1))
    run_index(clear, [str(folder)], str(store), clock)
    lines = snapshot.files_of(snapshot.read_manifest(store), "embedding")
    ends = sorted(((store / line["path"]).stat().st_mtime, line["rows"]) for line in lines)
    first = min(config.runner.processes, len(ends) - 1)
    if not first:
        raise RequestError("too few pictures for more than one work unit; give more --files")
    rows = sum(count for _, count in ends)
    warm = sum(count for _, count in ends[first:])
    rate = warm / (ends[-1][0] - ends[first - 1][0])
    return rate, max(0.0, ends[-1][0] - clock.began - rows / rate)


def _loop(files: Sequence[Path], embedder: Embedder, config: Config, embed: Any) -> float:
    """Images/s of one process that decodes and embeds batch after batch."""
    waiting: list[Any] = []
    embedder.embed([embedder.prepare(np.zeros((8, 8, 3), np.uint8))])  # the first call compiles
    embed([embedder.prepare(np.zeros((8, 8, 3), np.uint8))])
    began = perf_counter()
    for number, path in enumerate(files, 1):
        decoded = images.decode(
            path.read_bytes(), path.name, limits=config.limits, min_side=embedder.min_side
        )
        waiting.append(embedder.prepare(decoded.pixels))
        if len(waiting) == BATCH or number == len(files):
            embed(waiting)
            waiting = []
    return len(files) / (perf_counter() - began)


def _hub_embed(features: Sequence[Feature], store: Path) -> Callable[[Sequence[Any]], Any]:
    """What people write: hub.load, then call it batch by batch, its variables as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources
        import tensorflow_hub as hub
    loaded = [hub.load(str(store / feature.folder)) for feature in features]
    sizes = list(dict.fromkeys(feature.info.input_size for feature in features))

    def embed(prepared: Sequence[Any]) -> Any:
        blocks = []
        for feature, model in zip(features, loaded, strict=True):
            at = sizes.index(feature.info.input_size)
            batch = models.scaled(np.stack([each[at] for each in prepared]), feature.info)
            outputs = models.outputs_of(models.call(model, feature.info, batch))
            blocks.append(outputs[feature.info.output].numpy())
        return blocks

    return embed


def _search(store: Path, seed: int) -> Row:
    """Queries/s on a store just built, and recall@10 against all of its vectors."""
    searcher = lookalike.open(store)
    shards = [line["path"] for line in snapshot.files_of(searcher.manifest, "embedding")]
    ids = np.sort(np.concatenate(list(all_ids(store, shards))))
    vectors = read_sample(store, shards, ids)
    queries = np.random.default_rng(seed).choice(vectors, min(QUERIES, len(vectors)), replace=False)
    ours = f"{searcher.spec.kind}, {len(ids):,} vectors"
    row = Row("search", ours, "numpy brute force in memory", "queries/s")
    found, exact = searcher.search_vectors(queries, K)  # the first reads files
    true, best = _brute_force(queries, ids, vectors, searcher.metric)
    recall = recall_at_k(found, exact, true, best, K, searcher.metric)
    row.notes[f"recall@{K}"] = float(recall.mean())
    for _ in range(SEARCHES):
        began = perf_counter()
        searcher.search_vectors(queries, K)
        row.rates.append(len(queries) / (perf_counter() - began))
        began = perf_counter()
        _brute_force(queries, ids, vectors, searcher.metric)
        row.baseline_rates.append(len(queries) / (perf_counter() - began))
    return row


def _brute_force(queries: Any, ids: Any, vectors: Any, metric: str) -> tuple[Any, Any]:
    inner = metric in ("cosine", "inner_product")  # stored vectors have unit length under cosine
    scores = queries @ vectors.T if inner else score(queries, vectors, metric)
    order = -scores if better_is_higher(metric) else scores
    nearest = np.argpartition(order, min(K, len(ids)) - 1, axis=1)[:, :K]
    rank = np.argsort(np.take_along_axis(order, nearest, axis=1), axis=1, kind="stable")
    nearest = np.take_along_axis(nearest, rank, axis=1)
    return ids[nearest], np.take_along_axis(scores, nearest, axis=1)


def gather(source: str | None, count: int, folder: Path) -> list[Path]:
    """Put `count` pictures with different bytes into one folder: the source's, or drawn ones.

    Where there are fewer they are repeated, a few bytes of their own after the end of each.

    Raises:
        RequestError: There is no picture.
    """
    folder.mkdir(parents=True)
    if source:
        found = islice(open_source(source).files(lambda line: None), count)
        originals = [(Path(file.uri).suffix, read_bytes(file.uri)) for file in found
                     if not file.problem]  # fmt: skip
    else:
        drawn = [one for one in recipes() if one[0].startswith("pictures/")][::2][:DRAWN]
        originals = [(Path(name).suffix, make()) for name, make in drawn[:count]]
    usable = []
    for suffix, data in originals:
        try:
            images.decode(data + b"\0bench", suffix)
        except (Rejected, NotAnImage):
            continue
        usable.append((suffix, data))
    if not usable:
        raise RequestError(f"{source}: no picture there that can be decoded")
    paths = []
    for number in range(count):
        suffix, data = usable[number % len(usable)]
        paths.append(folder / f"{number:06d}{suffix}")
        paths[-1].write_bytes(data + b"\0" + str(number).encode())
    return paths
