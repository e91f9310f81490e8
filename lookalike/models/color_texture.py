"""The `builtin:color-texture` descriptor: what an image looks like, with nothing learned of labels.

Four blocks describe an image of INPUT_SIZE, each about another side of its looks:

    pairs      which colours lie beside which, of what stands out                            1,176
    pattern    local binary patterns at 3 radii: how many neighbours are brighter, how mixed   135
    energy     soft histograms of log gradient magnitude, for 3 channels at 3 scales            72
    shape      edge directions over a grid                                                     128

Each block is non-negative, has unit length and is scaled by the square root of its weight. Of pairs
and patterns counts what is more than usual: most pictures have much gray beside gray and much that
is flat, which says little, as common words do in texts. What is usual was measured on 300
photographs of ImageNet (tests/calibrate_low_level.py) and lies in `usual/`.

The weights were chosen on pictures of groceries in 81 classes, and so that the nearest of general
photographs are nearer in what they show, too. Version 1 had a colour histogram in place of pairs,
and no notion of what is usual.
"""

from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lookalike.models import low_level
from lookalike.models.descriptors import INPUT_SIZE, SIDE, Descriptor, join, views
from lookalike.models.pixel_ops import hellinger, unit
from lookalike.models.quiet_tf import tf

NAME = "color-texture"
WEIGHTS = {"pairs": 0.31, "pattern": 0.38, "energy": 0.2, "shape": 0.11}
DIM = 1176 + 135 + 72 + 128

SPREAD_FLOOR = 0.015
"""Added to the spread of a pair of colours, which for some is next to none."""
PATTERN_SHARE = 0.4
"""How much of the usual patterns is taken off: all of it would leave noise of flat pictures."""


@cache
def usual(name: str) -> npt.NDArray[np.float32]:
    """What photographs have on average: "pairs_mean", "pairs_spread" (1176,), "pattern_mean"."""
    file = resources.files("lookalike.models") / "usual" / "color_texture.npz"
    with file.open("rb") as opened, np.load(opened) as arrays:
        return np.asarray(arrays[name], np.float32)


def blocks(images: tf.Tensor) -> dict[str, tf.Tensor]:
    """The four blocks as they are counted, unit rows: (B, 128, 128, 3) in [0, 1] -> (B, d)."""
    seen = views(images)
    return {
        "pairs": hellinger(low_level.color_pairs(seen[SIDE])),
        "pattern": unit(low_level.patterns(seen)),
        "energy": unit(low_level.energy(seen[SIDE])),
        "shape": unit(low_level.shape(seen[INPUT_SIZE[0]].lab)),
    }


def describe(images: tf.Tensor) -> tf.Tensor:
    """Describe images: (B, 128, 128, 3) float32 RGB in [0, 1] -> (B, DIM) float32, >= 0."""
    found = blocks(images)
    more = tf.nn.relu(found["pairs"] - usual("pairs_mean"))
    found["pairs"] = unit(more / (usual("pairs_spread") + SPREAD_FLOOR))
    found["pattern"] = unit(tf.nn.relu(found["pattern"] - PATTERN_SHARE * usual("pattern_mean")))
    return join(found, WEIGHTS)


_DESCRIPTOR = Descriptor("color_texture", DIM, describe)


def build() -> tf.Module:
    """Return the descriptor, ready to be called: (B, 128, 128, 3) float32 in [0, 1] -> (B, DIM)."""
    return _DESCRIPTOR.build()


def export(folder: Path) -> None:
    """Write the descriptor to `folder`: a TF2 reusable SavedModel, also with `serving_default`."""
    _DESCRIPTOR.export(folder)
