"""What errors of object storage say, told from the server's words, and when to try again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from lookalike.errors import RequestError, one_line
from lookalike.store.objects import ObjectStoreError

_TRIES = 4  # of one call, beyond what the client does for each request
_PAUSE_S = 0.5  # before the second try, doubled for each after it

_Result = TypeVar("_Result")

# What an answer or the library says where trying again ends the same way.
_NO_BUCKET = re.compile(r"<Code>NoSuchBucket<|\bNoSuchBucket\b|specified bucket does not exist")
_DENIED = re.compile(
    r"<Code>(AccessDenied|AccountProblem|AllAccessDisabled|AuthorizationHeaderMalformed|Expired"
    r"Token|InvalidAccessKeyId|InvalidToken|RequestTimeTooSkewed|SignatureDoesNotMatch|TokenRefresh"
    r"Required)<|status code: 40[13]\b|\(code: AccessDenied\)"
)
_NO_CREDENTIALS = re.compile(r"//(169\.254\.|metadata\.google\.|\[fd00:ec2:)")  # asked for a role
_ELSEWHERE = re.compile(r"<Code>PermanentRedirect<|status code: 301\b|redirect without LOCATION")


def is_missing_bucket(text: str) -> bool:
    """Whether what is not there is the bucket, not an object in it."""
    return bool(_NO_BUCKET.search(text))


def wrong_request(text: str, refused: bool = False) -> str:
    """What is wrong with a request that ends the same way every time; "" where it may not."""
    if is_missing_bucket(text):
        return "there is no such bucket; check its name"
    if _NO_CREDENTIALS.search(text):
        return (
            "no credentials were found in the environment (AWS_ACCESS_KEY_ID, …), and the machine "
            "has no role that gives any"
        )
    if refused or _DENIED.search(text):
        return f"not allowed: {reason(text)}; check the credentials and what they permit"
    if _ELSEWHERE.search(text):
        return "the bucket lies in another region; name that"
    return ""


def reason(text: str) -> str:
    """The server's own words, or those of the library without what it adds for its developers."""
    code, message = (re.search(f"<{tag}>([^<]*)<", text) for tag in ("Code", "Message"))
    if code:
        text = f"{code[1]}: {message[1]}" if message else code[1]
    return one_line(ValueError(text.split("\n\nDebug source", 1)[0]))


class Trying:
    """Calls of a library, some times more where the store or the network failed."""

    def __init__(
        self, uri: str, failed: tuple[type[Exception], ...], refused: tuple[type[Exception], ...]
    ) -> None:
        """Know what the library raises, and which of that is about permission."""
        self._uri, self._failed, self._refused = uri, failed, refused

    def absent(self, what: str, call: Callable[[], _Result]) -> _Result | None:
        """The same as `call`; None where there is no such object."""

        def found() -> _Result | None:
            try:
                return call()
            except FileNotFoundError as error:
                if is_missing_bucket(str(error)):
                    raise
                return None

        return self.call(what, found)

    def call(self, what: str, call: Callable[[], _Result]) -> _Result:
        """What a call returns, in the end.

        Args:
            what: It does, as an error says it.
            call: To be made again where it failed.

        Raises:
            RequestError: Trying again ends the same way: credentials, the bucket, the region.
            ObjectStoreError: It failed every time.
        """
        for number in range(_TRIES):
            try:
                return call()
            except ObjectStoreError:
                raise  # tried already
            except self._failed as error:
                if wrong := wrong_request(str(error), isinstance(error, self._refused)):
                    raise RequestError(f"{self._uri}: cannot {what}: {wrong}") from error
                if isinstance(error, FileNotFoundError):
                    gone = f"{self._uri}: cannot {what}: there is no such"
                    raise ObjectStoreError(gone) from error
                if number == _TRIES - 1:
                    raise ObjectStoreError(
                        f"{self._uri}: cannot {what} after {_TRIES} tries: {reason(str(error))}"
                    ) from error
            time.sleep(_PAUSE_S * 2**number)
        raise AssertionError("unreachable")
