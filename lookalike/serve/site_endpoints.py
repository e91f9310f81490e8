"""Endpoints of the page's own files, and of what the server says of itself."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from lookalike.serve.answers import json_response, stats, tagged_response
from lookalike.serve.explorer import Explorer
from lookalike.serve.limits import RefusedError
from lookalike.serve.metrics import Metrics

_STATIC = Path(__file__).with_name("static")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_OPENAPI = Path(__file__).with_name("openapi.json")


class SiteEndpoints:
    """A method for each path."""

    def __init__(self, explorer: Explorer, metrics: Metrics) -> None:
        self._explorer, self._metrics = explorer, metrics
        # All there is to send, so that no name of a request is looked for on the disk.
        self._files = {path.name: path.read_bytes() for path in sorted(_STATIC.iterdir())}
        self._openapi = json.loads(_OPENAPI.read_text("utf-8"))

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
        return tagged_response(request, data, kind, "no-cache")

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
            await explorer.read(lambda now: stats(now, explorer.limits, explorer.problem))
        )
