"""Objects on S3 as sources: listed and read by their keys, whatever bytes a key has.

pyarrow and obstore take keys for paths, so this is done with botocore (the extra "remote"); see
`s3_client` for what is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from lookalike.errors import RequestError, UnreachableError
from lookalike.store.s3_client import PastEndError, is_cut_short, open_client, short, told
from lookalike.store.s3_uri import S3Name, parse

_BODIES = 3  # readings of one body that is cut short
_EMPTY_PAGES = 1000  # that may follow each other

_Result = TypeVar("_Result")


class S3Entry(NamedTuple):
    """An object in a listing: its key, URI, bytes and version."""

    key: str
    uri: str
    bytes: int
    version: str


class Part(NamedTuple):
    """A range of an object: its bytes, where they begin, the whole's size, and its ETag."""

    data: bytes
    start: int
    size: int
    e_tag: str


def info(uri: str, folders: bool = False) -> tuple[str, int, str]:
    """Kind ("file", "folder" or "absent"), size and version of what a URI names.

    Where a key that ends in `/` names an object and begins others, it is a file, or a folder where
    `folders` says that these are meant.

    Raises:
        UnreachableError, RequestError: Nobody can tell.
    """
    name = parse(uri)
    client = open_client(name)
    denied = False
    if name.key and not name.key.endswith("/"):
        try:
            with told(name, client, "look at"):
                found = client.head_object(Bucket=name.bucket, Key=name.key)
            return "file", int(found["ContentLength"]), _version(found)
        except FileNotFoundError:
            pass
        except RequestError:
            denied = True  # perhaps only what lies below it may be read
    for page in _pages(name.named(name.prefix), {"MaxKeys": 2}):
        named = page and page[0]["Key"] == name.key and page[0]["Size"]  # empty, it marks a folder
        if named and not (folders and page[1:]):
            return "file", int(page[0]["Size"]), _version(page[0])
        if page:
            return "folder", 0, "0"
    if not name.key:
        return "folder", 0, "0"
    if denied:  # an answer to HEAD has no body that says why
        with told(name, client, "look at"):
            client.get_object(Bucket=name.bucket, Key=name.key, Range="bytes=0-0")["Body"].close()
    return "absent", 0, "0"


def list_objects(uri: str, after: str = "", until: str = "") -> Iterator[S3Entry]:
    """All objects whose keys begin with the folder's name, or with a prefix: in the server's order.

    Empty objects that mark a folder, with a key that ends in `/`, are left out.

    Args:
        uri: Ends with `/` for a folder, and with nothing for a bucket; all else is a prefix.
        after: Only keys after this text; like `until`, of a bucket that lists them in order.
        until: Only keys up to this text, "" for all.

    Raises:
        UnreachableError: It cannot be listed now, or the listing goes in circles; `where` has the
            prefix.
        RequestError: It cannot be listed so.
    """
    name = parse(uri)
    for page in _pages(name, _behind(after)):
        for one in page:
            key, size = one["Key"], int(one["Size"])
            if until and key > until:
                return
            if key > after and (size or not key.endswith("/")):
                yield S3Entry(key, name.named(key).uri, size, _version(one))


def first_key(name: S3Name, after: str) -> str | None:
    """The first key of a prefix after a text; None where there is none.

    Raises:
        OSError, RequestError: See `list_objects`.
    """
    for page in _pages(name, {"MaxKeys": 1, **_behind(after)}):
        if page:
            return str(page[0]["Key"])
    return None


def _behind(after: str) -> dict[str, str]:
    return {"StartAfter": after} if after else {}


def read(uri: str, limit: int | None = None) -> bytes:
    """A whole object, or its first `limit` bytes: one request.

    Raises:
        FileNotFoundError: There is no such key.
        UnreachableError, RequestError: It cannot be read.
    """
    if limit is None:
        return _get(parse(uri), {}, lambda got, data: data)
    return read_part(parse(uri), 0, limit).data if limit else b""


def read_part(name: S3Name, start: int, count: int, e_tag: str = "") -> Part:
    """Some bytes of an object, less where it ends before; a negative start counts from its end.

    Raises:
        OSError: See `read`; it is another object by now, or the server knows no ranges.
    """
    span = f"bytes=-{count}" if start < 0 else f"bytes={start}-{start + count - 1}"

    def part(got: Mapping[str, Any], data: bytes) -> Part:
        told = str(got.get("ContentRange", ""))  # bytes 0-99/1000
        if not told:  # all of it came
            first = max(0, len(data) - count) if start < 0 else start
            return Part(data[first : first + count], first, len(data), got["ETag"])
        where, _, size = told.removeprefix("bytes ").partition("/")
        return Part(data, int(where.partition("-")[0]), int(size), got["ETag"])

    try:
        return _get(name, {"Range": span, **({"IfMatch": e_tag} if e_tag else {})}, part)
    except PastEndError:
        return Part(b"", max(0, start), 0, e_tag)


def _get(
    name: S3Name, given: dict[str, str], made: Callable[[Mapping[str, Any], bytes], _Result]
) -> _Result:
    client = open_client(name)
    for number in range(_BODIES):
        with told(name, client, "read"):
            got = client.get_object(Bucket=name.bucket, Key=name.key, **given)
            try:
                return made(got, got["Body"].read())
            except Exception as error:
                if number == _BODIES - 1 or not is_cut_short(error):
                    raise
    raise AssertionError("unreachable")


def _version(answer: Mapping[str, Any]) -> str:
    """When it was written, in whole seconds: a listing, HEAD and GET say it alike, in ns."""
    return str(int(answer["LastModified"].timestamp()) * 10**9)


# --- listing ----------------------------------------------------------------------------------


def _pages(name: S3Name, more: Mapping[str, Any] | None = None) -> Iterator[list[dict[str, Any]]]:
    """The pages of a listing, which must go on: Brent's way to find a circle keeps one page's mark.

    Keys come in no order that could be relied on: directory buckets have none.
    """
    client, asked = open_client(name), {"Bucket": name.bucket, "Prefix": name.key, **(more or {})}
    old: object = None
    number = kept = empty = 0
    while True:
        with told(name, client, "list"):
            page = client.list_objects_v2(**asked)
        found = page.get("Contents", [])
        yield found
        if not page.get("IsTruncated"):
            return
        token = page.get("NextContinuationToken")
        mark = (found[0]["Key"], found[-1]["Key"]) if found else token
        empty = 0 if found else empty + 1
        if not token or mark == old or empty > _EMPTY_PAGES:
            what = "the listing goes in circles" if token else "there is more, and not said where"
            raise UnreachableError(
                f"{short(name)}: cannot list it: after {number + 1:,} pages {what}", name.shown
            )
        number += 1
        if number > 2 * kept:
            old, kept = mark, number
        asked["ContinuationToken"] = token
