"""`make bench-duplicates`: are edits of photographs found as copies, and nothing else?

Some photographs are edited in seven ways. They, their edits and all other pictures are indexed, and
`lookalike duplicates` groups them, at several thresholds, without and with --verify geometric. Of
each edit: the share that is in one group with its original (recall), and of the pairs of a group in
which such an edit is, the share that is of one photograph (precision).

Only pairs that are of two edited photographs' sets, or of one, count as wrong or right: whether
others are copies of one another, nobody knows.
"""

from __future__ import annotations

import io
import json
import random
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageOps

from benchmarks.changes import CHANGES, watermark
from benchmarks.command import arguments, columns, lookalike, run, say
from benchmarks.processes import WayError

Row = dict[str, Any]

EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "crop": CHANGES["crop to 80 %"],
    "flip": CHANGES["flip"],
    "jpeg": CHANGES["JPEG 30"],
    "half": CHANGES["half the size"],
    "watermark": watermark,
    "border": CHANGES["border"],
    "rotate": CHANGES["rotation 5°"],
}


def edited(files: Sequence[Path], folder: Path) -> None:
    """Write originals and edits: NNNN.<edit>.jpg, of quality 90 but for the originals."""
    for number, file in enumerate(files):
        (folder / f"{number:04d}.original.jpg").write_bytes(file.read_bytes())
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        for name, change in EDITS.items():
            data, made = io.BytesIO(), change(picture)
            made.save(data, "JPEG", quality=30 if name == "jpeg" else 90)
            (folder / f"{number:04d}.{name}.jpg").write_bytes(data.getvalue())


def clusters(rows: list[Row]) -> dict[str, str]:
    """The picture to keep of each picture that is a copy or has one."""
    return {Path(row["uri"]).name: Path(row["copy_of"] or row["uri"]).name for row in rows}


def judged(found: dict[str, str], originals: int) -> dict[str, tuple[float, float]]:
    """Recall and precision of each edit; see the module."""
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, cluster in found.items():
        parts = name.split(".")
        if len(parts) == 3 and parts[0].isdigit():  # others' names are made to have no such form
            members[cluster].append((parts[0], parts[1]))
    hits: Counter[str] = Counter()
    right: Counter[str] = Counter()
    pairs: Counter[str] = Counter()
    for own in members.values():
        sizes = Counter(number for number, _ in own)
        for number, edit in own:
            pairs[edit] += len(own) - 1
            right[edit] += sizes[number] - 1
            hits[edit] += (number, "original") in own
    return {
        edit: (hits[edit] / originals, right[edit] / pairs[edit] if pairs[edit] else 1.0)
        for edit in EDITS
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table; returns the exit status."""
    parser = arguments("benchmarks.duplicates", __doc__)
    parser.add_argument("--images", required=True, metavar="DIR", help="photographs to edit")
    parser.add_argument("--among", action="append", default=[], metavar="DIR", help="others")
    parser.add_argument("--edited", type=int, default=300, help="how many are edited (300)")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.97, 0.9])
    parser.add_argument("--verified", type=float, nargs="*", help="of these (all)")
    parser.add_argument("--config", metavar="F", help="of lookalike index")
    parser.add_argument(
        "--imagededup", metavar="PYTHON", help="one that has imagededup, which does the same"
    )
    return run("bench-duplicates", parser.parse_args(argv), measure, table)


def measure(given: Namespace) -> list[Row]:
    """What each way finds of the edits.

    Raises:
        WayError: A command failed, which has said why.
    """
    suffixes = {".jpg", ".jpeg"}
    files = sorted(one for one in Path(given.images).rglob("*") if one.suffix.lower() in suffixes)
    files = random.Random(0).sample(files, min(given.edited, len(files)))
    results: list[Row] = []
    with TemporaryDirectory(prefix="lookalike-bench-") as place:
        folder, store, output = (Path(place) / name for name in ("edited", "store", "a.parquet"))
        folder.mkdir()
        edited(files, folder)
        config = ["--config", given.config] if given.config else []
        began = time.monotonic()
        lookalike("index", "--images", str(folder), *given.among, "--store", str(store), *config)
        indexed = time.monotonic() - began
        for threshold in given.thresholds:
            ways: list[list[str]] = [[]]
            if given.verified is None or threshold in given.verified:
                ways.append(["--verify", "geometric"])
            for verify in ways:
                began = time.monotonic()
                asked = ["--store", str(store), "--threshold", str(threshold), *verify]
                lookalike("duplicates", *asked, "--output", str(output))
                seconds = time.monotonic() - began
                rows = pq.read_table(output).to_pylist()
                results.append(
                    {
                        "way": f"lookalike, {threshold}{', verified' if verify else ''}",
                        "embed_s": indexed,
                        "seconds": seconds,
                        "edits": judged(clusters(rows), len(files)),
                        "relations": _relations(rows),
                    }
                )
                say(table(results[-1:]))
        if given.imagededup:
            results += _imagededup(given.imagededup, [folder, *map(Path, given.among)], len(files))
    return results


def _imagededup(python: str, folders: Sequence[Path], originals: int) -> list[Row]:
    """The same by imagededup, which looks into one folder."""
    with TemporaryDirectory(prefix="lookalike-bench-") as place:
        together, output = Path(place) / "pictures", Path(place) / "found.json"
        together.mkdir()
        for number, folder in enumerate(folders):
            for file in folder.rglob("*"):
                if file.is_file():  # an edit keeps its name, the others get one of another form
                    name = file.name if not number else f"other-{number}-{file.name}"
                    (together / name).symlink_to(file.absolute())
        script = Path(__file__).with_name("way_imagededup.py")
        done = subprocess.run([python, str(script), str(together), str(output)])
        if done.returncode:
            raise WayError(f"imagededup by {python} ended with status {done.returncode}")
        found = json.loads(output.read_text())
    return [
        {**one, "edits": judged(one.pop("groups"), originals), "relations": {}} for one in found
    ]


def table(results: list[Row]) -> str:
    """Recall and precision of each edit, a line for each way."""
    rows = [["way", "embed s", "group s", *EDITS]]
    for one in results:
        found = [f"{recall:.3f} {precision:.3f}" for recall, precision in one["edits"].values()]
        rows.append([one["way"], f"{one['embed_s']:.1f}", f"{one['seconds']:.1f}", *found])
    return "\n".join(columns(rows))


def _relations(rows: list[Row]) -> dict[str, dict[str, int]]:
    """What copies of originals were called, by edit."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["copy_of"]:
            number, edit, *_ = [*Path(row["uri"]).name.split("."), ""]
            if Path(row["copy_of"]).name == f"{number}.original.jpg":
                found[edit][str(row["relation"])] += 1
    return {edit: dict(counts) for edit, counts in found.items()}


if __name__ == "__main__":
    sys.exit(main())
