"""The layout of an embedding shard: columns, ids, and where in the file each vector lies.

Vectors are the last column, plain and uncompressed, with one data page for each row group. So the
vectors of a row group are the last bytes written for it, and the writer knows at which byte of the
file they begin. These addresses go into the file's key-value metadata. With them, a vector can be
read without a Parquet decoder: with groups of 2,048 rows and vectors of 512 float32, the vector of
row 3,000 begins at byte starts[1] + (3,000 - 2,048) * 2,048.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lookalike.distances import Ids
from lookalike.store.columns import merge_columns

SCHEMA_VERSION = 2
COLUMNS = ("id", "uri", "content_sha256", "width", "height", "format", "bytes", "embedding")
ADDRESSES = "lookalike.vector_addresses"
_GROUP_BYTES = 4 << 20  # of vectors
_FEWEST, _MOST = 256, 2048  # rows of a group: more are slow to decode for the name of one of them
_ROW = 0xFFFFFFFF


def schema(
    dim: int, metadata: pa.Schema, properties: Mapping[str, str], dtype: str = "float32"
) -> pa.Schema:
    """Schema of a shard of `dim`-dimensional vectors, stored as `dtype` (float32 or float16).

    `properties` go to the file's metadata.
    """
    kinds = {"float32": pa.float32(), "float16": pa.float16()}
    if dtype not in kinds:
        raise ValueError(f"vectors are stored as {' or '.join(kinds)}, not as {dtype!r}")
    fields = [
        ("id", pa.int64()),
        ("uri", pa.string()),
        ("content_sha256", pa.binary(32)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("bytes", pa.int64()),
        *[(column.name, column.type) for column in metadata],
        ("embedding", pa.list_(kinds[dtype], dim)),
    ]
    return pa.schema(fields, {"lookalike.schema_version": str(SCHEMA_VERSION), **properties})


def metadata_columns(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of all shards that are not lookalike's own."""
    return merge_columns(
        pa.schema([column for column in one if column.name not in COLUMNS]) for one in schemas
    )


def make_id(file_no: int, row: int) -> int:
    """The id of a row: file number << 32 | row."""
    return file_no << 32 | row


def file_numbers(ids: Ids) -> Ids:
    """The file number of each id."""
    return ids >> 32


def row_numbers(ids: Ids) -> Ids:
    """The row within its file of each id."""
    return ids & _ROW


def of_rows(ids: Ids, rows: Mapping[int, int]) -> npt.NDArray[np.bool_]:
    """Which ids (n,) are of rows of files that have so many, by file number."""
    numbers, which = np.unique(file_numbers(ids), return_inverse=True)
    ends = np.array([rows.get(number, 0) for number in numbers.tolist()], dtype=np.int64)
    return np.asarray(row_numbers(ids) < ends[which])


def vector_type(shard_schema: pa.Schema) -> tuple[int, np.dtype]:
    """Dimension and dtype (little-endian float32 or float16) of a shard's vectors."""
    kind = shard_schema.field("embedding").type
    dtype = "<f2" if pa.types.is_float16(kind.value_type) else "<f4"
    return kind.list_size, np.dtype(dtype)


def group_rows(dim: int, itemsize: int) -> int:
    """Rows of a row group: about 4 MiB of vectors."""
    return max(_FEWEST, min(_MOST, _GROUP_BYTES // (dim * itemsize)))


@dataclass(frozen=True)
class Addresses:
    """Where the vectors of one file lie.

    Attributes:
        rows: Rows of the file.
        dtype: Of a component, as stored.
        group: Rows of every row group but the last, which has the rest.
        starts: First byte of each row group's vectors, (groups,) int64.
    """

    rows: int
    dim: int
    dtype: np.dtype
    group: int
    starts: npt.NDArray[np.int64]

    @property
    def row_bytes(self) -> int:
        """Bytes of one vector."""
        return self.dim * self.dtype.itemsize

    def offsets(self, rows: Ids) -> npt.NDArray[np.int64]:
        """First bytes (n,) of the vectors of the rows (n,)."""
        return np.asarray(
            self.starts[rows // self.group] + (rows % self.group) * self.row_bytes, dtype=np.int64
        )


def addresses_json(group: int, starts: list[int]) -> str:
    """What the file's key-value metadata say."""
    return json.dumps({"group": group, "starts": starts}, separators=(",", ":"))


def addresses_of(footer: pq.FileMetaData, name: str, size: int) -> Addresses | None:
    """The addresses that a shard's footer states, or None where it has none (version 1).

    Raises:
        ValueError: They are not those of this file.
    """
    text = (footer.metadata or {}).get(ADDRESSES.encode())
    if text is None:
        return None
    value = json.loads(text)
    dim, dtype = vector_type(footer.schema.to_arrow_schema())
    starts = np.asarray(value["starts"], dtype=np.int64)
    addresses = Addresses(footer.num_rows, dim, dtype, int(value["group"]), starts)
    _check(name, addresses, size)
    return addresses


def column_ranges(
    footer: pq.FileMetaData, group: int, columns: Collection[str]
) -> list[tuple[int, int]]:
    """First byte and number of bytes of those columns in one row group, a range for each part."""
    found, stored = [], footer.row_group(group)
    for number in range(stored.num_columns):
        part = stored.column(number)
        path = part.path_in_schema  # of a nested column, the name and what lies below
        if any(path == name or path.startswith(f"{name}.") for name in columns):
            start = part.data_page_offset
            if part.dictionary_page_offset is not None:
                start = min(start, part.dictionary_page_offset)
            found.append((start, part.total_compressed_size))
    return found


def _check(name: str, addresses: Addresses, size: int) -> None:
    """No address may lead out of the file, whatever is in its metadata."""
    group, starts = addresses.group, addresses.starts
    groups = -(-addresses.rows // group) if group > 0 else -1
    if groups == len(starts):
        counts = np.full(groups, group, dtype=np.int64)
        counts[-1:] = addresses.rows - group * (groups - 1)
        if (starts >= 0).all() and (starts + counts * addresses.row_bytes <= size).all():
            return
    raise ValueError(
        f"{name}: its vector addresses do not fit it ({addresses.rows} rows in groups of {group}, "
        f"{len(starts)} addresses, {size} bytes); run: lookalike verify"
    )
