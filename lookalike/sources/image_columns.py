"""Which column of a Parquet table holds images, and which others are metadata.

Images are a column of bytes, or a struct with a field `bytes` (as Hugging Face writes them).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from lookalike.errors import RequestError
from lookalike.store.columns import carried, is_bytes, kept_type, plain_type

_NAMES = ("image", "bytes", "image_bytes", "img", "jpg", "jpeg", "png", "content", "data")


@dataclass(frozen=True)
class TableColumns:
    """What the columns of a table are for.

    Attributes:
        image: The column of the images: their bytes, or a struct with a field `bytes`.
        path: The bytes as Parquet selects them (`image`, `image.bytes`).
        metadata: Names of the others that are kept, by the name in the table.
        schema: The metadata columns, under the names that they are kept by.
        left_out: Columns that are neither, with their types.
    """

    image: str
    path: str
    metadata: dict[str, str]
    schema: pa.Schema
    left_out: tuple[str, ...] = ()


def image_columns(uri: str, schema: pa.Schema) -> TableColumns | None:
    """What the columns of a table are for, None where it holds no images.

    Where there is a column `uri`, only a column named like one of images, or a struct with bytes,
    makes it a table of images; otherwise it is a manifest.

    Raises:
        RequestError: Several columns may hold the images, and none has a usual name.
    """
    found = _image_column(uri, schema)
    if found is None:
        return None
    path = f"{found.name}.bytes" if pa.types.is_struct(found.type) else found.name
    metadata = {column.name: carried(column.name) for column in schema if _is_plain(column.type)}
    types = {column.name: kept_type(column.type) for column in schema}
    if pa.types.is_struct(found.type) and (inner := found.type.get_field_index("path")) >= 0:
        kind = found.type.field(inner).type
        if _is_plain(kind):  # the name that the image once had
            metadata[f"{found.name}.path"] = carried(f"{found.name}_path")
            types[f"{found.name}.path"] = kept_type(kind)
    names = [*metadata.values(), *(name for name in schema.names if name not in metadata)]
    if len(set(names)) < len(names) or len(set(schema.names)) < len(schema.names):
        raise RequestError(
            f"{uri}: two columns would have one name (a column of lookalike's own is carried as "
            "manifest_<name>, the path in a struct as <struct>_path); names must differ"
        )
    kept = pa.schema([(metadata[name], types[name]) for name in metadata])
    left_out = (
        f"{column.name} ({column.type})"
        for column in schema
        if column.name != found.name and not _is_plain(column.type)
    )
    return TableColumns(found.name, path, metadata, kept, tuple(left_out))


def _image_column(uri: str, schema: pa.Schema) -> pa.Field | None:
    candidates = [column for column in schema if is_bytes(column.type) or _has_bytes(column.type)]
    named = [column for name in _NAMES for column in candidates if column.name == name]
    if "uri" in schema.names:
        candidates = [one for one in candidates if one in named or _has_bytes(one.type)]
    if len(candidates) > 1 and not named:
        names = ", ".join(column.name for column in candidates)
        raise RequestError(
            f"{uri}: several columns may hold the images ({names}); name the right one `image`"
        )
    return named[0] if named else (candidates[0] if candidates else None)


def _has_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    field = kind.get_field_index("bytes")
    return field >= 0 and is_bytes(kind.field(field).type)


def _is_plain(kind: pa.DataType) -> bool:
    kind = plain_type(kind)
    return not pa.types.is_nested(kind) and not is_bytes(kind)
