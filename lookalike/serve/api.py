"""The application: which path gives what, and what is said when something goes wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from lookalike.errors import RequestError, UnreachableError, one_line
from lookalike.search.searcher import Searcher
from lookalike.serve.explorer import Explorer
from lookalike.serve.gate import Gate, refusal
from lookalike.serve.limits import Limits, RefusedError
from lookalike.serve.metrics import Metrics
from lookalike.serve.picture_endpoints import PictureEndpoints
from lookalike.serve.query_endpoints import QueryEndpoints
from lookalike.serve.site_endpoints import SiteEndpoints
from lookalike.serve.view_endpoints import ViewEndpoints

_log = logging.getLogger(__name__)


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
        routes=routes(explorer, metrics),
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


def routes(explorer: Explorer, metrics: Metrics) -> list[Route]:
    """All paths."""
    site, queries = SiteEndpoints(explorer, metrics), QueryEndpoints(explorer)
    pictures, views = PictureEndpoints(explorer), ViewEndpoints(explorer)
    return [
        Route("/", site.page),
        Route("/static/{name}", site.static),
        Route("/healthz", site.healthz),
        Route("/metrics", site.metrics),
        Route("/api/openapi.json", site.openapi),
        Route("/api/stats", site.stats),
        Route("/api/search", queries.search, methods=["POST"]),
        Route("/api/image/{id}", pictures.image),
        Route("/api/image/{id}/neighbours", queries.neighbours),
        Route("/api/image/{id}/thumbnail", pictures.thumbnail),
        Route("/api/image/{id}/original", pictures.original),
        Route("/api/picture/{sha256}/thumbnail", pictures.picture),
        Route("/api/browse", views.browse),
        Route("/api/duplicates", views.duplicates),
        Route("/api/near-copies", views.near_copies),
        Route("/api/outliers", views.outliers),
        Route("/api/folders", views.folders),
        Route("/api/values", views.values),
    ]


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
