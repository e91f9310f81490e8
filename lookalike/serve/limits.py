"""What one request, and all of them together, may cost; and how what goes beyond is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lookalike.images.limits import ImageLimits


class RefusedError(Exception):
    """A request that is not answered: the status of HTTP, and one line for the one who asked."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


@dataclass(frozen=True)
class Limits:
    """What the server takes upon itself.

    Attributes:
        upload_bytes: Of one request with pictures, all of it.
        json_bytes: Of one request without.
        seconds: In which a request has to be there.
        pictures: Of one query, of each kind: those to be like, and those to be unlike.
        k: Neighbours, and rows of a listing.
        where: Characters of a condition.
        requests: On their way at the same time; more are told to come again.
        url: Bytes of a path with its query.
        headers: Bytes of all header lines.
        kept_bytes: Of pictures that were uploaded, which later requests name by their sha256.
        thumbnail_bytes: Of thumbnails in memory.
        original_bytes: Of a file that is sent as it is.
        folder_rows: Of a store whose folders are counted.
        image: What decoding one picture that was uploaded may cost.
    """

    upload_bytes: int = 32 << 20
    json_bytes: int = 64 << 10
    seconds: float = 60
    pictures: int = 16
    k: int = 1000
    where: int = 4000
    requests: int = 64
    url: int = 8 << 10
    headers: int = 16 << 10
    kept_bytes: int = 256 << 20
    thumbnail_bytes: int = 64 << 20
    original_bytes: int = 64 << 20
    folder_rows: int = 5_000_000
    image: ImageLimits = field(
        default_factory=lambda: ImageLimits(
            max_pixels=1 << 27, max_bytes=32 << 20, max_frames=1000, max_seconds=10
        )
    )
