"""Where bytes come from: the one module that touches `pyarrow.fs`, loaded when it is needed.

Sources are read the same way whether they are local or remote. `s3://` is read by `s3`, since keys
on S3 are not paths; `gs://`, `hdfs://` and whatever else pyarrow knows by pyarrow's file systems.
The files of a store are read and written through `objects` instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.store import s3
from lookalike.store.s3_file import S3File, copy_from_s3
from lookalike.store.s3_uri import SAFE, is_s3, split_options

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_remote(uri: str) -> bool:
    """Tell `scheme://…` from a local path (a Windows drive is no scheme)."""
    return bool(_SCHEME.match(uri)) and not uri.startswith("file://")


def place_below(place: str, folder: str) -> str:
    """The name of what lies below a place that a folder's path or a URI names, options and all."""
    plain, options = split_options(place) if is_remote(place) else (place, "")
    return f"{plain.rstrip('/')}/{folder}{options}"


def store_place(store: str | os.PathLike[str]) -> str:
    """A store's absolute folder, or its URI: what stands whatever the working folder becomes.

    Raises:
        RequestError: It is no name of either.
    """
    try:
        name = os.fspath(store)
    except TypeError:
        name = ""
    if not isinstance(name, str) or not name:
        raise RequestError(f"store: needs the name of a folder or a URI, got {store!r:.80}")
    if name.startswith("file://"):
        return os.fsdecode(path_from_uri(name))
    return name if is_remote(name) else os.path.abspath(name)


def plain_name(uri: str) -> str:
    """A path or URI without options that stand after it: what its suffix is told from."""
    return split_options(uri)[0] if is_remote(uri) else uri


def uri_from_path(path: bytes) -> str:
    """Name an absolute local path as a string that can be stored anywhere.

    A path that is not UTF-8 becomes a percent-encoded `file://` URI; every other one stands for
    itself, percent signs included, so that `path_from_uri` always finds the file again.

    Raises:
        ValueError: The path is relative, and a file:// URI has no such form.
    """
    if not os.path.isabs(path):
        raise ValueError(f"a path must be absolute to be named, got {path!r}")
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return "file://" + quote(path, safe="/ !$&'()*+,;=:@~")


def path_from_uri(uri: str) -> bytes:
    """Undo `uri_from_path`; also takes any `file://` URI."""
    if not uri.startswith("file://"):
        return uri.encode("utf-8", "surrogateescape")
    rest = uri[len("file://") :]
    if not rest.startswith("/"):  # file://host/path
        rest = "/" + rest.partition("/")[2]
    return unquote_to_bytes(rest)


_GOOGLE_PATIENCE_S = 30
"""How long Google's client tries again, in place of its own 15 minutes: with no network, a command
must say so while somebody is still looking."""

# What pyarrow's parser of URIs refuses, though names have it: spaces, accents, brackets, …
_UNSAFE = re.compile(r"%(?![0-9a-fA-F]{2})|[^!#$%&'()*+,\-./0-9:;=?@A-Z_a-z~]")


@cache
def _pafs() -> Any:
    import pyarrow.fs

    return pyarrow.fs


@lru_cache(maxsize=64)
def _remote_filesystem(root: str) -> Any:
    return _pafs().FileSystem.from_uri(root)[0]


def filesystem(uri: str) -> tuple[Any, str]:
    """Open the file system that holds a path or a remote URI, and the path inside it.

    The path may be percent-encoded, as `list_remote` gives it, or plain as far as it has no `?`,
    `#` or `%`.

    Raises:
        RequestError: pyarrow cannot open it (unknown scheme, no credentials).
    """
    if not is_remote(uri):
        return _pafs().LocalFileSystem(), os.fsdecode(path_from_uri(uri))
    parts = urlsplit(uri)
    query = parts.query
    if parts.scheme in ("gs", "gcs") and "retry_limit_seconds=" not in query:
        query += f"{'&' if query else ''}retry_limit_seconds={_GOOGLE_PATIENCE_S}"
    query = f"?{query}" if query else ""
    try:
        fs = _remote_filesystem(f"{parts.scheme}://{parts.netloc}/{query}")
        whole = f"{parts.scheme}://{parts.netloc}{_encoded(parts.path)}{query}"
        return fs, _pafs().FileSystem.from_uri(whole)[1]
    except Exception as error:  # pyarrow raises its own and the drivers' classes
        raise RequestError(
            f"cannot open {parts.scheme}://{parts.netloc}: {one_line(error)}; "
            "check the scheme (s3, gs, hdfs, …), the credentials and the network"
        ) from error


