"""What a JPEG file's headers say of how its pixels are coded."""

from __future__ import annotations

from dataclasses import dataclass

_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # tables, among the markers that begin frames
_ALONE = (0x01, *range(0xD0, 0xDA))
_LOSSLESS, _HIERARCHICAL = (0xC3, 0xCB), (0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF)


@dataclass(frozen=True)
class JpegFrame:
    """The first frame of a file.

    Attributes:
        process: the low byte of its marker: 0xC0 for baseline, 0xC2 for progressive.
        precision: bits of a sample.
        sampling: (across, down) of each component.
        in_first_scan: how many components the first scan has.
    """

    process: int
    precision: int
    sampling: tuple[tuple[int, int], ...]
    in_first_scan: int

    @property
    def reducible(self) -> bool:
        """Whether the decoder may give a half, a quarter or an eighth of the size.

        Asked of a lossless frame, it writes beyond its buffers; the others are never worth it.
        """
        return self.process in (0xC0, 0xC1, 0xC2) and self.precision == 8

    @property
    def coefficients(self) -> float:
        """The bytes a pixel, of the whole picture, that the decoder keeps until the last scan."""
        sequential = self.process in (0xC0, 0xC1, 0xC9)
        if sequential and self.in_first_scan >= len(self.sampling):
            return 0.0
        most = max((h for h, _ in self.sampling), default=1) * max(
            (v for _, v in self.sampling), default=1
        )
        return 2 * sum(h * v for h, v in self.sampling) / max(1, most)

    @property
    def unread(self) -> str:
        """Why nothing can be decoded; empty where something can."""
        if self.process in _HIERARCHICAL:
            return f"hierarchical JPEG (SOF{self.process - 0xC0}) is not read"
        if self.process == 0xCB:
            return "lossless JPEG with arithmetic coding (SOF11) is not read"
        if 8 < self.precision <= 16:
            return f"JPEG of {self.precision} bits a sample is not read"
        return ""


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """The first frame that a file announces; None where it ends, or makes no sense, before one."""
    frame: tuple[int, int, tuple[tuple[int, int], ...]] | None = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:  # rubbish between segments, which decoders skip
            at = data.find(b"\xff", at)
            if at < 0:
                return None
            continue
        marker = data[at + 1]
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        body = data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES and frame is None and len(body) > 5:
            sampling = tuple((byte >> 4, byte & 15) for byte in body[7 : 6 + 3 * body[5] : 3])
            frame = marker, body[0], sampling
        if marker == 0xDA:
            return JpegFrame(*frame, body[0] if body else 0) if frame else None
        at += 4 + len(body)
    return None
