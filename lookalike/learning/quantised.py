"""What a network in 8 bits costs and gains beside the one in float32, on pictures not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.learning.held_out import Fold, Gain, gain_of
from lookalike.learning.labelled import OTHER, Labels
from lookalike.models.openvino_engine import OpenVINOModel

K = 10
LEAST_COSINE, MOST_LOSS, LEAST_RECALL, LEAST_FASTER = 0.98, 0.01, 0.8, 1.1
"""What is still worth it: mean cosine, precision at K (recall without labels), and speed."""

_TIMED = 24  # batches, at least; the middle one counts
Pictures = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Cost:
    """A network in 8 bits, compared.

    Attributes:
        pictures: That it was compared on.
        cosine: Mean of its vectors to those in float32.
        least: The lowest of these.
        recall: Share of the K nearest in float32 that are among its K nearest, by cosine.
        precision: At K, before and after, where the pictures have labels.
        rates: Pictures per second, in float32 and in 8 bits.
        in_integers: Whether it was calculated so, and not in float32.
    """

    pictures: int
    cosine: float
    least: float
    recall: float
    precision: Gain | None
    rates: tuple[float, float]
    in_integers: bool

    @property
    def faster(self) -> float:
        """How many times as many pictures per second."""
        return self.rates[1] / self.rates[0]

    def reasons_against(self) -> list[str]:
        """Why it is not worth it, each with the bound; none where it is."""
        found = []
        if self.faster < LEAST_FASTER:
            why = (
                ""
                if self.in_integers
                else (
                    ", as this processor adds in 16 bits, where sums saturate, so that it is "
                    "calculated in float32"
                )
            )
            found.append(f"{self.faster:.2f} times as fast, below {LEAST_FASTER}{why}")
        if self.cosine < LEAST_COSINE:
            found.append(f"a mean cosine of {self.cosine:.4f} to float32, below {LEAST_COSINE}")
        if self.precision is None:
            if self.recall < LEAST_RECALL:
                found.append(
                    f"{self.recall:.3f} of the {K} nearest in float32 found, below {LEAST_RECALL}"
                )
        elif self.precision.after < self.precision.before - MOST_LOSS:
            loss = self.precision.before - self.precision.after
            found.append(f"{loss:.3f} of precision at {K} lost, more than {MOST_LOSS}")
        return found

    def to_json(self) -> dict[str, Any]:
        """As --json prints it."""
        return {
            "pictures": self.pictures,
            "cosine": self.cosine,
            "least_cosine": self.least,
            "recall": self.recall,
            "precision": self.precision.to_json() if self.precision else None,
            "images_per_second": {"float32": self.rates[0], "int8": self.rates[1]},
            "faster": self.faster,
            "in_integers": self.in_integers,
            "reasons_against": self.reasons_against(),
        }


def compare(
    exact: OpenVINOModel, quantised: OpenVINOModel, pictures: Pictures, names: Sequence[str]
) -> Cost:
    """Compare a network in 8 bits with the one it was made of.

    Args:
        exact: The one in float32.
        quantised: The one in 8 bits.
        pictures: (n, height, width, 3) uint8, n above K; none that it was calibrated on.
        names: Of each picture, the folder that it lies in. These are labels where most pictures
            share theirs with another, and there are two or more.

    Raises:
        RequestError: A vector is zero or not finite for most pictures.
    """
    before, after, rates = _vectors(exact, quantised, pictures)
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    sound = np.isfinite(lengths) & (lengths > 0)
    if sound.sum() <= max(K, len(sound) // 2):
        raise RequestError(
            f"{len(sound) - int(sound.sum()):,} of {len(sound):,} pictures have vectors that are "
            "zero or not finite; the model is of no use for them"
        )
    before, after = _unit(before[sound]), _unit(after[sound])
    cosines = np.einsum("ij,ij->i", before, after)
    labels = _labels([name for name, use in zip(names, sound, strict=True) if use])
    return Cost(
        len(before),
        float(min(cosines.mean(), 1.0)),
        float(min(cosines.min(), 1.0)),
        _recall(before, after),
        None if labels is None else _precision(before, after, labels),
        rates,
        quantised.in_integers,
    )


def _vectors(
    exact: OpenVINOModel, quantised: OpenVINOModel, pictures: Pictures
) -> tuple[Vectors, Vectors, tuple[float, float]]:
    """Vectors by both (n, d), and the pictures per second of both, batch by batch in turn."""
    batch, models = exact.batch, (exact, quantised)
    starts = range(0, len(pictures), batch)
    vectors: tuple[list[Vectors], list[Vectors]] = ([], [])
    times: tuple[list[float], list[float]] = ([], [])
    for model in models:
        model(pictures[:batch])  # which compiles
    for start in [*starts, *islice(cycle(starts), max(0, _TIMED - len(starts)))]:
        some = pictures[start : start + batch]
        for model, found, seconds in zip(models, vectors, times, strict=True):
            began = perf_counter()
            found.append(model(some))
            if len(some) == batch:
                seconds.append(perf_counter() - began)
    before, after = (np.concatenate(found)[: len(pictures)] for found in vectors)
    first, second = (batch / float(np.median(seconds)) for seconds in times)
    return before, after, (first, second)


def _unit(vectors: Vectors) -> Vectors:
    exact = vectors.astype(np.float64)
    unit: Vectors = (exact / np.linalg.norm(exact, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _nearest(vectors: Vectors) -> npt.NDArray[np.intp]:
    """The K nearest others of each (n, K), by the cosine; no order among them."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, K - 1, axis=1)[:, :K]


def _recall(before: Vectors, after: Vectors) -> float:
    right, found = _nearest(before), _nearest(after)
    shared = [len(np.intersect1d(a, b)) for a, b in zip(right, found, strict=True)]
    return float(np.mean(shared) / K)


def _labels(names: Sequence[str]) -> Labels | None:
    """Labels (n,), OTHER for those alone with theirs; None where names are none."""
    _, labels, counts = np.unique(np.array(names), return_inverse=True, return_counts=True)
    shared = counts[labels] > 1
    if (counts > 1).sum() < 2 or shared.mean() < 0.5:
        return None
    return np.where(shared, labels, OTHER)


def _precision(before: Vectors, after: Vectors, labels: Labels) -> Gain:
    fold = Fold(np.arange(len(labels)), np.flatnonzero(labels != OTHER), labels, K)
    return gain_of([fold], [fold.precision(before)], [fold.precision(after)])
