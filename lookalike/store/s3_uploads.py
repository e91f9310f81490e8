"""Uploads to S3 that were begun and never ended: their parts are paid for, and no listing has them.

A writer that is killed leaves one, and so does one whose answer was lost, to the request that began
it: the client begins another, and nobody knows of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, unquote

from lookalike.store.s3_client import open_client, told
from lookalike.store.s3_uri import parse

_MARK = "?uploadId="


class Upload(NamedTuple):
    """An upload: the key it is to become, below the folder, its number, and when it began."""

    key: str
    number: str
    begun: datetime

    @property
    def path(self) -> str:
        """As it stands beside the paths of objects, none of which looks so."""
        return f"{self.key}{_MARK}{quote(self.number, safe='')}"


def pending(folder: str) -> Iterator[Upload]:
    """All uploads below a folder, `s3://bucket/prefix?options`.

    Raises:
        OSError, RequestError: They cannot be listed.
    """
    name = parse(folder)
    asked = {"Bucket": name.bucket, "Prefix": name.prefix}
    while True:
        client = open_client(name)
        with told(name, client, "list the uploads below"):
            page = client.list_multipart_uploads(**asked)
        for one in page.get("Uploads", []):
            if one["Key"].startswith(name.prefix):  # a server may know nothing of prefixes
                key = one["Key"][len(name.prefix) :]
                yield Upload(key, one["UploadId"], one["Initiated"])
        markers = {
            "KeyMarker": page.get("NextKeyMarker"),
            "UploadIdMarker": page.get("NextUploadIdMarker"),
        }
        following = {marker: value for marker, value in markers.items() if value}
        if not page.get("IsTruncated") or not following or following.items() <= asked.items():
            return
        asked |= following


def is_upload(path: str) -> bool:
    """Whether a path is that of an upload."""
    return _MARK in path


def abort(folder: str, path: str) -> None:
    """Remove an upload; one that is gone is fine.

    Raises:
        OSError, RequestError: It cannot be removed.
    """
    name = parse(folder)
    key, _, number = path.rpartition(_MARK)
    place = name.named(f"{name.prefix}{key}")
    client = open_client(name)
    try:
        with told(place, client, "end the upload of"):
            client.abort_multipart_upload(
                Bucket=name.bucket, Key=place.key, UploadId=unquote(number)
            )
    except FileNotFoundError:
        return
