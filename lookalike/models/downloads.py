"""Files from the web: redirects followed, silence and cut connections noticed, causes in words."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from lookalike.errors import RequestError, one_line
from lookalike.models.archives import ArchiveLimits

_CHUNK = 1 << 20


def fetch(
    address: str,
    file: Path,
    *,
    timeout_s: float,
    context: ssl.SSLContext | None = None,
    progress: Callable[[int], None] = lambda _: None,
    max_bytes: int = ArchiveLimits().max_bytes,
) -> None:
    """Download a file.

    Args:
        address: Of http or https.
        file: The file to write.
        timeout_s: Longest silence of the server, in seconds.
        context: How certificates are checked, where not as usual.
        progress: Takes the size of each part that came, in bytes.
        max_bytes: A larger download is given up.

    Raises:
        OSError: It cannot be had (`in_words` tells a person why), or the disk is full.
        http.client.HTTPException: It cannot be had.
        ValueError: It cannot be had.
    """
    if not urlsplit(address).hostname:
        raise ValueError("the address has no host")
    request = urllib.request.Request(address, headers={"User-Agent": "lookalike"})
    https = urllib.request.HTTPSHandler(context=context)
    opener = urllib.request.build_opener(_Redirects, https)
    with opener.open(request, timeout=timeout_s) as response, open(file, "wb") as out:
        announced = response.headers.get("Content-Length", "")
        got = 0
        while chunk := response.read(_CHUNK):
            got += len(chunk)
            if got > max_bytes:
                raise ValueError(f"it is larger than {max_bytes:,} bytes")
            out.write(chunk)
            progress(len(chunk))
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
            raise ValueError("the server redirects from https to an unprotected address")
        return super().redirect_request(req, fp, min(code, 307), msg, headers, newurl)


@contextmanager
def in_words(handle: str, timeout_s: float) -> Iterator[None]:
    """Report what goes wrong with a download in this block as an error of the request.

    Raises:
        RequestError: The model cannot be had; the message gives the cause.
        OSError: The disk is full.
    """
    try:
        yield
    except RequestError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        words = _cause(error, handle, timeout_s)
        raise RequestError(f"cannot download {handle}: {words}") from error


def _cause(error: Exception, handle: str, timeout_s: float) -> str:
    """What a person needs to know about a download that failed."""
    host = urlsplit(handle).hostname if "[" not in handle else handle
    host = host or "Kaggle"  # of which a handle names no host
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
        return f"{host} did not answer within {timeout_s:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return f"{host} refuses the connection"
    if isinstance(reason, ssl.SSLError):
        return f"no safe connection to {host}: {reason}"
    return one_line(reason if isinstance(reason, BaseException) else error)
