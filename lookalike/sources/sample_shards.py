"""Pictures with their vectors and columns as tar shards of samples, in the layout of WebDataset.

Each sample is three members in a row, of one key: the file as it was indexed, a JSON object of what
is known of it, and the vector as NumPy writes it.

    000000000042.jpg  000000000042.json  000000000042.npy
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.cells import json_value, to_rows
from lookalike.distances import Vectors
from lookalike.json_text import to_json
from lookalike.sources.contents import Contents
from lookalike.sources.locating import Locator
from lookalike.sources.sniff import SNIFF_BYTES, sniff
from lookalike.store.durable import write_file
from lookalike.store.exporting import LivingRows

MISSING = "missing.jsonl"
"""Rows whose files cannot be had, with the reason."""

SHARD_BYTES = 512 << 20  # of pictures, after which the next shard begins
_SAMPLES = 10_000  # or so many of them
_SUFFIXES = {"JPEG": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "PNM": "ppm"}


@dataclass
class Written:
    """What was written.

    Attributes:
        missing: Rows that did not, since their files cannot be had.
        first: The first missing one and why, in words; "" where there is none.
    """

    samples: int = 0
    missing: int = 0
    shards: int = 0
    first: str = ""


def write_samples(rows: LivingRows, folder: Path, shard_bytes: int = SHARD_BYTES) -> Written:
    """Write all rows into an empty folder: 000000.tar, 000001.tar, …, and MISSING where some are.

    Of the files one is in memory at a time. One that is not what was indexed is missing as well.
    """
    told, samples = Written(), _Samples(rows)
    waiting = next(samples, None)
    while waiting is not None:
        name = f"{told.shards:06d}.tar"
        with (
            write_file(folder, name) as pending,
            tarfile.open(fileobj=pending.file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            size = count = 0
            while waiting is not None and size < shard_bytes and count < _SAMPLES:
                size += sum(_add(tar, *member) for member in waiting.members(told.samples))
                told.samples, count = told.samples + 1, count + 1
                waiting = next(samples, None)
        told.shards += 1
    told.missing = len(samples.missing)
    if samples.missing:
        told.first = "{uri}: {reason}".format(**samples.missing[0])
        with write_file(folder, MISSING) as pending:
            for one in samples.missing:
                pending.write((to_json(one) + "\n").encode())
    return told


@dataclass(frozen=True)
class _Sample:
    """A row with its file."""

    data: bytes
    known: Mapping[str, Any]
    vector: Vectors

    def members(self, number: int) -> Iterator[tuple[str, bytes]]:
        """Names and contents in the shard."""
        key, array = f"{number:012d}", io.BytesIO()
        kind = sniff(self.data[:SNIFF_BYTES]) or "bin"
        np.save(array, self.vector, allow_pickle=False)
        yield f"{key}.{_SUFFIXES.get(kind, kind.lower().replace(' ', ''))}", self.data
        yield f"{key}.json", to_json(json_value(self.known)).encode()
        yield f"{key}.npy", array.getvalue()


class _Samples(Iterator[_Sample]):
    """The rows whose files are there, and of the others why they are not."""

    def __init__(self, rows: LivingRows) -> None:
        self.missing: list[dict[str, Any]] = []
        self._found = self._read(rows)

    def __next__(self) -> _Sample:
        return next(self._found)

    def _read(self, rows: LivingRows) -> Iterator[_Sample]:
        locator = Locator(read_before=True)
        with Contents() as contents:
            for table in rows.batches(rows.schema):
                flat = table["embedding"].combine_chunks().flatten()
                vectors = flat.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
                known = to_rows(table.drop_columns(["embedding"]))
                for row, vector in zip(known, vectors, strict=True):
                    data = _data(locator, contents, row)
                    if isinstance(data, str):
                        one = {"id": row["id"], "uri": row["uri"], "reason": data}
                        self.missing.append(one)
                        continue
                    yield _Sample(data, row, vector)


def _data(locator: Locator, contents: Contents, row: Mapping[str, Any]) -> bytes | str:
    """The bytes of a row's file, or why they cannot be had."""
    file = locator.find(str(row["uri"]))
    if file.problem:
        return file.problem
    try:
        data = contents.read(file)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    digest = row.get("content_sha256")
    if digest is not None and hashlib.sha256(data).digest() != digest:
        return "the file is another one now than the one that was indexed"
    return data


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a member, of the same bytes for the same content; returns its size."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return len(data)
