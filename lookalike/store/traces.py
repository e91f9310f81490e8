"""What files tell of images: their names, the hashes of their contents, their vectors.

Names are searched for plainly and as JSON, HTML and URIs write them; hashes as bytes and in hex;
vectors as bytes of the types and forms in which they are kept. Files are searched as they are, and
what is compressed in them (Parquet, .npz) as it was before.
"""

from __future__ import annotations

import html
import json
import mmap
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lookalike.store.patterns import SHORTEST, Patterns

_BATCH = 16_384
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED", "RLE_DICTIONARY", "PLAIN_DICTIONARY"}


@dataclass
class Traces:
    """What to search for.

    Attributes:
        names: Of images.
        contents: sha256 of their contents.
        vectors: For each vector, its forms (d,) of any float type; one of them is the stored one.
        living: Names of other images that hold one of the names as a part (see `longer_names`).
    """

    names: Sequence[str]
    contents: Sequence[bytes]
    vectors: Sequence[Sequence[npt.NDArray[Any]]]
    living: Sequence[str] = ()

    def to_bytes(self) -> bytes:
        """As JSON, for the tasks that search."""
        forms = [[[one.dtype.str, one.tobytes().hex()] for one in some] for some in self.vectors]
        contents = [one.hex() for one in self.contents]
        return json.dumps([[*self.names], contents, forms, [*self.living]]).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Traces:
        """The inverse of `to_bytes`."""
        names, contents, forms, living = json.loads(data)
        vectors = [
            [np.frombuffer(bytes.fromhex(one), dtype) for dtype, one in some] for some in forms
        ]
        return cls(names, [bytes.fromhex(one) for one in contents], vectors, living)


def spellings(name: str) -> list[bytes]:
    """How a name may stand in a file: plain, escaped in JSON, in HTML, percent-encoded."""
    forms = [
        name,
        json.dumps(name)[1:-1],
        json.dumps(name, ensure_ascii=False)[1:-1],
        html.escape(name),
        html.escape(name, quote=False),
        quote(name, safe="/"),
        quote(name, safe="/:"),
        quote(name, safe="/ !$&'()*+,;=:@~"),
    ]
    return list(dict.fromkeys(form.encode("utf-8", "surrogateescape") for form in forms))


class Search:
    """One search over many files."""

    def __init__(self, traces: Traces) -> None:
        self._short = [name for name in traces.names if len(os.fsencode(name)) < SHORTEST]
        known: list[tuple[bytes, str, str]] = []
        for name in traces.names:
            if name not in self._short:
                known += [(form, "name", name) for form in spellings(name)]
        for content in traces.contents:
            known += [
                (form, "content", content.hex()) for form in (content, content.hex().encode())
            ]
        for number, vectors in enumerate(traces.vectors):
            known += [(vector.tobytes(), "vector", str(number)) for vector in vectors]
        self._known = [one for one in known if len(one[0]) >= SHORTEST]  # a vector may be short
        self._patterns = Patterns([pattern for pattern, _, _ in self._known])
        self._excuses = _excuses(self._known, traces.living)

    def file(self, found: Path | BinaryIO, relative: str) -> Iterator[tuple[str, str]]:
        """Kind and description of everything found in one file, which may be open already."""
        yield from self.buffer(os.fsencode(relative))
        if isinstance(found, Path):
            if found.is_symlink():
                yield from self.buffer(os.fsencode(os.readlink(found)))
                return
            if not found.is_file():
                return
        with open(found, "rb") if isinstance(found, Path) else found as file:
            if os.fstat(file.fileno()).st_size:
                yield from self._contents(file)

    def _contents(self, file: BinaryIO) -> Iterator[tuple[str, str]]:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from self.buffer(data)
            for name in self._short:  # a part of anything: it counts where it stands for itself
                if any(data.find(form % os.fsencode(name)) >= 0 for form in (b'"%s"', b">%s<")):
                    yield "name", name
            magic = data[:4]
        if magic == b"PAR1":
            yield from self._parquet(file)
        elif magic == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    yield from self.buffer(archive.read(name))

    def buffer(self, data: Any) -> Iterator[tuple[str, str]]:
        """What is found in bytes as they are."""
        for number, position in self._patterns.find(data):
            if not self._excused(number, position, data):
                yield self._known[number][1:]

    def _excused(self, number: int, position: int, data: Any) -> bool:
        """Is it a part of the name of another image?"""
        return any(
            offset <= position
            and bytes(data[position - offset : position - offset + length]) in names
            for (offset, length), names in self._excuses.get(number, {}).items()
        )

    def _parquet(self, raw: BinaryIO) -> Iterator[tuple[str, str]]:
        """Text and bytes decoded; other columns where their pages are not plain."""
        with pq.ParquetFile(raw) as file:
            columns = _columns_to_decode(file)
            if not columns or not file.num_row_groups:
                return
            for batch in file.iter_batches(_BATCH, columns=columns):
                for column in batch.columns:
                    yield from self._array(column)

    def _array(self, array: Any) -> Iterator[tuple[str, str]]:
        while pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
            array = array.flatten()
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_string(array.type) and self._short:
            there = array.filter(pc.is_in(array, pa.array(self._short, pa.string())))
            yield from (("name", name) for name in pc.unique(there).to_pylist())
        for buffer in array.buffers()[1:]:
            if buffer is not None and buffer.size:
                yield from self.buffer(buffer)


def _columns_to_decode(file: pq.ParquetFile) -> list[str]:
    """Columns of text and bytes, and those whose pages are compressed or otherwise encoded."""
    metadata, wanted = file.metadata, []
    for number in range(metadata.num_columns):
        column = metadata.schema.column(number)
        chunks = [metadata.row_group(i).column(number) for i in range(metadata.num_row_groups)]
        plain = all(
            chunk.compression == "UNCOMPRESSED" and _PLAIN.issuperset(chunk.encodings)
            for chunk in chunks
        )
        if not plain or column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            wanted.append(column.path)
    return wanted


def _excuses(
    known: Sequence[tuple[bytes, str, str]], living: Sequence[str]
) -> Mapping[int, dict[tuple[int, int], set[bytes]]]:
    """For each pattern of a name, where it lies in which spelling of a longer name that lives."""
    found: dict[int, dict[tuple[int, int], set[bytes]]] = {}
    names = Patterns([pattern for pattern, _, _ in known])
    for name in living:
        for spelt in spellings(name):
            for number, offset in names.find(spelt):
                place = found.setdefault(number, {}).setdefault((offset, len(spelt)), set())
                place.add(spelt)
    return found
