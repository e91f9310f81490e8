"""Pictures to train on: a sample of what is listed, decoded once into files that are mapped.

What memory holds is the names of the sample, however much is listed; the pixels lie in the work
folder, in parts that are whole or absent, so that a run that was stopped goes on behind the last.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.errors import RequestError
from lookalike.images.decoding import Decoder
from lookalike.images.limits import ImageLimits
from lookalike.outcomes import Decoded, Duplicate, Failed
from lookalike.records import SourceFile
from lookalike.store.durable import read_json, write_file, write_json

_PART = 256  # pictures of a file

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Sample:
    """Files to read.

    Attributes:
        files: At most as many as were asked for, drawn by the hashes of their names.
        labels: One for each file; "" where there are none.
        listed: Files that there are, these among them.
    """

    files: tuple[SourceFile, ...]
    labels: tuple[str, ...]
    listed: int

    @property
    def fingerprint(self) -> str:
        """Changes with any file or label: 64 hex digits."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels, strict=True):
            row = "\0".join((file.uri, str(file.bytes), file.version, label))
            digest.update(row.encode(errors="surrogateescape") + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures.

    Attributes:
        parts: (n, side, side, 3) uint8 each, mapped.
        labels: One for each picture.
        failed: How many files became none, by the reason.
    """

    parts: tuple[Pixels, ...]
    labels: tuple[str, ...]
    failed: Counter[str]

    def take(self, rows: Rows) -> Pixels:
        """The pictures of some rows, in that order: (rows, side, side, 3) uint8."""
        ends = np.cumsum([len(part) for part in self.parts])
        inside = np.searchsorted(ends, rows, side="right")
        found = np.empty((len(rows), *self.parts[0].shape[1:]), dtype=np.uint8)
        for place, (row, part) in enumerate(zip(rows.tolist(), inside.tolist(), strict=True)):
            found[place] = self.parts[part][row - int(ends[part])]  # counted from the end
        return found


def draw(
    files: Iterable[SourceFile], label_of: Callable[[str], str | None] | None, most: int, seed: int
) -> Sample:
    """Draw a sample of what is listed, holding no more than that.

    Args:
        files: As they are listed; their order makes no difference.
        label_of: Gives a file's label, None for one that is to be left out; None for no labels.
        most: Files to draw.
        seed: Of the draw.
    """
    drawn: list[tuple[int, str, SourceFile, str]] = []  # a heap, the last by hash on top
    listed = 0
    for file in files:
        label = label_of(file.uri) if label_of else ""
        if label is None:
            continue
        listed += 1
        name = f"{seed} {file.uri}".encode(errors="surrogateescape")
        key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
        entry = (-key, f"{file.uri} {listed}", file, label)
        if len(drawn) < most:
            heapq.heappush(drawn, entry)
        else:
            heapq.heappushpop(drawn, entry)
    drawn.sort(reverse=True)
    return Sample(tuple(one[2] for one in drawn), tuple(one[3] for one in drawn), listed)


def gather(
    sample: Sample,
    side: int,
    work: Path,
    limits: ImageLimits,
    done: Callable[[int], None] = lambda _: None,
) -> Pictures:
    """Decode a sample, but for the parts that are there; equal bytes are taken once.

    Args:
        sample: What to decode.
        side: Pictures are stretched to (side, side).
        work: The folder that the parts lie in.
        limits: What a file may cost.
        done: Told how many files are dealt with.

    Raises:
        RequestError: No file became a picture.
    """
    failed: Counter[str] = Counter()
    known: list[bytes] = []
    parts: list[Pixels] = []
    labels: list[str] = []
    with Decoder([(side, side)], limits) as decoder:
        for number, start in enumerate(range(0, len(sample.files), _PART)):
            chosen = slice(start, start + _PART)
            name = f"pictures/{number:05d}"
            if not (work / f"{name}.json").is_file():
                _write(sample.files[chosen], sample.labels[chosen], decoder, known, work, name)
            told = read_json(work / f"{name}.json")
            failed.update(told["failed"])
            known += [bytes.fromhex(digest) for digest in told["sha256"]]
            labels += told["labels"]
            if told["labels"]:
                parts.append(np.load(work / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            done(min(start + _PART, len(sample.files)))
    if not labels:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in failed.most_common(5))
        raise RequestError(
            f"none of {len(sample.files):,} files became a picture ({reasons or 'none is there'}); "
            "name other sources"
        )
    return Pictures(tuple(parts), tuple(labels), failed)


def _write(
    files: Sequence[SourceFile],
    labels: Sequence[str],
    decoder: Decoder,
    known: Sequence[bytes],
    work: Path,
    name: str,
) -> None:
    """Decode one part; what tells that it is whole is written last."""
    failed: Counter[str] = Counter()
    pictures, kept, digests = [], [], []
    outcomes = decoder.decode(files, once=True, known=known)
    for outcome, label in zip(outcomes, labels, strict=True):
        if isinstance(outcome, Decoded):
            pictures.append(outcome.inputs[0])
            kept.append(label)
            digests.append(outcome.sha256.hex())
        else:
            failed[_reason(outcome)] += 1
    if pictures:
        with write_file(work, f"{name}.npy") as pending:
            np.save(pending.file, np.stack(pictures))
    told: dict[str, Any] = {"labels": kept, "sha256": digests, "failed": dict(failed)}
    write_json(work, f"{name}.json", told)


def _reason(outcome: Duplicate | Failed) -> str:
    if isinstance(outcome, Duplicate):
        return "duplicate"
    return " ".join(filter(None, (outcome.status, outcome.reason)))
