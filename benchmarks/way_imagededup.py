"""imagededup's PHash and CNN over a folder of pictures; run by a Python that has imagededup.

    PYTHON way_imagededup.py FOLDER OUTPUT.json

Nothing of lookalike is imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

_DISTANCE = 10  # bits of 64, imagededup's own default
_SIMILARITIES = (0.9, 0.97)  # cosines; the first is its default


def main(folder: str, output: str) -> None:
    """Leave, for each way to find duplicates, its seconds and the group of each picture."""
    from imagededup.methods import CNN, PHash

    found: list[dict[str, Any]] = []
    bits = {"max_distance_threshold": _DISTANCE, "num_dist_workers": 0}
    found += _tried(f"imagededup PHash, {_DISTANCE} bits", PHash, folder, bits)
    for one in _SIMILARITIES:
        asked = {"min_similarity_threshold": one, "num_sim_workers": 1}
        found += _tried(f"imagededup CNN, {one}", CNN, folder, asked)
    Path(output).write_text(json.dumps(found))


def _tried(
    way: str, method: Callable[..., Any], folder: str, asked: Mapping[str, Any]
) -> list[Any]:
    began = time.monotonic()
    try:
        finder = method(verbose=False)
    except OSError as error:  # the CNN's weights are downloaded, and may not be to be had
        print(f"{way}: left out: {error}", file=sys.stderr)
        return []
    codes = finder.encode_images(image_dir=folder, num_enc_workers=0)
    encoded = time.monotonic()
    pairs = finder.find_duplicates(encoding_map=codes, **asked)
    ended = time.monotonic()
    times = {"embed_s": encoded - began, "seconds": ended - encoded}
    return [{"way": way, **times, "groups": _groups(pairs)}]


def _groups(pairs: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """The first name of each picture's group; groups are what pairs connect."""
    first: dict[str, str] = {}

    def find(name: str) -> str:
        while first.setdefault(name, name) != name:
            first[name] = first[first[name]]
            name = first[name]
        return name

    for name, others in pairs.items():
        for other in others:
            one, two = sorted((find(name), find(other)))
            first[two] = one
    return {name: find(name) for name in list(first)}


if __name__ == "__main__":
    main(*sys.argv[1:])
