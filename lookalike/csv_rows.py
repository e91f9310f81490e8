"""The rows of a CSV file with every line accounted for: part of a row, blank, or an error.

Read by Python's csv, strictly. Arrow's reader is quicker, but it takes text after a closing quote
for part of the field, and loses a character of CR LF within quotes where one of its blocks ends.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, TextIO

from lookalike.errors import RequestError

MAX_ROW = 16 << 20
"""Characters of one row: as much is read of a quote that is never closed."""

_BUFFER = 1 << 20
_GZIP = b"\x1f\x8b"
_MARKS = (  # the one of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_UNMARKED = (
    (re.compile(rb"[^\0]\0[^\0]\0", re.DOTALL), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]", re.DOTALL), "utf-16-be"),
)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_MEND = 'write a quote within a quoted field twice (""), or take it out'
_IMAGES = frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "heic", "avif"])


def read_csv(file: Any, name: str) -> Generator[list[str], None, None]:
    """The header, then all rows, each with as many fields as the header.

    Fields are separated by commas; lines end in LF, CR LF or CR, which are kept within quotes. A
    quote is one where a field begins with it, else a character like others. Blank lines are no
    rows. The text is UTF-8, with or without a mark, or UTF-16 or UTF-32; it may be gzipped.

    Args:
        file: Opened for reading bytes; it is closed in the end.
        name: Of the file, for messages.

    Raises:
        RequestError: A line is no text or its row not sound; the message says which line.
        OSError, EOFError, zlib.error: It cannot be read or unpacked.
    """
    # The limit is the process's, and is only raised: nobody else's reading fails by it.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    text, encoding = _as_text(file)
    with text:
        yield from _rows(_Lines(text, encoding, name))


def _rows(lines: _Lines) -> Iterator[list[str]]:
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    try:
        for row in reader:
            if len(row) != len(header) and row and header:
                raise _misfit(lines, reader, row, header)
            if len(lines.row) > 1 and _holds_rows(lines.row, row, header):
                raise lines.error(
                    "a quoted field goes over all of them, and they look like rows of their own; "
                    f"{_MEND}; if it is one field all the same, give the manifest as Parquet"
                )
            lines.row.clear()
            if row:
                header = header or row
                yield row
    except csv.Error as error:
        what = "a quote is opened and never closed" if lines.ended else "text after a closed quote"
        separator = "" if header else separator_hint("".join(lines.row))
        raise lines.error(f"{what}{separator or f'; {_MEND}'}") from error


def separator_hint(header: str) -> str:
    """What to do where the names of columns are separated by something else than commas."""
    for mark, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        names = [name.strip(' "\r\n') for name in header.split(mark)]
        if names[1:] and "uri" in names:
            return f"; fields are separated by {what}: write the file with commas"
    return ""


class _Lines:
    """The lines of a text, as `csv.reader` takes them, and those of the row being read.

    Attributes:
        number: Of the line given last, from 1.
        row: The lines of the row; who has read it clears them.
        ended: Whether all were given.
    """

    def __init__(self, text: TextIO, encoding: str, name: str) -> None:
        self._text, self._encoding, self._name = text, encoding, name
        self._size = 0  # of the row
        self.number = 0
        self.row: list[str] = []
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        while line := self._next():
            self.number += 1
            self._size = self._size + len(line) if self.row else len(line)
            self.row.append(line)
            if self._size > MAX_ROW:
                raise self.error(
                    f"a row of more than {MAX_ROW:,} characters; is a quote there not closed? "
                    f"{_MEND}; if it is one row all the same, give the manifest as Parquet"
                )
            if ("\0" in line or not line.isascii()) and (found := _NO_TEXT.search(line)):
                raise self.error(self._no_text(found[0]), f"line {self.number}")
            yield line
        self.ended = True

    def _next(self) -> str:
        try:
            return self._text.readline(MAX_ROW + 1)
        except UnicodeDecodeError as error:  # of UTF-16; met while a few lines are read ahead
            raise RequestError(
                f"{self._name}: line {self.number + 1} or one soon after it: no {self._encoding} "
                f"({error.reason}); save it as UTF-8"
            ) from error

    def _no_text(self, found: str) -> str:
        if found == "\0":
            return "a NUL character, which no text has; is it a CSV file, and whole?"
        return (
            f"the byte 0x{ord(found) & 0xFF:02x} is no {self._encoding}; save the file as UTF-8 "
            "(a picture's name that is none is written file:///…/%E9.jpg)"
        )

    def where(self) -> str:
        """The lines of the row being read."""
        first = self.number - len(self.row) + 1
        return f"lines {first} to {self.number}" if self.row[1:] else f"line {first}"

    def error(self, what: str, where: str = "") -> RequestError:
        """What is wrong with the row being read."""
        return RequestError(f"{self._name}: {where or self.where()}: {what}")


def _as_text(file: Any) -> tuple[TextIO, str]:
    """The file as text with its own line ends, and the name of its encoding."""
    data: Any = file if hasattr(file, "peek") else io.BufferedReader(file, _BUFFER)
    if data.peek(2).startswith(_GZIP):
        data = gzip.GzipFile(fileobj=data)
    start = data.peek(4)[:4]
    told = [
        *(encoding for mark, encoding in _MARKS if start.startswith(mark)),
        *(encoding for pattern, encoding in _UNMARKED if pattern.match(start)),
        "utf-8-sig",
    ]
    text = io.TextIOWrapper(data, told[0], "surrogateescape", newline="")
    return text, told[0].removesuffix("-sig").upper()


def _misfit(
    lines: _Lines, reader: Iterator[list[str]], row: list[str], header: list[str]
) -> RequestError:
    """A row has another number of fields than the header; it says how many others have, too."""
    where, others = lines.where(), 0
    mend = "put a field that holds commas in quotes" if row[len(header) :] else "is it cut short?"
    if lines.row[1:]:
        mend = f"is a quote there not closed? {_MEND}"
    with suppress(csv.Error, RequestError):
        lines.row.clear()
        for other in reader:
            others += len(other) not in (0, len(header))
            lines.row.clear()
    more = f", as have {others:,} rows after it" if others else ""
    plural = "s" if row[1:] else ""
    what = f"{len(row):,} field{plural} where the header has {len(header):,}{more}"
    return lines.error(f"{what}; {mend}", where)


# --- quotes that were none ----------------------------------------------------------------------


def _holds_rows(lines: list[str], row: list[str], header: list[str]) -> bool:
    """Whether some lines of one row look like rows of their own.

    A quote that was meant as a character, and another one rows later, make a sound field of all the
    rows between. Lines of a caption are none: a row has as many fields as the header, and at the
    place of the uri a text like the uri of the row that the field belongs to.
    """
    held = [next(csv.reader([line])) for line in lines[1:] if line.strip()]
    if not header:  # it is the header itself
        return any(len(fields) == len(row) for fields in held)
    at = header.index("uri") if "uri" in header else 0
    own, *more = row[at].splitlines() or [""]
    own = own.partition(",")[0] if more else own  # it is the uri where the quote opens
    uris = [fields[at].strip('"') for fields in held if len(fields) == len(header)]
    if any(_marks(uri) & _marks(own) for uri in uris):
        return True
    return bool(own) and len(uris) == len(held) and {*map(_shape, uris)} == {_shape(own)}


def _marks(uri: str) -> set[tuple[str, str]]:
    """What a uri may have in common with another: scheme, folder, suffix."""
    folder, _, name = uri.rpartition("/")
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    scheme = uri.partition("://")[0] if "://" in uri else ""
    marks = [("scheme", scheme), ("folder", folder)]
    marks.append(("suffix", "image" if suffix in _IMAGES else suffix))
    return {mark for mark in marks if mark[1]}


def _shape(uri: str) -> tuple[int, bool, bool, bool]:
    """Its length, and whether it has letters, digits, and others."""
    letters, digits = any(map(str.isalpha, uri)), any(map(str.isdigit, uri))
    return len(uri), letters, digits, not all(map(str.isalnum, uri))
