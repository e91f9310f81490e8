"""What every request passes first: its size, where it comes from, its token, how many there are.

No answer may be framed, read by another site's scripts, or taken for another type than it says; the
page runs no script and no style but its own files.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lookalike.errors import RequestError
from lookalike.serve.limits import Limits, RefusedError
from lookalike.serve.metrics import Metrics

FREE = ("/healthz", "/metrics")
"""Paths that are answered however many requests there are."""

_OPEN = ("/healthz",)  # needs no token, and tells nothing
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,200}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_MOST_HEADERS = 100


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None) -> None:
    """Whether a server may listen there with such a token.

    Raises:
        RequestError: It may not.
    """
    if token is None and not is_loopback(host):
        raise RequestError(
            f"--host {host}: others than this machine can reach it, so it needs a --token"
        )
    if token is not None and not _TOKEN.fullmatch(token):
        raise RequestError(
            "--token: needs 16 to 200 characters of A-Z, a-z, 0-9, '.', '_', '~' and '-'; "
            'for example: --token "$(openssl rand -hex 16)"'
        )


class Gate:
    """An ASGI application around the one that answers."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None) -> None:
        """Let through what may pass.

        Args:
            app: What answers.
            limits: Of requests.
            metrics: Are told of each.
            token: What has to be given; None on a machine by itself.
        """
        self._app, self._limits, self._metrics, self._token = app, limits, metrics, token
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        # Cookies know no ports, and there may be servers of two stores.
        self._cookie_name, self._cookie = f"lookalike_{digest[:8]}", digest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # WebSockets are none of ours
            await send({"type": "websocket.close", "code": 1000})
            return
        began, status = time.monotonic(), 500
        body = _Body(receive, scope, self._limits)

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                own = {name.lower() for name, _ in message.get("headers", ())}
                message["headers"] = [
                    *message.get("headers", ()),
                    # nobody waits for the rest of what is refused
                    *([] if body.over else [(b"connection", b"close")]),
                    *(
                        (name.lower().encode(), value.encode())
                        for name, value in _HEADERS.items()
                        if name.lower().encode() not in own
                    ),
                ]
            await send(message)

        try:
            await self._pass(scope, body, told)
        finally:
            route = getattr(scope.get("endpoint"), "__name__", "none")
            self._metrics.count(route, status, time.monotonic() - began)

    async def _pass(self, scope: Scope, receive: _Body, send: Send) -> None:
        try:
            headers = self._headers(scope)
            answer = self._let_in(scope, headers)
        except RefusedError as refused:
            answer = refusal(refused)
        if answer is not None:
            await answer(scope, receive, send)
            return
        if scope["path"] in FREE:
            await self._app(scope, receive, send)
            return
        if self._metrics.under_way >= self._limits.requests:
            busy = f"{self._limits.requests} requests are on their way; try again"
            await refusal(RefusedError(503, busy, {"Retry-After": "1"}))(scope, receive, send)
            return
        self._metrics.under_way += 1
        try:
            receive.bound(headers)
            await self._app(scope, receive, send)
        finally:
            self._metrics.under_way -= 1

    def _headers(self, scope: Scope) -> Mapping[str, str]:
        """The headers by name, those that may be there once only.

        Raises:
            RefusedError: The URL or the headers are too long, or one is there twice.
        """
        url = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
        if url > self._limits.url:
            raise RefusedError(414, f"the URL has {url:,} bytes, {self._limits.url:,} are taken")
        lines = scope["headers"]
        size = sum(len(name) + len(value) for name, value in lines)
        if len(lines) > _MOST_HEADERS or size > self._limits.headers:
            raise RefusedError(
                431,
                f"{len(lines)} headers of {size:,} bytes; {_MOST_HEADERS} of "
                f"{self._limits.headers:,} bytes are taken",
            )
        found: dict[str, str] = {}
        for name, value in lines:
            key = name.decode("latin-1").lower()
            if key in found and key in ("host", "authorization", "content-length", "origin"):
                raise RefusedError(400, f"the header {key} is there twice")
            found[key] = value.decode("latin-1")
        return found

    def _let_in(self, scope: Scope, headers: Mapping[str, str]) -> Response | None:
        """None where a request may pass; else the answer to it.

        Raises:
            RefusedError: It comes from another site's page, or has not the token.
        """
        host = headers.get("host", "")
        if not host:
            raise RefusedError(400, "there is no header host")
        # Without a token nothing but the browser's rules keeps other sites' pages out, and a name
        # of theirs may be made to lead here.
        if self._token is None and not is_loopback(_name_of(host)):
            raise RefusedError(421, f"this server is no {host!r:.80}; use http://localhost")
        if not _same_site(scope, headers, host):
            raise RefusedError(403, "the request comes from another site's page")
        if self._token is None or scope["path"] in _OPEN:
            return None
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if given and scope["method"] == "GET" and scope["path"] == "/":
            if not self._is_token(given[0]):
                raise RefusedError(401, "that is not the token of this server")
            rest = urlencode([pair for pair in query if pair[0] != "token"])
            answer = RedirectResponse(f"./?{rest}" if rest else "./", 303)
            answer.set_cookie(
                self._cookie_name,
                self._cookie,
                httponly=True,
                samesite="lax",
                secure=scope["scheme"] == "https",
            )
            return answer
        kind, _, text = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(text.strip()):
            return None
        if self._is_cookie(headers.get("cookie", "")):
            return None
        raise RefusedError(
            401,
            "this server needs its token: a header `Authorization: Bearer TOKEN`, or open "
            "/?token=TOKEN in a browser",
            {"WWW-Authenticate": "Bearer"},
        )

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("latin-1", "replace"), (self._token or "").encode())

    def _is_cookie(self, line: str) -> bool:
        try:
            found = SimpleCookie(line).get(self._cookie_name)
        except CookieError:
            return False
        value = found.value if found else ""
        return hmac.compare_digest(value.encode("latin-1", "replace"), self._cookie.encode())


