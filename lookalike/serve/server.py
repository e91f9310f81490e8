"""The HTTP server beneath the application."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

_LEAVE_S = 2  # for requests under way, once it is to end
_HEADER_BYTES = 64 << 10  # of a request line with its headers; what is longer is no HTTP


def make_server(app: ASGIApp) -> uvicorn.Server:
    """A server of an application: `run` it with sockets that listen."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_LEAVE_S,
            h11_max_incomplete_event_size=_HEADER_BYTES,
        )
    )
