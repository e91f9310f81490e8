"""`python -m benchmarks`: the speed of the stages here, each beside a plain way to do it.

decode   lookalike.images.preparing on one core         beside Pillow's open, convert, resize
embed    the whole stage, all processes       beside bare processes, and hub.load with tf.data
search   Searcher.search_vectors              beside numpy's brute force
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from lookalike.errors import RequestError


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--images", metavar="SRC", help="pictures to use (default: drawn ones)")
    parser.add_argument("--config", metavar="F", help="YAML file (default: shipped descriptor)")
    parser.add_argument("--files", type=int, default=0, help="pictures to embed (1000)")
    parser.add_argument("--rounds", type=int, default=3, help="at least 2 (3)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    given = parser.parse_args(argv)
    if given.rounds < 2 or (given.files and given.files < 100):
        parser.error("--rounds must be at least 2 and --files at least 100")
    logging.getLogger().setLevel(logging.ERROR)  # Beam talks while it is imported
    from benchmarks.launch import WayError, least_files
    from benchmarks.measure import measure
    from benchmarks.pictures import gather
    from lookalike.models.resolving import DEFAULT_FEATURES
    from lookalike.pipelines.config import Config, load_config
    from lookalike.pipelines.runner import cores

    with TemporaryDirectory(prefix="lookalike-bench-") as folder:
        try:
            config = (load_config(given.config) if given.config
                      else Config(DEFAULT_FEATURES))  # fmt: skip
            count = given.files or max(1000, 2 * least_files(config.runner.processes))
            files = gather(given.images, count, Path(folder) / "pictures").paths
            rows = measure(config, files, given.rounds, Path(folder))
        except RequestError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 2
        except WayError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    handles = " + ".join(feature.handle for feature in config.features)
    print(f"{handles}: {len(files):,} pictures, {given.rounds} rounds, {cores()} cores, medians")
    for row in rows:
        notes = ", ".join(f"{name} {value:.3g}" for name, value in row.notes.items())
        print(f"{row.stage:7} {row.ratio:6.2f}x  {row.ours} {median(row.rates):,.0f} beside "
              f"{row.baseline} {median(row.baseline_rates):,.0f} {row.unit}"
              f"{f' ({notes})' if notes else ''}")  # fmt: skip
    if given.json:
        about = {"handles": handles, "files": len(files), "rounds": given.rounds, "cores": cores(),
                 "machine": platform.platform(), "python": platform.python_version()}  # fmt: skip
        document = {**about, "rows": [row.to_json() for row in rows]}
        Path(given.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
