"""What is to be said of the features that ship, without making any of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shipped:
    """One shipped feature.

    Attributes:
        dim: Length of its vectors.
        input_size: Height and width of the pictures that it takes.
        licence: Its SPDX identifier.
        purpose: What it finds, in a few words.
    """

    dim: int
    input_size: tuple[int, int]
    licence: str
    purpose: str


SHIPPED = {
    "photo": Shipped(
        1280, (224, 224), "Apache-2.0",
        "what a photograph shows: EfficientNet-Lite2 in 8 bits, trained on ImageNet",
    ),
    "color-texture": Shipped(
        660, (128, 128), "Apache-2.0",
        "how a picture looks: colour, texture and layout, nothing learned",
    ),
}  # fmt: skip
"""By name, as in `handles.BUILTINS`."""
