"""Named files looked up: their size and version, or why they cannot be had.

Very many of them on object storage are asked for at once, as each answer takes its time.
"""

from __future__ import annotations

import mimetypes
import os
import stat
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from lookalike.errors import RequestError, UnreachableError, one_line, out_of_reach
from lookalike.records import SourceFile
from lookalike.store import storage
from lookalike.store.s3_client import Settings, environment
from lookalike.store.s3_heads import quick_info
from lookalike.store.s3_uri import canonical, is_s3, parse, without_dots

AT_ONCE = 64
"""Requests on their way, of one process."""
_MANY = 4 * AT_ONCE  # more of them are worth another client
_LOST = "folder not readable"
_KINDS = mimetypes.MimeTypes()  # without this machine's own
for _new in ("avif", "heic", "heif", "jxl", "webp"):  # which Python knows from 3.13 on, or not yet
    _KINDS.add_type(f"image/{_new}", f".{_new}")


def look_up(uri: str, strict: bool = False) -> SourceFile:
    """Size and version of one named file, or why it cannot be had.

    Raises:
        UnreachableError: Where `strict` asks for it: nobody can tell now, of a remote one.
    """
    if not storage.is_remote(uri):
        return local_file(storage.path_from_uri(uri))
    try:
        uri = canonical(uri)
        return _remote_file(uri)
    except (OSError, ValueError) as error:
        if strict and isinstance(error, UnreachableError):
            raise
        hides = uri if isinstance(error, OSError) else None
        return SourceFile(uri, -1, "", one_line(error), hides=hides)


def look_up_all(uris: Sequence[str]) -> Generator[SourceFile | UnreachableError, None, None]:
    """Each of some files, in order, or the error where nobody can tell now (see `look_up`).

    Of remote ones `AT_ONCE` are asked for at a time, and a few more than are taken from here.
    """
    if not any(map(storage.is_remote, uris)):
        yield from map(_tried, uris)
        return
    waiting: deque[Future[SourceFile | UnreachableError]] = deque()
    pool = ThreadPoolExecutor(min(AT_ONCE, len(uris)), "look-up")
    tried = partial(_quickly, environment()) if len(uris) > _MANY else _tried
    try:
        for uri in uris:
            waiting.append(pool.submit(tried, uri))
            if len(waiting) >= 2 * AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _quickly(settings: Settings, uri: str) -> SourceFile | UnreachableError:
    """As `_tried`, in less time where the object is there and has a plain name."""
    try:
        found = quick_info(name := parse(uri), settings) if is_s3(uri) else None
    except RequestError:
        found = None
    return SourceFile(name.uri, *found) if found else _tried(uri)


def _tried(uri: str) -> SourceFile | UnreachableError:
    try:
        return look_up(uri, strict=True)
    except UnreachableError as error:
        return error


def lost_folder(uri: str, problem: str) -> SourceFile:
    """The row of a folder that cannot be listed."""
    return SourceFile(uri, -1, "", f"{_LOST}: {problem}", hides=folder_start(uri))


def lost_link(path: bytes) -> SourceFile | None:
    """The row of a link that leads nowhere, where a folder may have been; None for all else.

    The folder may have been moved to a disk that is not mounted now, and the link left in its
    place: so the row hides what lies below the link's name. A link that bears a picture's or film's
    name is taken for one to a file: there can be a million of them (as git-annex leaves), and what
    hides others is held in memory.
    """
    if not os.path.islink(path) or os.path.exists(path):
        return None
    if _is_named_as_a_picture(os.fsdecode(path)):
        return None
    row = local_file(path)
    return replace(row, hides=folder_start(row.uri))


def _is_named_as_a_picture(name: str) -> bool:
    kind = _KINDS.guess_type(name, strict=False)[0] or ""
    return kind.startswith(("image/", "video/"))


def folder_start(uri: str) -> str:
    """What the names of all files below a folder begin with."""
    return storage.plain_name(uri).rstrip("/") + "/"


def local_file(path: bytes) -> SourceFile:
    """Size and version of a local file, or why it cannot be had."""
    uri = storage.uri_from_path(os.path.abspath(path))
    try:
        info = os.stat(path)
    except OSError as error:
        hides = uri if _in_doubt(error, path) else None
        return SourceFile(uri, -1, "", error.strerror or one_line(error), hides=hides)
    except ValueError as error:  # a NUL character
        return SourceFile(uri, -1, "", one_line(error))
    if not stat.S_ISREG(info.st_mode):  # a pipe would block its reader for ever
        return SourceFile(uri, -1, "", "not a regular file")
    return SourceFile(uri, info.st_size, str(info.st_mtime_ns))


def _in_doubt(error: OSError, path: bytes) -> bool:
    """Whether a file may be there all the same: also where its whole folder is away."""
    folder = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)
    return out_of_reach(error) or not os.path.isdir(folder)


def _remote_file(uri: str) -> SourceFile:
    kind, size, version = storage.remote_info(uri)
    if kind == "absent" and is_s3(uri) and (plain := without_dots(parse(uri).key)):
        # No key is spelled so: then dots lead where they do in URIs.
        named = parse(uri).named(plain).uri
        if named != uri:
            return _remote_file(named)
    return SourceFile(uri, size, version, "" if kind == "file" else f"no such file ({kind})")
