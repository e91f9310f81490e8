"""The ways a command ends that a caller plans for, and how others' errors are worded."""

from __future__ import annotations

import errno


class RequestError(ValueError):
    """The request is wrong: nothing was written, and the message says what to do (status 2)."""


class NotPublishedError(RuntimeError):
    """The run finished, but a limit stopped publication; the last snapshot stands (status 3)."""


class UnreachableError(OSError):
    """What was named cannot be had now: a permission, a mount, no answer, a fault there (status 1).

    Attributes:
        where: What was asked for: an object, or the prefix that was being listed.
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where


class StoreWriteError(OSError):
    """A file of the store cannot be written: no room, no permission, a broken disk."""


def out_of_reach(error: OSError) -> bool:
    """Whether an error leaves open what is there: nothing was found to be missing or damaged.

    Of the system's own errors all but those that say that there is no such thing; what a parser
    says of a file's content is none of the system's.
    """
    if isinstance(error, UnreachableError):
        return True
    return error.errno is not None and error.errno not in (errno.ENOENT, errno.ENOTDIR)


def one_line(error: BaseException, limit: int = 300) -> str:
    """An exception's own words on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
