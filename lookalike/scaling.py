"""What a run over very many images takes on many workers: tasks, time, requests, and what is held.

Processor time comes from what was measured (docs/scale.md says on what), the rest is counted: how
many tasks a stage is cut into, and how many requests each of them makes. Where a stage has fewer
tasks than there are workers, the others wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from lookalike.ivf.predicting import Prediction
from lookalike.ivf.spec import IndexSpec
from lookalike.sources.units import unit_rows_for
from lookalike.store.partitions import PARTITION_ROWS

# Processor time of one core, measured: seconds a row.
LIST_S = 25e-6
RECONCILE_S = 30e-6  # comparing, cutting, settling names and writing the ledger, of a new row
GROUP_S = 1.4e-6  # bringing the lists of all parts together
EMBED_S = 8.8e-3  # of the default's features, a photograph of 500 by 375 pixels

_TASK_ROWS = 1 << 19  # dealt out by one task of an exchange
_EXCHANGES = 5  # compare, cut, known contents, settle by content, conclude by name
_KEYS = 1000  # that one request lists
_LEDGER_BYTES = 120  # of a row
_SCRATCH_BYTES = 250  # of a row, in the listing, dealt out, and in unit files
_LINE_BYTES = 320  # of a file, in a manifest
_RECORD_BYTES = 900  # of a unit, as the launching process holds it
_PARTS_READ = 4 << 20  # bytes that one ranged request brings

LARGE_MANIFEST = 128 << 20
LARGE_TASK = 16 << 30  # memory of a worker, beyond which it is no common machine
MANY_REQUESTS = 100_000_000
LONG_S = 24 * 3600.0


@dataclass(frozen=True)
class Stage:
    """What one stage of a run takes.

    Attributes:
        name: Of the stage.
        tasks: Into which it is cut; no more workers than that have work.
        core_s: Processor time, of one core, in all.
        requests: To the store and the sources.
        seconds: On as many workers of one core as there are.
    """

    name: str
    tasks: int
    core_s: float
    requests: int
    seconds: float


@dataclass(frozen=True)
class Scale:
    """What a first run over so many images takes.

    Attributes:
        workers: Of one core each.
        stages: In order.
        bytes: Stored when it is published, by what it is, and scratch in between.
        launcher_bytes: What the launching process holds that grows with the images.
        worker_bytes: What the largest task holds, beside libraries and models.
        limits: What comes near a limit, and what helps, the first to break first.
    """

    workers: int
    stages: tuple[Stage, ...]
    bytes: dict[str, int]
    launcher_bytes: int
    worker_bytes: int
    limits: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def requests(self) -> int:
        """Of all stages."""
        return sum(stage.requests for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """As `lookalike plan --json` prints it."""
        found = asdict(self)
        return {**found, "seconds": self.seconds, "requests": self.requests}


def scale(
    rows: int,
    spec: IndexSpec,
    predicted: Prediction,
    *,
    workers: int,
    cores: int,
    embed_s: float = EMBED_S,
) -> Scale:
    """Predict a first run.

    Args:
        rows: Images.
        spec: The index planned for them.
        predicted: What that takes on a machine of so many cores.
        workers: Of one core each.
        cores: That `predicted` is for.
        embed_s: Processor time to read, decode and embed one image.
    """
    unit_rows = unit_rows_for(rows)
    units = ceil(rows / unit_rows)
    partitions = max(1, ceil(rows / PARTITION_ROWS))
    dealers = max(1, ceil(rows / _TASK_ROWS))
    parts = max(1, ceil(rows / spec.part_rows))
    read = ceil(predicted.embeddings_bytes / _PARTS_READ)
    # A task writes a file and its record; a partition's reads its piece of each task's file.
    exchange = dealers * partitions + 2 * (dealers + partitions)
    index_read = ceil(predicted.index_bytes / _PARTS_READ)
    shards = spec.shards if parts > 1 else 0
    sample_read = min(spec.train_rows, read)

    def stage(name: str, tasks: int, core_s: float, requests: int) -> Stage:
        return Stage(name, tasks, core_s, requests, core_s / max(1, min(tasks, workers)))

    stages = (
        stage("list", dealers, rows * LIST_S, ceil(rows / _KEYS) + 2 * dealers),
        stage("reconcile", partitions, rows * RECONCILE_S, _EXCHANGES * exchange),
        stage("embed", units, rows * embed_s, rows + 6 * units),
        stage("train", 1, predicted.train_s * cores, sample_read),
        stage("encode", parts, (predicted.encode_s + predicted.truth_s) * cores, read + 4 * parts),
        stage("group", max(1, shards), rows * GROUP_S, parts * shards + index_read),
        stage("certify", max(1, shards), predicted.certify_s * cores, 2 * index_read),
    )
    stored = {
        "embeddings": predicted.embeddings_bytes,
        "index": predicted.index_bytes + predicted.trained_bytes,
        "ledger": rows * _LEDGER_BYTES,
        "scratch": rows * _SCRATCH_BYTES + predicted.index_bytes,
    }
    files = units + parts + partitions
    manifest = files * _LINE_BYTES
    launcher = manifest + units * _RECORD_BYTES
    worker = max(predicted.training_bytes, PARTITION_ROWS * 400, predicted.trained_bytes)
    found = Scale(workers, stages, stored, launcher, worker, ())
    return Scale(
        workers, stages, stored, launcher, worker, tuple(_limits(found, rows, predicted, manifest))
    )


def _limits(found: Scale, images: int, predicted: Prediction, manifest: int) -> Iterator[str]:
    """What is near a limit, the worst first."""
    gib, requests = 1 << 30, found.requests - images
    near = [
        (
            predicted.training_bytes / LARGE_TASK,
            f"training holds {predicted.training_bytes / gib:,.0f} GiB in one task: set "
            "index.memory or index.nlist lower, or give that task a larger machine",
        ),
        (
            predicted.searcher_bytes / LARGE_TASK,
            f"a searching process holds {predicted.searcher_bytes / gib:,.0f} GiB of codes, ids "
            "and centroids: split the images into several stores, and merge their answers",
        ),
        (
            manifest / LARGE_MANIFEST,
            f"the manifest has {manifest / (1 << 20):,.0f} MiB, which whoever opens the store "
            "reads",
        ),
        (
            requests / MANY_REQUESTS,
            f"{requests:,} requests to the store, beside one for each image, which are billed",
        ),
        *(
            (
                stage.seconds / LONG_S,
                f"{stage.name} takes {stage.seconds / 3600:,.0f} hours"
                + (" in one task" if stage.tasks == 1 else "; more workers shorten it"),
            )
            for stage in found.stages
        ),
    ]
    for share, words in sorted(near, key=lambda one: -one[0]):
        if share > 1:
            yield words
