"""The TF-Hub download protocol and its cache.

It is spoken here rather than through `tensorflow_hub.resolve`: it is one query parameter and a tar
archive, while that function has no timeout, waits ten minutes for the lock of a killed process,
trusts an emptied cache folder and imports TensorFlow and pkg_resources. Its cache is honoured: a
folder `$TFHUB_CACHE_DIR/sha1(handle)` is used with no network, and a download is left there for
others. It appears under that name by one rename, so needs no lock.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from lookalike.errors import RequestError, one_line
from lookalike.models.archives import SUFFIXES, ArchiveLimits

TIMEOUT_S = 30.0
"""Longest silence of a server before a download is given up."""

_CHUNK = 1 << 20


def cache_folder(handle: str) -> Path | None:
    """Where TF-Hub's cache keeps the model of a handle; None where no local cache is configured."""
    variable = os.environ.get("TFHUB_CACHE_DIR", "")
    if not variable or "://" in variable:
        return None
    # sha1 is how tensorflow_hub names its folders
    return Path(variable).expanduser() / hashlib.sha1(handle.encode()).hexdigest()


def keep(folder: Path, place: Path) -> Path:
    """Leave a copy of a model in the cache for others, and return it.

    A cache that cannot be written, or into which another process has just put the model, is left
    alone: the model stays where it is.
    """
    scratch = place.with_name(f"{place.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.copytree(folder, scratch)
        scratch.rename(place)
    except OSError:
        return folder
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return place


def fetch(handle: str, archive: Path, max_bytes: int = ArchiveLimits().max_bytes) -> None:
    """Download a model's archive by the TF-Hub protocol: compressed format, redirects followed.

    Args:
        handle: The http or https address.
        archive: The file to write.
        max_bytes: A larger download is given up.

    Raises:
        RequestError: It cannot be had; the message gives the cause.
        OSError: The disk is full.
    """
    try:
        _get(handle, archive, max_bytes)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise RequestError(f"cannot download {handle}: {_cause(error, handle)}") from error


def _get(handle: str, archive: Path, max_bytes: int) -> None:
    parts = urlsplit(handle)
    if not parts.hostname:
        raise ValueError("the address has no host")
    query = parts.query
    # A file's own address may be signed: leave it be.
    if not parts.path.lower().endswith((*SUFFIXES, ".onnx")):
        query += ("&" if query else "") + "tf-hub-format=compressed"
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    request = urllib.request.Request(url, headers={"User-Agent": "lookalike"})
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(request, timeout=TIMEOUT_S) as response, open(archive, "wb") as file:
        announced = response.headers.get("Content-Length", "")
        got = 0
        while chunk := response.read(_CHUNK):
            got += len(chunk)
            if got > max_bytes:
                raise ValueError(f"it is larger than {max_bytes:,} bytes")
            file.write(chunk)
        if announced.isdigit() and int(announced) != got:
            raise ValueError(f"the connection ended after {got:,} of {int(announced):,} bytes")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects (308 too, which Python 3.10 does not), but never from https to http."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            fp.close()
            raise RequestError("the server redirects from https to an unprotected address")
        return super().redirect_request(req, fp, min(code, 307), msg, headers, newurl)


def _cause(error: Exception, handle: str) -> str:
    """What a person needs to know about a download that failed."""
    host = urlsplit(handle).hostname if "[" not in handle else handle
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it is the response as well
        hint = {
            401: " (it asks for a sign-in)",
            403: " (it refuses: a sign-in, an accepted licence or another network may be needed)",
            404: " (nothing is at that address; check the handle and its version)",
        }.get(error.code, "")
        words = " ".join(str(error.reason).split())
        return f"{urlsplit(error.url).hostname or host} answers HTTP {error.code} {words}{hint}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return f"the host {host} cannot be found (no network, or a wrong name)"
    if isinstance(reason, TimeoutError):
        return f"{host} did not answer within {TIMEOUT_S:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(reason, ssl.SSLError):
        return f"no safe connection to {host}: {reason}"
    return one_line(reason if isinstance(reason, BaseException) else error)
