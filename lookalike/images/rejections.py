"""Why a file gave no picture: the exceptions, and the fixed list of reasons for the ledger."""

from __future__ import annotations

REASONS: tuple[str, ...] = (
    "unreadable",  # the file could not be opened or read (raised by the code that reads files)
    "empty",  # no bytes, where there was a picture before
    "not_an_image",  # the name claims an image, the content is none
    "unsupported_format",  # an image of a kind that is not read
    "too_many_pixels",  # more pixels, or more memory to decode them, than the limits allow
    "too_many_bytes",  # a larger file than the limits allow
    "too_many_frames",  # an animation or collection of more pictures than the limits allow
    "truncated",  # the file ends before the picture does
    "corrupt",  # the decoder found the data broken
    "out_of_memory",  # the machine had no memory left, within the limits
    "crashed",  # the decoder died of it, and its process with it
    "timed_out",  # decoding took longer than the limits allow
    "model_failed",  # decoded, but no usable vector came out (raised where models run)
)
"""Every reason a file can be rejected for."""

IGNORED: tuple[str, ...] = (
    "no_image",  # neither content nor name says image
    "system_file",  # left beside pictures by a system or a program (see system_files)
    "empty",  # no bytes, whatever the name: a placeholder
    "forgotten",  # a content that must not come back (see store.forgotten)
)
"""Every reason a file can be ignored for."""

_MAX_DETAIL = 500


class Rejected(Exception):
    """An image, or a file that claims to be one, of which no pixels could be made.

    Attributes:
        reason: one of `REASONS`.
        detail: the cause in one line of at most 500 characters, in the decoder's own words where
            there are any.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Keep the reason, and the detail as one short line."""
        if reason not in REASONS:
            raise ValueError(f"rejected for {reason!r}: the reasons are {', '.join(REASONS)}")
        self.reason = reason
        self.detail = " ".join(detail.split())[:_MAX_DETAIL]
        super().__init__(reason, self.detail)

    def __str__(self) -> str:
        """The reason, then the detail where there is one."""
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class NotAnImage(Exception):
    """Nobody means this file to be an image: neither its content nor its name says so.

    Attributes:
        reason: one of `IGNORED`.
        detail: what it is, in one line of at most 500 characters.
    """

    def __init__(self, detail: str = "", reason: str = "no_image") -> None:
        """Keep the reason, and the detail as one short line."""
        if reason not in IGNORED:
            raise ValueError(f"ignored for {reason!r}: the reasons are {', '.join(IGNORED)}")
        self.reason = reason
        self.detail = " ".join(detail.split())[:_MAX_DETAIL]
        super().__init__(self.detail)
