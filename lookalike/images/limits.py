"""What one file may cost, checked on what its header announces, before any pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.errors import RequestError
from lookalike.images.rejections import Rejected


@dataclass(frozen=True)
class ImageLimits:
    """What one file may cost.

    Attributes:
        max_pixels: width times height by the header. 2**30 stops headers that lie; what a picture
            really takes is for `max_memory` and `max_seconds` to judge, as a JPEG of 300 megapixels
            that is decoded at an eighth of its size takes less than a PNG of 30.
        max_bytes: size of the file.
        max_memory: bytes that file, decoder and result may need together, by an estimate from
            format, mode and size: the limit that matters for formats that need many bytes a pixel.
        max_frames: frames or pictures in one file, where its header announces them; only the first
            is ever decoded.
        max_seconds: time for one file; the process that decodes is ended after it.
        truncated: what becomes of files that end too early: "reject" them, or "accept" what there
            is of the picture, where the format lets it be decoded in part.
    """

    max_pixels: int = 1 << 30
    max_bytes: int = 256 << 20
    max_memory: int = 1 << 30
    max_frames: int = 10_000
    max_seconds: float = 30
    truncated: str = "reject"

    def __post_init__(self) -> None:
        """Refuse a policy that does not exist."""
        if self.truncated not in ("reject", "accept"):
            raise RequestError(f'truncated: must be "reject" or "accept", got {self.truncated!r}')

    def check_bytes(self, n_bytes: int) -> None:
        """Refuse a file of too many bytes."""
        if n_bytes > self.max_bytes:
            raise Rejected("too_many_bytes", f"{n_bytes} bytes, more than {self.max_bytes} allowed")

    def check_pixels(self, width: int, height: int) -> None:
        """Refuse a picture of too many pixels."""
        if width * height > self.max_pixels:
            raise Rejected(
                "too_many_pixels",
                f"{width} x {height} = {width * height} pixels, more than the "
                f"{self.max_pixels} allowed (images.max_pixels)",
            )

    def check_memory(self, need: int, what: str) -> None:
        """Refuse what would need too many bytes of memory to decode."""
        if need > self.max_memory:
            raise Rejected(
                "too_many_pixels",
                f"{what} would need {need >> 20} MiB to decode, more than the "
                f"{self.max_memory >> 20} MiB allowed (images.max_memory)",
            )

    def check_frames(self, frames: int) -> None:
        """Refuse a file that announces too many frames."""
        if frames > self.max_frames:
            raise Rejected(
                "too_many_frames", f"{frames} frames, more than the {self.max_frames} allowed"
            )
