"""The application: which path gives what. `asking` reads what is asked, `explorer` answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import python_multipart as python_multipart  # by which Starlette reads forms, once one comes
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.search.searcher import Searcher
from lookalike.serve import browsing
from lookalike.serve.answers import (
    answer_response,
    groups_response,
    json_response,
    listing_response,
    stats,
)
from lookalike.serve.asking import (
    Asked,
    asked_count,
    asked_id,
    asked_json,
    asked_number,
    asked_picture,
    asked_text,
    asked_texts,
)
from lookalike.serve.explorer import Explorer, described
from lookalike.serve.gate import Gate, refusal
from lookalike.serve.limits import Limits, RefusedError
from lookalike.serve.metrics import Metrics
from lookalike.serve.thumbnails import SIDES

_log = logging.getLogger(__name__)
_STATIC = Path(__file__).with_name("static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_OPENAPI = Path(__file__).with_name("openapi.json")
_PICTURE_KEPT_S = 3600
_PAGE = 60  # rows of a listing, unless told otherwise
_GROUPS = 20  # likewise, of which
_GROUP_SHOWN = 24  # rows at most are told
_SEEDS = 2**31 - 1
_WHOLE = 4  # pictures that were sent, in memory at the same time; others wait on the disk
_FIELDS, _FIELD_BYTES = 100, 16 << 10  # of a form
_LONGEST_NAME = 4096  # of a folder or a column


def make_app(
    searcher: Searcher, *, token: str | None = None, limits: Limits | None = None
) -> ASGIApp:
    """The application that serves a store; it closes the searcher when it ends.

    Args:
        searcher: Of the published snapshot.
        token: What each request has to give; None where only this machine can ask.
        limits: What requests may cost.
    """
    limits, metrics = limits or Limits(), Metrics()
    explorer = Explorer(searcher, limits)

    @asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            explorer.close()

    app = Starlette(
        routes=_Endpoints(explorer, metrics).routes(),
        lifespan=life,
        exception_handlers={
            RefusedError: _refused,
            RequestError: _wrong,
            UnreachableError: _unreachable,
            HTTPException: _http,
            Exception: _fault,
        },
    )
    return Gate(app, limits, metrics, token)


class _Endpoints:
    """A method for each path."""

    def __init__(self, explorer: Explorer, metrics: Metrics) -> None:
        self._explorer, self._limits, self._metrics = explorer, explorer.limits, metrics
        self._reading = asyncio.Semaphore(_WHOLE)
        # All there is to send, so that no name of a request is looked for on the disk.
        self._files = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir())}
        self._openapi = json.loads(_OPENAPI.read_text("utf-8"))

    def routes(self) -> list[Route]:
        """All paths."""
        return [
            Route("/", self.page),
            Route("/static/{name}", self.static),
            Route("/healthz", self.healthz),
            Route("/metrics", self.metrics),
            Route("/api/openapi.json", self.openapi),
            Route("/api/stats", self.stats),
            Route("/api/search", self.search, methods=["POST"]),
            Route("/api/image/{id}", self.image),
            Route("/api/image/{id}/neighbours", self.neighbours),
            Route("/api/image/{id}/thumbnail", self.thumbnail),
            Route("/api/image/{id}/original", self.original),
            Route("/api/picture/{sha256}/thumbnail", self.picture),
            Route("/api/browse", self.browse),
            Route("/api/duplicates", self.duplicates),
            Route("/api/near-copies", self.near_copies),
            Route("/api/outliers", self.outliers),
            Route("/api/folders", self.folders),
            Route("/api/values", self.values),
        ]

    # --- the page, and the server itself ----------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """The page."""
        return self._file(request, "index.html")

    async def static(self, request: Request) -> Response:
        """What the page is made of."""
        return self._file(request, request.path_params["name"])

    def _file(self, request: Request, name: str) -> Response:
        data = self._files.get(name)
        if data is None:
            raise RefusedError(404, "there is no such file")
        kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
        return _tagged(request, data, kind, "no-cache")

    async def healthz(self, request: Request) -> Response:
        """Whether the server answers."""
        return json_response({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """Counters, for Prometheus."""
        text = self._metrics.text(self._explorer)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        """This API, described."""
        return json_response(self._openapi)

    async def stats(self, request: Request) -> Response:
        """The snapshot, its certificate, features and columns."""
        explorer = self._explorer
        return json_response(
            await explorer.read(lambda now: stats(now, self._limits, explorer.problem))
        )

    # --- queries ----------------------------------------------------------------------------------

    async def search(self, request: Request) -> Response:
        """The neighbours of pictures and rows, all of them one query."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            asked = await self._of_form(request)
        elif kind == "application/json":
            asked = asked_json(await request.body(), self._limits)
        else:
            raise RefusedError(
                415, "the body needs to be application/json, or multipart/form-data with pictures"
            )
        return await self._answer(asked)

    async def _of_form(self, request: Request) -> Asked:
        texts: list[tuple[str, str]] = []
        most = 2 * self._limits.pictures
        async with request.form(
            max_files=most, max_fields=_FIELDS, max_part_size=_FIELD_BYTES
        ) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    texts.append((name, value))
                    continue
                if name not in ("image", "unlike_image"):
                    raise RequestError(
                        f"{name!r:.80}: pictures are sent as `image`, or `unlike_image`"
                    )
                async with self._reading:
                    put = partial(self._explorer.uploads.put, await value.read())
                    digest = await self._explorer.in_thread(put)
                texts.append(("picture" if name == "image" else "unlike", digest))
        return asked_texts(texts, self._limits)

    async def neighbours(self, request: Request) -> Response:
        """The neighbours of a row, without itself unless they are asked for so."""
        pairs = request.query_params.multi_items()
        if not any(name == "exclude_self" for name, _ in pairs):
            pairs.append(("exclude_self", "true"))
        own = str(asked_id("id", request.path_params["id"]))
        return await self._answer(asked_texts([("id", own), *pairs], self._limits))

    async def _answer(self, asked: Asked) -> Response:
        asked = asked.check(self._limits)
        more = {
            "query": {
                "id": asked.ids,
                "uri": asked.uris,
                "picture": asked.pictures,
                "unlike": [*asked.unlike_ids, *asked.unlike_pictures],
            }
        }
        return await self._explorer.search(
            asked, lambda found, now: answer_response(found, now, asked.format, more)
        )

    # --- pictures ---------------------------------------------------------------------------------

    async def image(self, request: Request) -> Response:
        """All that is known of a row."""
        row = asked_id("id", request.path_params["id"])
        return json_response(await self._explorer.image(row))

    async def thumbnail(self, request: Request) -> Response:
        """A small JPEG of a row's file."""
        row, side = asked_id("id", request.path_params["id"]), self._side(request)
        data = await self._explorer.thumbnail(row, side)
        return _tagged(request, data, "image/jpeg", f"private, max-age={_PICTURE_KEPT_S}")

    async def picture(self, request: Request) -> Response:
        """A small JPEG of a picture that was uploaded."""
        digest, side = asked_picture("sha256", request.path_params["sha256"]), self._side(request)
        data = await self._explorer.uploaded_thumbnail(digest, side)
        return _tagged(request, data, "image/jpeg", f"private, max-age={_PICTURE_KEPT_S}")

    def _side(self, request: Request) -> int:
        side = asked_count("side", request.query_params.get("side", str(SIDES[0])), SIDES[-1])
        if side not in SIDES:
            raise RequestError(f"side: needs one of {', '.join(map(str, SIDES))}, got {side}")
        return side

    async def original(self, request: Request) -> Response:
        """A row's file as it is."""
        found = await self._explorer.original(asked_id("id", request.path_params["id"]))
        headers = {
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(found.name, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, no-cache",
        }
        return Response(found.data, 200, headers, found.type)

    # --- looking around ---------------------------------------------------------------------------

    async def browse(self, request: Request) -> Response:
        """Rows at random, or in their order, of all or of a folder."""
        texts = _texts(request, ("k", "where", "folder", "order", "seed", "offset"))
        k, offset = self._page_of(texts)
        seed = asked_count("seed", texts.get("seed", "0"), _SEEDS, 0)
        order = texts.get("order", "random")
        if order not in ("random", "stored"):
            raise RequestError(f"order: needs to be random or stored, got {order!r:.80}")
        where = (
            asked_text("where", texts["where"], self._limits.where) if "where" in texts else None
        )
        if "folder" in texts:
            where = browsing.in_folder(asked_text("folder", texts["folder"], _LONGEST_NAME), where)

        def find(now: Searcher) -> browsing.Listing:
            if order == "random":
                return browsing.random_rows(now, k, seed, where)
            return browsing.rows_in_order(now, k, offset, where)

        return await self._listed(find)

    async def duplicates(self, request: Request) -> Response:
        """Rows of which there are copies under other names."""
        k, offset = self._page_of(_texts(request, ("k", "offset")))
        return await self._listed(lambda now: browsing.copies(now, k, offset))

    async def _listed(self, find: Callable[[Searcher], browsing.Listing]) -> Response:
        def read(now: Searcher) -> Response:
            listing = find(now)
            return listing_response(listing, described(now, listing.ids), now)

        return await self._explorer.read(read)

    async def near_copies(self, request: Request) -> Response:
        """Groups of rows that look the same, of a sample."""
        texts = _texts(request, ("k", "offset", "threshold"))
        k, offset = self._page_of(texts, _GROUPS)
        threshold = asked_number("threshold", texts["threshold"]) if "threshold" in texts else None

        def read(now: Searcher) -> Response:
            found = self._explorer.near_copies(now, threshold)
            shown = [ids[:_GROUP_SHOWN] for ids in found.groups[offset : offset + k]]
            rows = described(now, np.concatenate([np.empty(0, np.int64), *shown]))
            return groups_response(found, offset, shown, rows, now)

        return await self._explorer.read(read)

    async def outliers(self, request: Request) -> Response:
        """Of a sample, the rows that are least like any other."""
        texts = _texts(request, ("k", "seed"))
        k, _ = self._page_of(texts)
        seed = asked_count("seed", texts.get("seed", "0"), _SEEDS, 0)

        def read(now: Searcher) -> Response:
            listing, scores = self._explorer.outliers(now, seed)
            found = described(now, listing.ids[:k], scores[:k])
            return listing_response(listing, found, now, scores=True)

        return await self._explorer.read(read)

    async def folders(self, request: Request) -> Response:
        """The folders of one level, with the number of rows below each."""
        texts = _texts(request, ("under",))
        under = asked_text("under", texts.get("under", ""), _LONGEST_NAME)
        return json_response(
            await self._explorer.read(
                lambda now: browsing.folders_under(self._explorer.folders(now), under)
            )
        )

    async def values(self, request: Request) -> Response:
        """The most frequent values of a column."""
        column = asked_text("column", _texts(request, ("column",)).get("column"), _LONGEST_NAME)
        return json_response(await self._explorer.read(lambda now: browsing.values_of(now, column)))

    def _page_of(self, texts: dict[str, str], usual: int = _PAGE) -> tuple[int, int]:
        k = asked_count("k", texts.get("k", str(usual)), self._limits.k)
        return k, asked_count("offset", texts.get("offset", "0"), 2**62, 0)


def _texts(request: Request, names: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a URL, of which these are known.

    Raises:
        RequestError: There is another, or one twice.
    """
    found: dict[str, str] = {}
    for name, text in request.query_params.multi_items():
        if name not in names:
            raise RequestError(f"there is no parameter {name!r:.80}; there are {', '.join(names)}")
        if name in found:
            raise RequestError(f"{name}: is there twice")
        if text:
            found[name] = text
    return found


def _tagged(request: Request, data: bytes, kind: str, keep: str) -> Response:
    """A file, or the word that the browser has it already."""
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": keep}
    if tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    return Response(data, 200, headers, kind)


# --- what goes wrong ------------------------------------------------------------------------------


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return refusal(error)


async def _wrong(request: Request, error: Exception) -> Response:
    return refusal(RefusedError(400, one_line(error, 500)))


async def _unreachable(request: Request, error: Exception) -> Response:
    return refusal(RefusedError(503, one_line(error), {"Retry-After": "5"}))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(RefusedError(error.status_code, str(error.detail), error.headers))


async def _fault(request: Request, error: Exception) -> Response:
    _log.error("%s %s: %s", request.method, request.url.path, one_line(error), exc_info=error)
    return refusal(RefusedError(500, "a fault of the server; its log says more"))
