"""What is to be said of the features that ship, without making any of them."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.models.saved_model import ModelInfo


@dataclass(frozen=True)
class Shipped:
    """One shipped feature.

    Attributes:
        dim: Length of its vectors.
        input_size: Height and width of the pictures that it takes.
        input_dtype: Of these: "float32" or "uint8".
        licence: Its SPDX identifier.
        purpose: What it finds, in a few words.
    """

    dim: int
    input_size: tuple[int, int]
    licence: str
    purpose: str
    input_dtype: str = "float32"

    @property
    def info(self) -> ModelInfo:
        """How it is called: what `inspection.inspect` would take seconds to find out."""
        return ModelInfo(self.input_size, self.dim, input_dtype=self.input_dtype, rewritten=False)


SHIPPED = {
    "photo": Shipped(
        1280,
        (224, 224),
        "Apache-2.0",
        "what a photograph shows: EfficientNet-Lite2 in 8 bits, trained on ImageNet",
        input_dtype="uint8",
    ),
    "color-texture": Shipped(
        1511,
        (128, 128),
        "Apache-2.0",
        "how a picture looks: pairs of colours, patterns, gradients and their layout",
    ),
    "color": Shipped(
        370,
        (128, 128),
        "Apache-2.0",
        "colour alone: products, fabrics, paint",
    ),
    "color-pairs": Shipped(
        1176,
        (128, 128),
        "Apache-2.0",
        "which colours lie side by side (colour correlogram)",
    ),
    "color-difference": Shipped(
        108,
        (128, 128),
        "Apache-2.0",
        "how far colours differ along edges, in short vectors",
    ),
    "micro-structure": Shipped(
        72,
        (128, 128),
        "Apache-2.0",
        "colours of small uniform structures, in very short vectors",
    ),
    "texture": Shipped(
        207,
        (128, 128),
        "Apache-2.0",
        "surfaces in gray: stone, wood, cloth, scans",
    ),
    "shape": Shipped(
        384,
        (128, 128),
        "Apache-2.0",
        "where edges run: drawings, logos, one viewpoint",
    ),
}
"""By name, as in `handles.BUILTINS`."""
