"""Names of objects on S3: `s3://bucket/key?options`.

A key is a name, not a path: `a//b`, `/a` and `a/../b` are keys like others, and are kept to the
byte. In a URI, what a path cannot hold as it is stands percent-encoded; a key may also be written
plainly, as far as nothing in it looks like `%41` or like options.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote, unquote

from lookalike.errors import RequestError

SAFE = "!$&'()*+,;=:@~"
"""What stands for itself in a segment of a URI's path, beside letters, digits and `-._`."""
_OPTIONS = re.compile(r"\?(?=[a-z_]+=)|\?$")
_KNOWN = frozenset(
    [
        "endpoint_override",
        "force_virtual_addressing",
        "region",
        "scheme",
        "tls_ca_file_path",
        "tls_verify_certificates",
    ]
)
# Taken by pyarrow as well; they say nothing of reading.
_OTHERS = frozenset(
    [
        "allow_bucket_creation",
        "allow_bucket_deletion",
        "allow_delayed_open",
        "check_directory_existence_before_creation",
        "smart_defaults",
    ]
)


def is_s3(uri: str) -> bool:
    """Whether a URI names something on S3."""
    return uri[:5].lower() == "s3://"


def split_options(uri: str) -> tuple[str, str]:
    """A remote URI without its options, and these with their `?`; another `?` is a character."""
    found = _OPTIONS.search(uri)
    return (uri[: found.start()], uri[found.start() :]) if found else (uri, "")


@dataclass(frozen=True)
class S3Name:
    """One object, or a prefix of keys.

    Attributes:
        key: Decoded; "" is the bucket itself.
        options: As they are written, with `?`.
        user: Credentials in the name, as they are written: "" or `key:secret`.
    """

    bucket: str
    key: str
    options: str = ""
    user: str = ""

    @property
    def shown(self) -> str:
        """The URI without options and credentials, as messages show it."""
        key = quote(self.key, safe=f"/{SAFE}")
        return f"s3://{self.bucket}/{key}" if key else f"s3://{self.bucket}"

    @property
    def uri(self) -> str:
        """The one URI under which listings, manifests and single names know the object."""
        user = f"{self.user}@" if self.user else ""
        return f"s3://{user}{self.shown.removeprefix('s3://')}{self.options}"

    @property
    def prefix(self) -> str:
        """What the keys of a folder of this name begin with."""
        return self.key if not self.key or self.key.endswith("/") else f"{self.key}/"

    def named(self, key: str) -> S3Name:
        """Another key of the bucket."""
        return replace(self, key=key)

    def settings(self) -> dict[str, str]:
        """The options by their names.

        Raises:
            RequestError: One is not known.
        """
        given = dict(parse_qsl(self.options.removeprefix("?")))
        if unknown := sorted(given.keys() - _KNOWN - _OTHERS):
            raise RequestError(
                f"{self.shown}: unknown option {unknown[0]!r} after ?; known: "
                f"{', '.join(sorted(_KNOWN))} (a ? in a key is written %3F)"
            )
        return {name: value for name, value in given.items() if name in _KNOWN}


def parse(uri: str) -> S3Name:
    """Take a URI apart.

    Raises:
        RequestError: It has no bucket, a key that is no text, or an option that is not known.
    """
    plain, options = split_options(uri)
    place, _, key = plain[5:].partition("/")
    user, _, bucket = place.rpartition("@")
    try:
        key = unquote(key, errors="strict")
    except UnicodeDecodeError as error:
        raise RequestError(f"s3://{bucket}/{key}: a key of S3 is UTF-8, this is none") from error
    name = S3Name(bucket, key, "" if options == "?" else options, user)
    if not bucket:
        raise RequestError(f"{name.shown}: names no bucket; write s3://bucket/key")
    if name.options:
        name.settings()
    return name


def canonical(uri: str) -> str:
    """The URI under which a remote object is known; of other storage than S3, as it is given."""
    return parse(uri).uri if is_s3(uri) else uri


def without_dots(path: str) -> str:
    """Remove `.` and `..` as URIs do (RFC 3986, 5.2.4), from a path without its first `/`."""
    return "/".join(_walked([], path))


def resolve(base: str, reference: str) -> str:
    """What a reference in a remote file, a manifest say, names: as URIs do, options of the base.

    A `/` before all leads to the bucket's root. A whole URI stands for itself; on S3 it too has the
    base's options, unless it has some itself. An empty segment is kept: keys have them.
    """
    _, options = split_options(base)
    plain, own = split_options(reference)
    if "://" in plain:
        inherits = is_s3(base) and is_s3(plain) and not own
        return canonical(plain + options if inherits else reference)
    scheme, _, rest = split_options(base)[0].partition("://")
    place, _, path = rest.partition("/")
    if plain.startswith("/"):
        folder, plain = [], plain[1:]
    else:
        folder = path.split("/")[:-1]
    return canonical(f"{scheme}://{place}/{'/'.join(_walked(folder, plain))}{own or options}")


def _walked(folder: list[str], path: str) -> list[str]:
    """The segments of a path that is followed from a folder."""
    walked = list(folder)
    *parts, last = path.split("/")
    for part in [*parts, last, *([""] if last in (".", "..") else [])]:
        if part == "..":
            del walked[-1:]
        elif part != ".":
            walked.append(part)
    return walked
