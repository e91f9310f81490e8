"""How a command ends: its exit status, by which a scheduler knows whether to try again."""

from __future__ import annotations

import builtins
import re
import sys

from lookalike.errors import NotPublishedError, RequestError

DONE, AGAIN, WRONG_REQUEST, NOT_PUBLISHED, FAULT = range(5)

# Errors of a program, or of data that nobody foresaw: they do not pass by waiting. What is not
# among them may be the machine's fault (a disk, a network, memory, a process that was killed).
_LASTING = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    LookupError,
    ModuleNotFoundError,
    NameError,
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
_PASSING = (OSError, MemoryError)  # some are errors of value too
# A bare RuntimeError is how native libraries say both that and this.
_SCARCE = re.compile(
    r"memory|bad_alloc|thread|resource|no space|input/output|connect|time(d )?\s?out|unavailable"
    r"|could not open|interpreter shutdown",
    re.IGNORECASE,
)


def status_of(error: BaseException) -> int:
    """The exit status of a command that ended with an error.

    An error of an engine is known by what its worker said (`EngineError.kind`).
    """
    if isinstance(error, RequestError):
        return WRONG_REQUEST
    if isinstance(error, NotPublishedError):
        return NOT_PUBLISHED
    kind: type | None = type(error)
    if told := str(getattr(error, "kind", "")):
        kind = _class_named(told)
    return FAULT if kind is not None and _lasts(kind, str(error)) else AGAIN


def _lasts(kind: type, words: str) -> bool:
    """Whether an error of that class ends the same command the same way every time."""
    if issubclass(kind, _PASSING):
        return False
    if kind is RuntimeError:
        return not _SCARCE.search(words)
    return issubclass(kind, _LASTING)


def _class_named(name: str) -> type | None:
    """The class of an error by the name in a traceback; None of one that is not known here."""
    module, _, last = name.rpartition(".")
    found = getattr(sys.modules.get(module) if module else builtins, last, None)
    return found if isinstance(found, type) else None
