"""What `lookalike models --quantize` says of a model in 8 bits, and writes beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike import __version__
from lookalike.json_text import to_json
from lookalike.learning.quantised import Cost, K
from lookalike.models import openvino_engine
from lookalike.models.features import Feature
from lookalike.report.text import visible

CALIBRATE = 256  # pictures, at most
CARD = "README.md"


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures, in random order.

    Attributes:
        pixels: (n, height, width, 3) uint8.
        folders: The folder of each.
        failed: The others tried, by status and reason.
    """

    pixels: npt.NDArray[np.uint8]
    folders: list[str]
    failed: Counter[str]

    @property
    def calibrating(self) -> int:
        """How many of them, from the first, to calibrate on; the others are to compare on."""
        return min(CALIBRATE, len(self.pixels) // 2)


@dataclass(frozen=True)
class Made:
    """A model in 8 bits.

    Attributes:
        of: The model that it was made of.
        licence: Of that; "" where it is not told.
        feature: It, resolved.
        layers: That calculate in 8 bits.
        pictures: That it was calibrated and compared on.
        cost: What it costs.
    """

    of: Feature
    licence: str
    feature: Feature
    layers: int
    pictures: Pictures
    cost: Cost


def named(failed: Mapping[str, int]) -> str:
    """Counts in brackets, such as " (2 rejected truncated)"; "" where there are none."""
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(failed.items()))
    return f" ({counts})" if counts else ""


def lines(made: Made) -> Iterator[str]:
    """For people."""
    cost, pictures = made.cost, made.pictures
    yield (
        f"in 8 bits: {made.layers:,} layers of {made.of.handle}, calibrated on "
        f"{pictures.calibrating:,} pictures{named(pictures.failed)}"
    )
    yield from _measured(cost)
    for reason in cost.reasons_against():
        yield f"not worth it: {reason}"


def _measured(cost: Cost) -> Iterator[str]:
    yield (
        f"cosine to float32: mean {cost.cosine:.4f}, lowest {cost.least:.4f} ({cost.pictures:,} "
        "other pictures)"
    )
    yield f"of the {K} nearest in float32, found in 8 bits: {cost.recall:.3f}"
    if gain := cost.precision:
        yield (
            f"P@{K} by folders: float32 {gain.before:.3f}, 8 bits {gain.after:.3f}, difference "
            f"{gain.after - gain.before:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}; "
            f"{gain.queries:,} queries of {gain.classes:,} labels)"
        )
    how = "" if cost.in_integers else ", calculated in float32 on this processor"
    yield (
        f"images/s: float32 {cost.rates[0]:,.1f}, 8 bits {cost.rates[1]:,.1f}: "
        f"{cost.faster:.2f} times as many{how}"
    )


def as_json(made: Made, written: str | None) -> dict[str, Any]:
    """For --json."""
    return {
        "handle": made.of.handle,
        "of": made.of.fingerprint,
        "fingerprint": made.feature.fingerprint,
        "layers": made.layers,
        "calibrated_on": made.pictures.calibrating,
        "failed": dict(made.pictures.failed),
        "compared": made.cost.to_json(),
        "written": written,
    }


def card(made: Made) -> str:
    """For people; it names no picture and no folder of pictures."""
    head = f"---\nlicense: {to_json(made.licence)}\n---\n" if made.licence else ""
    measured = "\n".join(f"- {line}" for line in _measured(made.cost))
    against = "".join(f"- Not worth it: {line}\n" for line in made.cost.reasons_against())
    licence = made.licence or "not told; look at where that model comes from"
    height, width = made.feature.info.input_size
    return f"""{head}# A model in 8 bits, made by lookalike {__version__}

Made of `{visible(made.of.handle)}` (fingerprint `{made.of.fingerprint}`): {made.layers:,} layers
calculate in whole numbers of 8 bits, calibrated on {made.pictures.calibrating:,} pictures.
Takes pictures of {height} x {width}, gives {made.feature.info.dim:,} components.
Fingerprint `{made.feature.fingerprint}`: a model of its own, whose vectors go with none of the
other's.

Measured on pictures that it was not calibrated on, with OpenVINO {openvino_engine.version()}:

{measured}
{against}
It is in OpenVINO's format, and OpenVINO runs it: in integers where the processor has instructions
for that (VNNI on x86), in float32 elsewhere, to the same vectors.

Licence: {licence}.

To use it, name this folder as a handle: `- {{name: deep, handle: FOLDER}}`. Preparation of pictures
is part of it.
"""
