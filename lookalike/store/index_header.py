"""The first block of an index shard: which trained index made it, and how much is in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from lookalike.errors import RequestError

HEADER_BYTES = 4096
VERSION = 2
_FORMAT = "lookalike-index-shard"
_LAYOUTS = ("plain", "blocks32", "columns")


@dataclass(frozen=True)
class ShardHeader:
    """First block of a shard file.

    Attributes:
        template: sha256 of the trained index that made it.
        layout: plain, blocks32 or columns.
        rows: Vectors in it.
        first_list: The first list in it.
        last_list: The list after the last one in it.
        nlist: Lists of the trained index.
        code_size: Bytes of a code.
        min_id: Smallest id (-1 when empty).
        max_id: Largest id (-1 when empty).
    """

    template: str
    layout: str
    rows: int
    first_list: int
    last_list: int
    nlist: int
    code_size: int
    min_id: int
    max_id: int

    def __post_init__(self) -> None:
        numbers = [value for name, value in asdict(self).items() if name not in _WORDS]
        if any(isinstance(value, bool) or not isinstance(value, int) for value in numbers):
            raise ValueError("a number is not one")
        if self.layout not in _LAYOUTS:
            raise ValueError(f"layout {self.layout!r} is none of {', '.join(_LAYOUTS)}")
        if not 0 <= self.first_list <= self.last_list <= self.nlist:
            raise ValueError(
                f"lists {self.first_list} to {self.last_list} are no range of {self.nlist}"
            )
        if self.rows < 0 or self.code_size < 1:
            raise ValueError(f"{self.rows} rows of {self.code_size} bytes")

    def to_bytes(self) -> bytes:
        """A line of JSON, padded with spaces to HEADER_BYTES."""
        described = {"format": _FORMAT, "version": VERSION, **asdict(self)}
        return json.dumps(described, sort_keys=True).encode().ljust(HEADER_BYTES - 1) + b"\n"

    @property
    def lists(self) -> int:
        """Lists in the file."""
        return self.last_list - self.first_list


_WORDS = ("template", "layout")


def parse_header(name: str, block: bytes) -> ShardHeader:
    """The header of a shard file of that name, from its first HEADER_BYTES.

    Raises:
        RequestError: They are not of a shard file of this version.
    """
    try:
        described = json.loads(block)
        found = (described.pop("format"), described.pop("version"), len(block))
        if found != (_FORMAT, VERSION, HEADER_BYTES):
            raise ValueError("format {!r}, version {!r}, {} bytes".format(*found))
        return ShardHeader(**described)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(
            f"{name}: not an index shard of version {VERSION}: {error}; run: lookalike verify, "
            "or index again if the store is of an older lookalike"
        ) from error
