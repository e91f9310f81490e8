"""What is to be said of the features that ship, without making any of them."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.models.saved_model import ModelInfo


@dataclass(frozen=True)
class Shipped:
    """One shipped feature."""

    dim: int
    purpose: str
    input_size: tuple[int, int] = (128, 128)
    input_dtype: str = "float32"
    licence: str = "Apache-2.0"

    @property
    def info(self) -> ModelInfo:
        """How it is called: what `inspection.inspect` would take seconds to find out."""
        return ModelInfo(self.input_size, self.dim, input_dtype=self.input_dtype, rewritten=False)


SHIPPED = {
    "photo": Shipped(
        1280,
        "what a photograph shows: EfficientNet-Lite2 in 8 bits, trained on ImageNet",
        input_size=(224, 224),
        input_dtype="uint8",
    ),
    "color-texture": Shipped(
        1511, "how a picture looks: pairs of colours, patterns, gradients and their layout"
    ),
    "color": Shipped(370, "colour alone: products, fabrics, paint"),
    "color-pairs": Shipped(1176, "which colours lie side by side (colour correlogram)"),
    "color-difference": Shipped(108, "how far colours differ along edges, in short vectors"),
    "micro-structure": Shipped(72, "colours of small uniform structures, in very short vectors"),
    "texture": Shipped(207, "surfaces in gray: stone, wood, cloth, scans"),
    "shape": Shipped(384, "where edges run: drawings, logos, one viewpoint"),
}
"""By name, as in `handles.BUILTINS`."""
