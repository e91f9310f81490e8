"""What a file is that was taken for another: told from its first bytes, with what to do then."""

from __future__ import annotations

import re

from lookalike.errors import one_line
from lookalike.sources.sniff import sniff
from lookalike.store import storage

NPY = b"\x93NUMPY"
PARQUET = b"PAR1"
HEAD_BYTES = 1024

ARRAY, ARCHIVE, TABLE = "a NumPy array (.npy)", "a NumPy archive (.npz)", "a Parquet table"
_PREFIXES = (
    (NPY, ARRAY),
    (PARQUET, TABLE),
    (b"PARE", "an encrypted Parquet table"),
    (b"ARROW1", "an Arrow file (Feather)"),
    (b"FEA1", "a Feather file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"ORC", "an ORC table"),
    (b"Obj\x01", "an Avro file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"%PDF-", "a PDF document"),
    (b"version https://git-lfs.github.com/", "a Git LFS pointer, not the file itself"),
)
_FAISS = re.compile(rb"I[BHVWvwx][A-Za-z0-9]{2}")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_SAFETENSORS = re.compile(rb"[\s\S]{6}\0\0\{[\s\"]")
_TEXT = re.compile(rb"[^\0-\x08\x0b\x0e-\x1a\x1c-\x1f]+")


def file_kind(head: bytes) -> str:
    """In words with an article, from the first `HEAD_BYTES` of a file."""
    if not head:
        return "an empty file"
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    if head.startswith(b"PK\x03\x04"):
        names = head[30:]
        if b"data.pkl" in names:
            return "a PyTorch file"
        return ARCHIVE if b".npy" in names else "a zip archive"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if picture := sniff(head):
        return f"a picture ({picture})"
    for pattern, kind in (
        (_SAFETENSORS, "a safetensors file"),
        (_PICKLE, "a Python pickle"),
        (_FAISS, "a Faiss index"),
    ):
        if pattern.match(head):
            return kind
    if _TEXT.fullmatch(head):
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
        return "JSON text" if start in (b"{", b"[") else "text"
    return f"a file of no known kind (it begins with {head[:4].hex(' ')})"


def read_head(uri: str) -> bytes:
    """The first bytes of a file, local or remote; of a folder, that it is one.

    Raises:
        OSError: It cannot be read.
    """
    return storage.read_bytes(uri, HEAD_BYTES)


def not_parquet(uri: str, error: BaseException, what: str) -> str:
    """Why a file could not be read as Parquet, and what to do."""
    reason = getattr(error, "strerror", None) or one_line(error)
    try:
        head = read_head(uri)
    except OSError:
        return f"not readable as Parquet: {reason}"
    if head.startswith(PARQUET):
        return f"not readable as Parquet: {reason}; write it anew, or leave it out"
    kind = file_kind(head)
    remedy = f"name a Parquet table with {what}"
    if kind == ARRAY:
        remedy += (
            ", as by pyarrow.parquet.write_table(pyarrow.table("
            "{'uri': names, 'embedding': list(array)}), 'vectors.parquet')"
        )
    return f"not readable as Parquet: it is {kind}; {remedy}"
