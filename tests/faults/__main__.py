"""`python -m faults`: every fault for every n, on both nights, and how many there were."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from faults.injector import Injector
from faults.scenarios import MAKERS
from faults.trials import Night, Nights, try_fault


def main() -> int:
    """Try them all; status 1 if any left something behind that it should not."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth fault")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="beginning with the Ith")
    parser.add_argument("--only", choices=[*MAKERS], help="of one kind of source")
    given = parser.parse_args()
    began, tried, wrong = time.monotonic(), Counter[str](), 0
    with TemporaryDirectory(prefix="lookalike-faults-") as name:
        injector = Injector()
        for kind in [given.only] if given.only else MAKERS:
            nights = Nights(injector, Path(name), kind)
            first = nights.first()
            wrong += _try_all(injector, first, Path(name), given, tried)
            wrong += _try_all(injector, nights.second(first), Path(name), given, tried)
        injector.close()
    for what, count in sorted(tried.items()):
        print(f"{count:6,} {what}")
    minutes = (time.monotonic() - began) / 60
    print(f"{sum(tried.values()):6,} faults in {minutes:.1f} min: {wrong or 'none'} not survived")
    return 1 if wrong else 0


def _try_all(
    injector: Injector, night: Night, folder: Path, given: argparse.Namespace, tried: Counter[str]
) -> int:
    faults, wrong = night.faults(), 0
    print(f"{night.name}: {len(faults):,} faults", flush=True)
    for fault in faults[given.first :: given.every]:
        try:
            try_fault(injector, night, fault, folder / "store")
        except Exception as error:  # whatever a store that was left in pieces leads to
            wrong += 1
            print(f"{night.name}: {fault}: {type(error).__name__}: {error}", flush=True)
        tried[f"{night.name}: {fault.kind}: {fault.action}"] += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
