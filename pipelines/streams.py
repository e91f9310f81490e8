"""Standard streams that may be closed, or end: no command fails because nobody listens.

A descriptor that was closed when the command began would be given to the next file opened, and what
is printed would end up in that; so all three are there, if need be as the null device.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from lookalike.json_text import to_json
from lookalike.report.text import visible

_GONE = {errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN}


class _Stream(io.FileIO):
    """An output whose reader may go away, after which what is written is dropped.

    Attributes:
        gone: Whether it did.
    """

    def __init__(self, descriptor: int, informs: bool) -> None:
        """Take a descriptor; with `informs`, what cannot be written for any reason is dropped."""
        super().__init__(descriptor, "wb", closefd=False)
        self._informs, self.gone = informs, False

    def write(self, data: object) -> int:
        """Write bytes; returns how many."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        try:
            while (written := super().write(view)) is None:  # another process made it not block
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            if error.errno in _GONE:
                self.gone = True
                with _null() as null:  # for native code and child processes too
                    os.dup2(null, self.fileno())
            elif not self._informs:
                raise
            return view.nbytes


def hold() -> None:
    """See to it that there are standard streams, for the whole of this process."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
        os.set_inheritable(descriptor, True)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    sys.stdout = _text(sys.stdout, 1, informs=False)
    sys.stderr = _text(sys.stderr, 2, informs=True)


def settle(status: int) -> int:
    """Write out what is left; returns the exit status, which is 1 if an output was lost."""
    with suppress(OSError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except OSError as error:
        if status == 0:
            print(f"lookalike: the output cannot be written: {error.strerror}", file=sys.stderr)
        return status or 1
    return status


def reader_gone() -> bool:
    """Whether nobody reads standard output any more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return isinstance(raw, _Stream) and raw.gone


@contextmanager
def _null() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _text(usual: TextIO | None, descriptor: int, informs: bool) -> TextIO:
    raw = _Stream(descriptor, informs)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=usual.encoding if usual else "utf-8",
        errors="backslashreplace",  # any file name can be printed anywhere
        line_buffering=informs or raw.isatty(),
        write_through=bool(os.environ.get("PYTHONUNBUFFERED")),
    )


def complain(message: str, debug: bool = False) -> None:
    """One line on stderr; with `debug`, after where the error came from that is being handled."""
    if debug:
        traceback.print_exc()
    print(f"lookalike: {visible(' '.join(message.split()))}", file=sys.stderr)


def print_as_json(value: Any) -> None:
    """Print what a command found, as `--json` wants it."""
    print(to_json(value, indent=1))
