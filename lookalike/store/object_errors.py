"""What errors of object storage say, told from the server's words that the library passes on."""

from __future__ import annotations

import re

from lookalike.errors import one_line

# What an answer or the library says where trying again ends the same way.
_NO_BUCKET = re.compile(r"<Code>NoSuchBucket<|\bNoSuchBucket\b|specified bucket does not exist")
_DENIED = re.compile(
    r"<Code>(AccessDenied|AccountProblem|AllAccessDisabled|AuthorizationHeaderMalformed|Expired"
    r"Token|InvalidAccessKeyId|InvalidToken|RequestTimeTooSkewed|SignatureDoesNotMatch|TokenRefresh"
    r"Required)<|status code: 40[13]\b"
)
_NO_CREDENTIALS = re.compile(r"//(169\.254\.|metadata\.google\.|\[fd00:ec2:)")  # asked for a role
_ELSEWHERE = re.compile(r"<Code>PermanentRedirect<|status code: 301\b|redirect without LOCATION")


def is_missing_bucket(text: str) -> bool:
    """Whether what is not there is the bucket, not an object in it."""
    return bool(_NO_BUCKET.search(text))


def wrong_request(text: str, refused: bool = False) -> str:
    """What is wrong with a request that ends the same way every time; "" where it may not.

    Args:
        text: The error's words.
        refused: Whether its class says that it is about permission.
    """
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
