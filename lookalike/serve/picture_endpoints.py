"""Endpoints of one picture: what is known of a row, its thumbnail, its file."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from lookalike.errors import RequestError
from lookalike.serve.answers import json_response, tagged_response
from lookalike.serve.explorer import Explorer
from lookalike.serve.thumbnails import SIDES
from lookalike.serve.values import asked_count, asked_id, asked_picture

_KEPT_S = 3600


class PictureEndpoints:
    """A method for each path."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    async def image(self, request: Request) -> Response:
        """All that is known of a row."""
        row = asked_id("id", request.path_params["id"])
        return json_response(await self._explorer.image(row))

    async def thumbnail(self, request: Request) -> Response:
        """A small JPEG of a row's file."""
        row, side = asked_id("id", request.path_params["id"]), _side(request)
        data = await self._explorer.thumbnail(row, side)
        return tagged_response(request, data, "image/jpeg", f"private, max-age={_KEPT_S}")

    async def picture(self, request: Request) -> Response:
        """A small JPEG of a picture that was uploaded."""
        digest, side = asked_picture("sha256", request.path_params["sha256"]), _side(request)
        data = await self._explorer.uploaded_thumbnail(digest, side)
        return tagged_response(request, data, "image/jpeg", f"private, max-age={_KEPT_S}")

    async def original(self, request: Request) -> Response:
        """A row's file as it is."""
        found = await self._explorer.original(asked_id("id", request.path_params["id"]))
        headers = {
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(found.name, safe='')}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, no-cache",
        }
        return Response(found.data, 200, headers, found.type)


def _side(request: Request) -> int:
    side = asked_count("side", request.query_params.get("side", str(SIDES[0])), SIDES[-1])
    if side not in SIDES:
        raise RequestError(f"side: needs one of {', '.join(map(str, SIDES))}, got {side}")
    return side
