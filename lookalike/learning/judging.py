"""How good vectors are on what is held out: of a network, of the shipped features, of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.learning.gathering import Pictures, Pixels
from lookalike.learning.networks import Network, Vectors
from lookalike.learning.splitting import Split
from lookalike.learning.state import Gains
from lookalike.models import color_texture, descriptors, photo
from lookalike.models.quiet_tf import tf

_LOW_LEVEL = {
    "builtin:color-texture": color_texture.build,
    "builtin:shape": descriptors.shape.build,
}
LOSS = 0.005  # of precision, that 8 bits may cost


def precisions(
    vectors: Callable[[Iterator[Pixels]], Vectors],
    size: tuple[int, int],
    pictures: Pictures,
    split: Split,
) -> list[Gains]:
    """Precision at k of each half's queries.

    Args:
        vectors: From batches of pictures, (n, *size, 3) uint8, to one row for each.
        size: Height and width of the pictures that it takes.
        pictures: All of them.
        split: What is held out.
    """
    found = vectors(split.held.batches(pictures, size))
    return [half.precision(found) for half in split.held.halves]


def mean(halves: Sequence[Gains]) -> float:
    """Over all queries."""
    return float(np.concatenate(halves).mean())


def shipped(handle: str, pictures: Pictures, split: Split) -> list[Gains]:
    """The same of `builtin:photo`, or a descriptor that _LOW_LEVEL names, to compare with."""
    if handle == "builtin:photo":
        return precisions(_calls(photo.build()), photo.INPUT_SIZE, pictures, split)
    module = _LOW_LEVEL[handle]()
    call = _calls(lambda images: module(tf.cast(images, tf.float32) / 255.0))
    return precisions(call, descriptors.INPUT_SIZE, pictures, split)


def _calls(module: Any) -> Callable[[Iterator[Pixels]], Vectors]:
    return lambda batches: np.concatenate([module(tf.constant(batch)).numpy() for batch in batches])


def choose(
    network: Network, score: float, pictures: Pictures, split: Split
) -> tuple[str, Any, float]:
    """What to export: the first whose precision is the network's, or nearly; else the last.

    Returns:
        Its name, a module to call with uint8 pictures, and its precision.
    """
    for name, module in network.modules():
        found = name, module, mean(precisions(_calls(module), network.size, pictures, split))
        if found[2] >= score - LOSS:
            break
    return found


def export(module: Any, folder: Path) -> None:
    """Write a TF2 reusable SavedModel, also with `serving_default`."""
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def device() -> str:
    """What the network is trained on."""
    return "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
