"""Objects on S3 as sources: listed and read by their keys, whatever bytes a key has.

The one module that imports `botocore` (the extra "remote"); pyarrow and obstore take keys for
paths. What fails, fails as one of three: `UnreachableError` (try again), `RequestError`
(credentials, the bucket, a setting), `FileNotFoundError` (this one key).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.store.s3_uri import S3Name, parse

__all__ = ["Part", "S3Entry", "info", "list_objects", "read", "read_part"]

_ATTEMPTS = 4  # of one request, with botocore's pauses between them: some seconds in all
_BODIES = 3  # readings of one body that is cut short: botocore does not try those again
_CONNECT_S, _READ_S = 10, 30
_CONNECTIONS = 32
_EMPTY_PAGES = 1000  # that may follow each other

_LATER = frozenset(
    ["429", "500", "502", "503", "504", "BandwidthLimitExceeded", "InternalError",
     "RequestLimitExceeded", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
     "ThrottlingException", "TooManyRequests", "TooManyRequestsException"]
)  # fmt: skip

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


def info(uri: str) -> tuple[str, int, str]:
    """Kind ("file", "folder" or "absent"), size and version of what a URI names.

    Raises:
        UnreachableError, RequestError: Nobody can tell.
    """
    name = parse(uri)
    client = _client(name)
    denied = False
    if name.key:
        try:
            with _told(name, client, "look at"):
                found = client.head_object(Bucket=name.bucket, Key=name.key)
            size = int(found["ContentLength"])
            if size or not name.key.endswith("/"):  # else it marks a folder
                return "file", size, _version(found)
        except FileNotFoundError:
            pass
        except RequestError:
            denied = True  # perhaps only what lies below it may be read
    with _told(name.named(name.prefix), client, "list"):
        page = client.list_objects_v2(Bucket=name.bucket, Prefix=name.prefix, MaxKeys=1)
    if page.get("Contents") or not name.key:
        return "folder", 0, "0"
    if denied:  # an answer to HEAD has no body that says why
        with _told(name, client, "look at"):
            client.get_object(Bucket=name.bucket, Key=name.key, Range="bytes=0-0")["Body"].close()
    return "absent", 0, "0"


def list_objects(uri: str) -> Iterator[S3Entry]:
    """All objects whose keys begin with the folder's name, or with a prefix: in the server's order.

    `uri` ends with `/` for a folder, and with nothing for a bucket; all else is a prefix of keys.
    Empty objects that mark a folder, with a key that ends in `/`, are left out.

    Raises:
        UnreachableError: It cannot be listed now, or the listing goes in circles; `where` has the
            prefix.
        RequestError: It cannot be listed so.
    """
    name = parse(uri)
    for page in _pages(name):
        for one in page:
            key, size = one["Key"], int(one["Size"])
            if size or not key.endswith("/"):
                yield S3Entry(key, name.named(key).uri, size, _version(one))


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

    Args:
        name: The object.
        start: The first byte.
        count: Of bytes, at least one.
        e_tag: What the object must still be.

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
    except _PastEndError:
        return Part(b"", max(0, start), 0, e_tag)


class _PastEndError(OSError):
    """The range asked for begins where the object has ended: it is empty."""


def _get(
    name: S3Name, given: dict[str, str], made: Callable[[Mapping[str, Any], bytes], _Result]
) -> _Result:
    from botocore import exceptions as failures

    again = (failures.IncompleteReadError, failures.ReadTimeoutError,
             failures.ResponseStreamingError)  # fmt: skip
    client = _client(name)
    for number in range(_BODIES):
        with _told(name, client, "read"):
            try:
                got = client.get_object(Bucket=name.bucket, Key=name.key, **given)
                return made(got, got["Body"].read())
            except again:
                if number == _BODIES - 1:
                    raise
    raise AssertionError("unreachable")


def _version(answer: Mapping[str, Any]) -> str:
    """When it was written, in whole seconds: a listing, HEAD and GET say it alike, in ns."""
    return str(int(answer["LastModified"].timestamp()) * 10**9)


# --- listing ----------------------------------------------------------------------------------


def _pages(name: S3Name) -> Iterator[list[dict[str, Any]]]:
    """The pages of a listing, which must go on: Brent's way to find a circle keeps one page's mark.

    Keys come in no order that could be relied on: directory buckets have none.
    """
    client, asked = _client(name), {"Bucket": name.bucket, "Prefix": name.key}
    old: object = None
    number = kept = empty = 0
    while True:
        with _told(name, client, "list"):
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
                f"{_short(name)}: cannot list it: after {number + 1:,} pages {what}", name.shown
            )
        number += 1
        if number > 2 * kept:
            old, kept = mark, number
        asked["ContinuationToken"] = token


# --- the client -------------------------------------------------------------------------------


def _client(name: S3Name) -> Any:
    """The process's client for a name's options and what the environment says now."""
    environment = tuple(sorted(one for one in os.environ.items() if one[0].startswith("AWS_")))
    with _making:
        return _made(name.options, name.user, environment)


@lru_cache(maxsize=16)
def _made(options: str, user: str, environment: object) -> Any:
    name = S3Name("", "", options, user)
    try:
        import botocore.session
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise RequestError(
            "sources on s3:// need botocore; install it: pip install 'lookalike[remote]'"
        ) from error
    given = name.settings()
    endpoint = given.get("endpoint_override") or None
    if endpoint and "://" not in endpoint:
        endpoint = f"{given.get('scheme', 'https')}://{endpoint}"
    ca_file = given.get("tls_ca_file_path")
    try:
        session = botocore.session.Session()
        if user:
            session.set_credentials(*(unquote(part) for part in user.partition(":")[::2]))
        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=_CONNECTIONS,
            response_checksum_validation="when_required",
            # Who has no credentials may read what is public.
            signature_version=None if session.get_credentials() else UNSIGNED,
            s3={"addressing_style": "virtual"} if _yes(given, "force_virtual_addressing") else None,
        )
        return session.create_client(
            "s3",
            region_name=given.get("region"),
            endpoint_url=endpoint,
            use_ssl=given.get("scheme") != "http",
            verify=ca_file or (None if _yes(given, "tls_verify_certificates", "true") else False),
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise RequestError(
            f"cannot open s3://: {one_line(error)}; check the options after ? and AWS's settings"
        ) from error


def _yes(given: Mapping[str, str], name: str, default: str = "false") -> bool:
    return given.get(name, default).lower() in ("true", "1")


def _forget_clients() -> None:
    """A forked process makes its own: connections cannot be shared, nor a lock that was held."""
    global _making
    _making = threading.Lock()
    _made.cache_clear()


_making = threading.Lock()
os.register_at_fork(after_in_child=_forget_clients)


# --- what went wrong --------------------------------------------------------------------------


@contextmanager
def _told(name: S3Name, client: Any, what: str) -> Iterator[None]:
    """Turn what botocore raises into the error that says what to do."""
    from botocore import exceptions as failures
    from botocore.parsers import ResponseParserError

    begin = f"{_short(name)}: cannot {what} it"
    try:
        yield
    except failures.ClientError as error:
        raise _answered(name, client, begin, error.response) from error
    except (failures.HTTPClientError, failures.ConnectionError, failures.IncompleteReadError,
            ResponseParserError) as error:  # no answer, half of one, or none of S3  # fmt: skip
        what = f"no answer from {client.meta.endpoint_url} ({_cause(error)})"
        raise UnreachableError(f"{begin}: {what}; try again later", name.shown) from error
    except failures.BotoCoreError as error:
        raise RequestError(f"{begin}: {one_line(error)}; check the settings of AWS") from error


def _answered(name: S3Name, client: Any, begin: str, answer: Mapping[str, Any]) -> Exception:
    """What an answer that is an error stands for."""
    from botocore import UNSIGNED

    status = int(answer["ResponseMetadata"].get("HTTPStatusCode", 0))
    code, message = (str(answer["Error"].get(key, "")) for key in ("Code", "Message"))
    why = f"{code}: {message}" if message and message != code else code
    if status >= 500 or status == 429 or code in _LATER:
        text = f"{begin}: {client.meta.endpoint_url} answers {status} {why}; try again later"
        return UnreachableError(one_line(OSError(text)), name.shown)
    if code == "NoSuchBucket":
        return RequestError(f"{begin}: there is no bucket {name.bucket!r}; check its name")
    if status == 404:
        return FileNotFoundError(f"{_short(name)}: no such object")
    if status == 412:
        return OSError(f"{_short(name)}: it changed while it was read")
    if status == 416:
        return _PastEndError(f"{_short(name)}: the object ends before")
    remedy = "check the credentials and what they permit"
    if client.meta.config.signature_version is UNSIGNED:
        remedy = "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, …"
    elif status not in (400, 401, 403):
        remedy = "check the endpoint and the region"
    return RequestError(one_line(ValueError(f"{begin}: {status} {why}; {remedy}")))


def _short(name: S3Name) -> str:
    """The name as far as a line has room for it and the cause."""
    shown = name.shown
    return shown if len(shown) <= 160 else f"{shown[:100]}…{shown[-59:]}"


def _cause(error: Exception) -> str:
    """The end of the chain of what happened: 'Connection refused', say."""
    cause: Any = error
    while (inner := getattr(cause, "kwargs", {}).get("error") or cause.__cause__) is not None:
        cause = inner
    text = one_line(cause, 120)
    return text.rpartition("] ")[2] if "[Errno" in text else text