class _Body:
    """What a client sends: in time, and not longer than it may be."""

    def __init__(self, receive: Receive, scope: Scope, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        names = {name.lower() for name, _ in scope["headers"]}
        self.over = not {b"content-length", b"transfer-encoding"} & names
        self._size, self._most, self._announced = 0, limits.json_bytes, ""
        self._end = time.monotonic() + limits.seconds

    def bound(self, headers: Mapping[str, str]) -> None:
        """Take as much as a body of that kind may have."""
        if headers.get("content-type", "").lower().startswith("multipart/form-data"):
            self._most = self._limits.upload_bytes
        self._announced = headers.get("content-length", "")

    async def __call__(self) -> Message:
        """The next part.

        Raises:
            RefusedError: It does not come in time, or is too much.
        """
        if self.over:  # what waits for a client that goes away has all the time it takes
            return await self._receive()
        if self._announced.isdigit() and int(self._announced[:20]) > self._most:
            raise self._too_long()
        try:
            left = max(0.0, self._end - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except asyncio.TimeoutError:
            took = f"the body took more than {self._limits.seconds:g} s"
            raise RefusedError(408, took) from None
        self._size += len(message.get("body", b""))
        if self._size > self._most:
            raise self._too_long()
        self.over = not message.get("more_body", False)
        return message

    def _too_long(self) -> RefusedError:
        return RefusedError(413, f"the body is too long: {self._most:,} bytes are taken")


def refusal(refused: RefusedError) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse({"error": refused.reason}, refused.status, refused.headers)


def _name_of(host: str) -> str:
    """The name in a header host, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_site(scope: Scope, headers: Mapping[str, str], host: str) -> bool:
    """Whether no page of another site made the request, as far as the browser tells.

    A link there may lead to the page.
    """
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        return False
    if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
        return True
    leads_here = headers.get("sec-fetch-mode") == "navigate" and scope["path"] == "/"
    return leads_here and scope["method"] == "GET" and headers.get("sec-fetch-dest") == "document"
