"""`python -m benchmarks.child MODULE:FUNCTION ARGUMENT…`: a function's work, in its own process.

The function is a generator. What it yields first is written to standard output as a line of JSON,
and for every line of JSON that is read it goes on with that, and what it yields is the answer. Only
the standard library is imported here, so that it runs in a rival's environment too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from pkgutil import resolve_name
from typing import Any

Answers = Generator[dict[str, Any], dict[str, Any], None]
"""What such a function returns: it yields answers, and is sent orders."""


class RefusedError(Exception):
    """The request is wrong, or cannot be met; the message, which is the answer, says why."""


def main(function: str, *arguments: str) -> int:
    """Answer until standard input or the function ends; returns the exit status."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    work: Answers = resolve_name(function)(*arguments)
    try:
        tell(next(work))
        for line in sys.stdin:
            tell(work.send(json.loads(line)))
    except StopIteration:
        pass
    except RefusedError as reason:
        tell({"refused": str(reason)})
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
