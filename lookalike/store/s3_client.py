"""The process's clients of S3, and what their errors say: the one module that imports `botocore`.

What fails, fails as one of three: `UnreachableError` (try again), `RequestError` (credentials, the
bucket, a setting), `FileNotFoundError` (this one key).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.store.s3_uri import S3Name

_ATTEMPTS = 4  # of one request, with botocore's pauses between them: some seconds in all
_CONNECT_S, _READ_S = 10, 30
_CONNECTIONS = 64  # as many as `looking_up` asks at once

_LATER = frozenset(
    [
        "429",
        "500",
        "502",
        "503",
        "504",
        "BandwidthLimitExceeded",
        "InternalError",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
    ]
)


Settings = tuple[tuple[str, str], ...]


class PastEndError(OSError):
    """The range asked for begins where the object has ended: it is empty."""


def open_client(name: S3Name) -> Any:
    """The process's client for a name's options and what the environment says now."""
    with _making:
        return _made(name.options, name.user, environment())[0]


def credentials(name: S3Name) -> Any:
    """Those of that client; None where there are none."""
    with _making:
        return _made(name.options, name.user, environment())[1]


def environment() -> Settings:
    """What the environment says of S3."""
    return tuple(sorted(one for one in os.environ.items() if one[0].startswith("AWS_")))


@lru_cache(maxsize=16)
def _made(options: str, user: str, environment: object) -> tuple[Any, Any]:
    """A client, and its credentials."""
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
        client = session.create_client(
            "s3",
            region_name=given.get("region"),
            endpoint_url=endpoint,
            use_ssl=given.get("scheme") != "http",
            verify=ca_file or (None if _yes(given, "tls_verify_certificates", "true") else False),
            config=config,
        )
        return client, session.get_credentials()
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
def told(name: S3Name, client: Any, what: str) -> Iterator[None]:
    """Turn what botocore raises into the error that says what to do."""
    from botocore import exceptions as failures
    from botocore.parsers import ResponseParserError

    begin = f"{short(name)}: cannot {what} it"
    try:
        yield
    except failures.ClientError as error:
        raise _answered(name, client, begin, error.response) from error
    except (
        failures.HTTPClientError,
        failures.ConnectionError,
        failures.IncompleteReadError,
        ResponseParserError,
    ) as error:  # no answer, half of one, or none of S3
        what = f"no answer from {client.meta.endpoint_url} ({_cause(error)})"
        raise UnreachableError(f"{begin}: {what}; try again later", name.shown) from error
    except failures.BotoCoreError as error:
        raise RequestError(f"{begin}: {one_line(error)}; check the settings of AWS") from error


def _answered(name: S3Name, client: Any, begin: str, answer: Mapping[str, Any]) -> Exception:
    """What an answer that is an error stands for."""
    from botocore import UNSIGNED

    status = int(answer["ResponseMetadata"].get("HTTPStatusCode", 0))
    code, message = (str(answer["Error"].get(key, "")) for key in ("Code", "Message"))
    if code in (str(status), "Unknown", ""):  # the answer had no body
        why = f"{status} {message}".strip()
    else:
        why = f"{status} {code}: {message}" if message else f"{status} {code}"
    if status >= 500 or status == 429 or code in _LATER:
        text = f"{begin}: {client.meta.endpoint_url} answers {why}; try again later"
        return UnreachableError(one_line(OSError(text)), name.shown)
    if code == "NoSuchBucket":
        return RequestError(f"{begin}: there is no bucket {name.bucket!r}; check its name")
    if status == 404:
        return FileNotFoundError(f"{short(name)}: no such object")
    if status == 412:
        return OSError(f"{short(name)}: it changed while it was read")
    if status == 416:
        return PastEndError(f"{short(name)}: the object ends before")
    remedy = "check the credentials and what they permit"
    if client.meta.config.signature_version is UNSIGNED:
        remedy = "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, …"
    elif status not in (400, 401, 403):
        remedy = "check the endpoint and the region"
    return RequestError(one_line(ValueError(f"{begin}: {why}; {remedy}")))


def short(name: S3Name) -> str:
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


def is_cut_short(error: BaseException) -> bool:
    """Whether a body ended or stalled midway, which botocore does not try again itself."""
    from botocore import exceptions as failures

    return isinstance(
        error,
        failures.IncompleteReadError | failures.ReadTimeoutError | failures.ResponseStreamingError,
    )
