"""`lookalike serve`: a page to explore a store, and its JSON API, until it is stopped."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from contextlib import closing, suppress

import lookalike
from lookalike.errors import RequestError, one_line
from lookalike.json_text import to_json
from lookalike.pipelines.ending import DONE
from lookalike.report.text import visible

_TOKEN = "LOOKALIKE_TOKEN"
# The thread that speaks HTTP waits for its turn so long while others search. With 50 clients on two
# cores, Python's usual 5 ms cost a third of the requests per second.
_TURN_S = 0.001


def run_serve(given: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, which end it in order."""
    try:
        from lookalike.serve.api import make_app
        from lookalike.serve.gate import check_access
        from lookalike.serve.server import make_server
    except ImportError as error:
        raise RequestError(
            f"serve: {one_line(error)}; install what it needs: pip install 'lookalike[serve]'"
        ) from error
    token = given.token if given.token is not None else os.environ.get(_TOKEN)
    check_access(given.host, token)
    with closing(_listen(given.host, given.port)) as listening:
        searcher = lookalike.open(given.store, cache=given.cache)
        server = make_server(make_app(searcher, token=token))
        _tell(given, searcher, listening, token)
        sys.setswitchinterval(_TURN_S)
        with suppress(KeyboardInterrupt):  # what it was ended by, given on once all is closed
            server.run([listening])
    return DONE


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, before anything is opened.

    Raises:
        RequestError: It cannot; why, and what to do.
    """
    if not 0 <= port < 1 << 16:
        raise RequestError(f"--port {port}: needs a number from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise RequestError(f"--host {host}: is no address of this machine: {error}") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(socket.SOMAXCONN)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise RequestError(
                f"--port {port}: something else listens there; name another, or 0 for any"
            ) from error
        raise RequestError(f"--host {host} --port {port}: {error.strerror}") from error
    return listening


def _tell(
    given: argparse.Namespace,
    searcher: lookalike.Searcher,
    listening: socket.socket,
    token: str | None,
) -> None:
    """Where the page is."""
    name, port = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    url = f"http://{shown}:{port}/"
    if given.json:
        facts = {"url": url, "snapshot": searcher.manifest["name"], "images": searcher.count}
        print(to_json(facts), flush=True)
        return
    how = "; open it once with ?token=… and your token" if token else ""
    print(f"{url}{how}", flush=True)
    store, snapshot = visible(str(searcher.store)), searcher.manifest["name"]
    print(f"{searcher.count:,} images of {store}, {snapshot}; Ctrl-C ends", file=sys.stderr)
