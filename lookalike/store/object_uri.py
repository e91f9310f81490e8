"""What the name of a store on object storage may say, and how it is opened by it."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, unquote, urlsplit

from lookalike.errors import RequestError
from lookalike.store.s3_uri import split_options

SCHEMES = ("s3", "gs", "az", "abfss")


def shown_uri(uri: str) -> str:
    """A store's name without options and credentials, as it may be shown."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def place_of(uri: str) -> tuple[str, str]:
    """Server and bucket of a remote name, and the key in it: what tells whether two names overlap.

    A glob's name is taken as it is written.
    """
    plain, options = split_options(uri)
    scheme, _, rest = plain.partition("://")
    bucket, _, key = rest.partition("/")
    scheme, endpoint = scheme.lower(), ""
    if scheme == "s3":
        bucket, key = bucket.rpartition("@")[2], unquote(key)
        endpoint = dict(parse_qsl(options[1:])).get("endpoint_override") or _usual_endpoint()
    return f"{scheme}://{endpoint.rpartition('://')[2]}/{bucket}", key.strip("/")


def parse_uri(uri: str) -> tuple[str, dict[str, str], bool]:
    """A store's name without options, the options, and whether plain HTTP is allowed.

    Raises:
        RequestError: It is not a name that can be opened.
    """
    parts, shown = urlsplit(uri), shown_uri(uri)
    if parts.scheme not in SCHEMES:
        raise RequestError(
            f"{shown}: a store can be a local folder or on {', '.join(SCHEMES)}, "
            f"not on {parts.scheme}"
        )
    if "@" in parts.netloc and parts.scheme != "abfss":
        raise RequestError(
            f"{shown}: a store's name holds no credentials, as names get into reports; "
            "give them in the environment (AWS_ACCESS_KEY_ID, …)"
        )
    if not parts.netloc:
        raise RequestError(f"{uri}: a store's name needs a bucket: {parts.scheme}://bucket/…")
    whole = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return whole, *_options(shown, parts.scheme, parts.query)


def _options(uri: str, scheme: str, query: str) -> tuple[dict[str, str], bool]:
    """The library's settings for what stands after `?` in a store's name."""
    given = dict(parse_qsl(query))
    known = ("region", "endpoint_override", "scheme") if scheme == "s3" else ()
    unknown = [key for key in given if key not in known]
    if unknown:
        raise RequestError(
            f"{uri}: unknown option {unknown[0]!r} after ?; known: {', '.join(known) or 'none'}"
        )
    options = {"region": given["region"]} if "region" in given else {}
    endpoint = given.get("endpoint_override", "")
    if endpoint:
        whole = endpoint if "://" in endpoint else f"{given.get('scheme', 'https')}://{endpoint}"
        options["endpoint"] = endpoint = whole
    else:
        endpoint = _usual_endpoint() if scheme == "s3" else ""
    return options, endpoint.startswith("http://")  # an endpoint named as http:// is meant so


def _usual_endpoint() -> str:
    """Where the environment says that S3 is; "" where it does not."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next(filter(None, map(os.environ.get, names)), "")