def _encoded(path: str) -> str:
    return _UNSAFE.sub(lambda match: quote(match[0]), path)


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """Read a whole file, or its first `limit` bytes.

    Raises:
        OSError: It cannot be opened or read (whatever the file system).
    """
    if not is_remote(uri):
        with open(path_from_uri(uri), "rb") as file:
            return file.read() if limit is None else file.read(limit)
    try:
        if is_s3(uri):
            return s3.read(uri, limit)
        fs, path = filesystem(uri)
        with fs.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read() if limit is None else stream.read(limit))
    except OSError:
        raise
    except Exception as error:
        raise OSError(one_line(error)) from error


def open_binary(uri: str, from_end: bool = False) -> Any:
    """Open a file to be read in pieces, some of them large, from its beginning or its end.

    Raises:
        OSError, RequestError: It cannot be opened.
    """
    if not is_remote(uri):
        return open(path_from_uri(uri), "rb")
    if is_s3(uri):
        return S3File(uri, from_end)
    fs, path = filesystem(uri)
    return fs.open_input_file(path)


def remote_info(uri: str, folders: bool = False) -> tuple[str, int, str]:
    """Kind ("file", "folder" or "absent"), size and version of a remote path; `folders`: see `s3`.

    Raises:
        UnreachableError, RequestError: Nobody can tell.
    """
    if is_s3(uri):
        return s3.info(uri, folders)
    fs, path = filesystem(uri)
    try:
        info = fs.get_file_info(path)
    except OSError as error:
        raise UnreachableError(f"cannot list {uri}: {one_line(error)}") from error
    except Exception as error:
        raise RequestError(f"cannot list {uri}: {one_line(error)}") from error
    return _KINDS.get(info.type.name, "absent"), info.size or 0, _version(info)


def list_remote(uri: str) -> Iterator[tuple[str, str, int, str]]:
    """Entries of one remote folder, sorted: (uri, kind, size, version); not recursive.

    Not of S3, which has no folders: see `s3.list_objects`. What a URI's path cannot hold as it is
    comes percent-encoded.
    """
    fs, path = filesystem(uri)
    parts = urlsplit(uri)
    folder = f"{parts.scheme}://{parts.netloc}{_encoded(parts.path).rstrip('/')}"
    query = f"?{parts.query}" if parts.query else ""
    try:
        infos = fs.get_file_info(_pafs().FileSelector(path, recursive=False))
    except Exception as error:
        raise OSError(one_line(error)) from error
    for info in sorted(infos, key=lambda info: str(info.path)):
        kind = _KINDS.get(info.type.name, "absent")
        name = quote(info.base_name, safe=SAFE)
        yield f"{folder}/{name}{query}", kind, info.size or 0, _version(info)


_KINDS = {"File": "file", "Directory": "folder"}  # by the name of a FileType


def _version(info: Any) -> str:
    return str(info.mtime_ns or 0)


def copy_to_local(uri: str, destination: Path) -> Path:
    """Copy a remote file or folder below a local folder, and return where it is now."""
    if is_s3(uri):
        return copy_from_s3(uri, destination)
    fs, path = filesystem(uri)
    target = destination / (path.rstrip("/").rpartition("/")[2] or "download")
    info = fs.get_file_info(path)
    if info.type.name == "NotFound":
        raise FileNotFoundError(f"{uri} does not exist")
    local = _pafs().LocalFileSystem()
    if info.type.name == "Directory":
        target.mkdir(parents=True)
    _pafs().copy_files(path, str(target), source_filesystem=fs, destination_filesystem=local)
    return target
