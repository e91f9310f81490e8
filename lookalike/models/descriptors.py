"""The low-level features one by one, exported as reusable SavedModels, as TF-Hub models are.

    color              hue, chroma and lightness jointly, of what stands out             370
    color-pairs        which colours lie beside which (Huang et al. 1997)              1,176
    color-difference   colour differences between neighbours (Liu & Yang 2013)           108
    micro-structure    neighbours of one colour and direction (Liu et al. 2011)           72
    texture            binary patterns (Ojala et al. 2002), gradient energies            207
    shape              directions of edges over a grid, at 3 scales (Dalal & Triggs
                       2005; Oliva & Torralba 2001)                                      384

There are no variables, and no number is negative, so that Jaccard suits them as cosine does.
Anything that changes the numbers must raise the feature's version in `handles.BUILTINS`: the
fingerprint of stored vectors is made from it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lookalike.models import low_level
from lookalike.models.pixel_ops import View, hellinger, oklab, to_planes, unit, view
from lookalike.models.quiet_tf import tf

INPUT_SIZE = (128, 128)
"""Height and width of the input, in pixels, of every low-level feature."""
SIDE = 64
"""Of what colour is looked at on, which needs no more."""

_IMAGES = tf.TensorSpec([None, *INPUT_SIZE, 3], tf.float32, name="images")


class _Callable(tf.Module):  # type: ignore[misc]
    """A function of images as a TF-Hub style callable."""

    def __init__(self, describe: Callable[[tf.Tensor], tf.Tensor], name: str) -> None:
        super().__init__(name=name)
        self._describe = describe

    @tf.function(input_signature=[_IMAGES], autograph=False)  # type: ignore[untyped-decorator]
    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Describe images: (B, 128, 128, 3) float32 RGB in [0, 1] -> (B, d) float32, >= 0."""
        return self._describe(images)


@dataclass(frozen=True)
class Descriptor:
    """A shipped low-level feature.

    Attributes:
        name: As a Python name.
        dim: Components of its vector.
        describe: (B, 128, 128, 3) float32 in [0, 1] -> (B, dim) float32.
    """

    name: str
    dim: int
    describe: Callable[[tf.Tensor], tf.Tensor]

    def build(self) -> tf.Module:
        """Return it ready to be called."""
        return _Callable(self.describe, self.name)

    def export(self, folder: Path) -> None:
        """Write it to `folder`: a TF2 reusable SavedModel, also with `serving_default`."""
        module = self.build()
        tf.saved_model.save(module, str(folder), signatures=module.__call__)


def join(blocks: Mapping[str, tf.Tensor], weights: Mapping[str, float]) -> tf.Tensor:
    """Scale unit blocks by the square roots of their weights, side by side.

    The cosine of two such vectors is the weighted mean of their blocks' cosines, which is how
    features are fused elsewhere too.
    """
    return tf.concat([math.sqrt(weights[name]) * block for name, block in blocks.items()], 1)


def views(images: tf.Tensor) -> dict[int, View]:
    """What the blocks look at, by its side: fine for edges, coarse for colours."""
    return {side: view(images, side) for side in (INPUT_SIZE[0], SIDE)}


def _lab(images: tf.Tensor) -> tf.Tensor:
    return oklab(to_planes(images, SIDE))


def _texture(images: tf.Tensor) -> tf.Tensor:
    seen = views(images)
    blocks = {
        "pattern": hellinger(low_level.patterns(seen)),
        "energy": unit(low_level.energy(seen[SIDE])),
    }
    return join(blocks, {"pattern": 0.6, "energy": 0.4})


color = Descriptor("color", 370, lambda images: hellinger(low_level.color(view(images, SIDE))))
color_pairs = Descriptor(
    "color_pairs", 1176, lambda images: hellinger(low_level.color_pairs(view(images, SIDE)))
)
color_difference = Descriptor(
    "color_difference", 108, lambda images: hellinger(low_level.color_difference(_lab(images)))
)
micro_structure = Descriptor(
    "micro_structure", 72, lambda images: hellinger(low_level.micro_structure(_lab(images)))
)
texture = Descriptor("texture", 207, _texture)
shape = Descriptor(
    "shape", 384, lambda images: unit(low_level.shapes(oklab(to_planes(images, INPUT_SIZE[0]))))
)
