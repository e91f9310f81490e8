"""`python -m faults`: every fault for every n, on both nights, and how many there were."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from faults.backend import Backend
from faults.bucket import BucketBackend
from faults.folder import FolderBackend
from faults.scenarios import MAKERS
from faults.trials import Night, Nights, try_fault

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "folder": FolderBackend,
    "bucket": BucketBackend,
}
NIGHTS = ("first night", "second night")
ACTIONS = sorted(
    {
        action
        for one in (FolderBackend, BucketBackend)
        for some in one.points.values()
        for action in some
    }
)
WORDS = (*BACKENDS, *MAKERS, *NIGHTS, *ACTIONS)


def main() -> int:
    """Try them all; status 1 if any left something behind that it should not."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth fault")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="beginning with the Ith")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=WORDS,
        metavar="WORD",
        help=f"only those called so, again for others: {', '.join(WORDS)}",
    )
    given = parser.parse_args()
    began, tried, wrong = time.monotonic(), Counter[str](), 0
    with TemporaryDirectory(prefix="lookalike-faults-") as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        for place in _asked(given.only, BACKENDS):
            for kind in _asked(given.only, MAKERS):
                with closing(BACKENDS[place](Path(name) / place / kind)) as backend:
                    nights = Nights(backend, Path(name) / place, kind)
                    first = nights.first()
                    wrong += _try_all(first, given, tried)
                    wrong += _try_all(nights.second(first), given, tried)
    for what, count in sorted(tried.items()):
        print(f"{count:6,} {what}")
    minutes = (time.monotonic() - began) / 60
    print(f"{sum(tried.values()):6,} faults in {minutes:.1f} min: {wrong or 'none'} not survived")
    return 1 if wrong else 0


def _asked(only: Sequence[str], words: Iterable[str]) -> list[str]:
    """Those of the words that are asked for: all, where none is."""
    known = list(words)
    return [one for one in known if one in only] or known


def _try_all(night: Night, given: argparse.Namespace, tried: Counter[str]) -> int:
    if night.called not in _asked(given.only, NIGHTS):
        return 0
    actions = _asked(given.only, ACTIONS)
    faults = [one for one in night.backend.all_faults(night.counts) if one.action in actions]
    counts = ", ".join(f"{count} {kind}" for kind, count in night.counts.items())
    print(f"{night.name}: {counts}: {len(faults):,} faults", flush=True)
    wrong = 0
    for fault in faults[given.first :: given.every]:
        try:
            try_fault(night, fault)
        except Exception as error:  # whatever a store that was left in pieces leads to
            wrong += 1
            print(f"{night.name}: {fault}: {type(error).__name__}: {error}", flush=True)
        tried[f"{night.name}: {fault.kind}: {fault.action}"] += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
