"""What every way of embedding is given and gives back (see `benchmarks.embed`)."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name

import numpy as np
from PIL import Image

from benchmarks.child import Answers, RefusedError
from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.images import preparing as images
from lookalike.images.limits import ImageLimits
from lookalike.images.pixels import Pixels
from lookalike.models.embedder import Embedder
from lookalike.models.features import Feature
from lookalike.models.fusing import fuse

Lot = tuple[float, int]
"""When a lot of pictures was finished, in seconds since 1970, and how many they are."""

HAND_BATCH = 32
"""Pictures per call of a model where somebody wrote the loop by hand."""


@dataclass(frozen=True)
class Task:
    """The pictures to embed, and with what.

    Attributes:
        files: The pictures, all in one folder, in the order of their names.
        metric: Of the config.
        limits: Of the config.
        processes: Worker processes.
        threads: Threads of each.
        config: The pickled Config: only what is to import Beam can afford to unpickle it.
        store: Folder that the features' folders are relative to.
        features: The models, with the engine chosen for each.
        by_hand: SavedModels of the features, as somebody would take them who writes the loop.
        batch: Pictures per call of the engine, as the pipeline has it.
    """

    files: tuple[Path, ...]
    metric: str
    limits: ImageLimits
    processes: int
    threads: int
    config: bytes
    store: Path
    features: tuple[Feature, ...] = ()
    by_hand: tuple[Path, ...] = ()
    batch: int = 0

    @property
    def engines(self) -> list[str]:
        """Names of the engine of each feature."""
        return [feature.engine.name for feature in self.features]

    @property
    def inputs(self) -> list[tuple[tuple[int, int], str]]:
        """(height, width) and dtype that the models take, without repeats."""
        infos = [feature.info for feature in self.features]
        return list(dict.fromkeys((info.input_size, info.input_dtype) for info in infos))

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Distinct (height, width) of the models' inputs, as `Embedder.sizes` has them."""
        return tuple(dict.fromkeys(feature.info.input_size for feature in self.features))

    def embedder(self) -> Embedder:
        """The engine of the pipeline, loaded as its workers load it."""
        return Embedder(self.features, self.store, self.metric, threads=self.threads)

    def prepare(self, path: Path) -> tuple[Pixels, ...]:
        """From a file to the models' inputs, (h, w, 3) uint8 each, as the pipeline does it."""
        return images.prepare(
            path.read_bytes(), path.name, sizes=self.sizes, limits=self.limits
        ).arrays

    def prepare_by_pillow(self, path: Path) -> tuple[Pixels, ...]:
        """The same as somebody does it who writes the loop by hand."""
        data = path.read_bytes()
        return tuple(pillow(data, size) for size in self.sizes)

    def join(self, blocks: Sequence[Vectors]) -> Vectors:
        """Put the models' vectors side by side as the pipeline does, (n, d), to compare them."""
        return fuse(blocks, [feature.weight for feature in self.features], self.metric)[0]


@dataclass(frozen=True)
class Timing:
    """One way in one round.

    Attributes:
        images: Pictures that it finished.
        rate: Images/s once warm.
        ended: When the last one was finished, in seconds since 1970.
        warm_s: Seconds that the rate is measured over.
        start_up_s: Seconds from its launch to its last picture that the warm rate does not explain.
        stage_start_up_s: The same from the beginning of the embed stage, in the pipeline.
        engines: What computed each feature in the pipeline, which chooses in every run.
        peak_bytes: Resident memory of its processes together at its highest until the last picture;
            None where the system does not tell, or it was over before it was looked at enough.
        cosine: Mean and least cosine of its vectors to the pipeline's, where it makes any.
    """

    images: int
    rate: float
    ended: float
    warm_s: float
    start_up_s: float | None = None
    stage_start_up_s: float | None = None
    engines: list[str] | None = None
    peak_bytes: int | None = None
    cosine: tuple[float, float] | None = None


def timing_of(processes: Sequence[Sequence[Lot]]) -> Timing:
    """Images/s while all processes are warm and busy.

    That is from when the last process has finished its first lot to when the first process has
    finished its last; between the ends of two lots, a process is taken to go on evenly. (Where the
    processes were never busy all at once, it is to when the last has finished.)

    Args:
        processes: The lots of each process, two or more each, in the order of their ends. The first
            may be of no images: then it says when the process, already warm, began.
    """
    times = [[when for when, _ in lots] for lots in processes]
    totals = [np.cumsum([count for _, count in lots]) for lots in processes]
    start, ended = max(ends[0] for ends in times), max(ends[-1] for ends in times)
    until = min(ends[-1] for ends in times)
    if until <= start:
        until = ended
    warm = sum(
        float(np.interp(until, ends, total) - np.interp(start, ends, total))
        for ends, total in zip(times, totals, strict=True)
    )
    images = int(sum(total[-1] for total in totals))
    return Timing(images, warm / (until - start), ended, until - start)


def answer(function: str, out: str) -> Answers:
    """Run a way, of which `function(task)` is the timing and the vectors, for `benchmarks.child`.

    The task is read from out/task.pickle. The vectors, where there are any, are left in
    out/vectors.npy: (n, d) in the order of the task's files.
    """
    task: Task = pickle.loads((Path(out) / "task.pickle").read_bytes())
    try:
        timing, vectors = resolve_name(function)(task)
    except RequestError as error:
        raise RefusedError(str(error)) from error
    if vectors is not None:
        np.save(Path(out) / "vectors.npy", vectors)
    yield timing.__dict__


def pillow(data: bytes, size: tuple[int, int]) -> Pixels:
    """Open, convert, resize, as samples have it: (height, width, 3) uint8."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
