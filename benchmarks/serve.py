"""`python -m benchmarks.serve`: what a search takes that many clients ask `lookalike serve` for.

Rounds, each of which measures in turn:

library   one query at a time in this process: lookalike.open(store).search(like=a row)
waiting   the server, asked for the same by clients each of which asks again once it has its answer
pausing   the same by clients that look at an answer for a while, as people do

Clients are connections that stay open, of one process, which is this one: on a machine of two cores
it takes its share of what the server could use. With n clients that never pause, a request takes n
times as long as the server needs for one, whatever it does; so `waiting` tells of the server's
requests per second, and `pausing` of how long somebody waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.command import arguments, at_least_one, columns, run, say
from benchmarks.processes import WayError, environment
from benchmarks.query_store import add_arguments, asked_store
from lookalike.errors import RequestError
from lookalike.parallel import cores

_K = 10
Numbers = dict[str, float]
"""Of some requests: `p50` and `p99` in milliseconds, and how many there were a second."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the JSON file if asked."""
    parser = arguments("benchmarks.serve", __doc__)
    add = parser.add_argument
    add_arguments(parser, rows=100_000)
    add("--clients", type=int, default=50, help="at the same time (50)")
    add("--requests", type=int, default=2500, help="of all clients, in each state a round (2500)")
    add("--pause", type=float, default=0.5, help="seconds on average, of clients that pause (.5)")
    add("--rounds", type=int, default=3, help="how often all is repeated (3)")
    given = parser.parse_args(argv)
    at_least_one(parser, given, "rows dim clients requests rounds")
    return run("bench-serve", given, prepare, table)


def prepare(given: Namespace) -> dict[str, Any]:
    """Make what is missing, and measure."""
    with asked_store(given) as (folder, store), serving(store, folder / "log") as port:
        return measure(store, port, given)


@contextmanager
def serving(store: Path, log: Path) -> Iterator[int]:
    """The port of a server in a process of its own.

    Raises:
        WayError: It ended at once.
    """
    command = [sys.executable, "-m", "lookalike.pipelines.cli", "serve", "--store", str(store)]
    with (
        open(log, "ab") as errors,
        subprocess.Popen(
            [*command, "--port", "0", "--json"],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            if not (line := process.stdout.readline()):
                raise WayError(f"lookalike serve ended: {log.read_text(errors='replace')}")
            yield urlsplit(json.loads(line)["url"]).port or 0
        finally:
            process.kill()


def measure(store: Path, port: int, given: Namespace) -> dict[str, Any]:
    """Ask the library and the server in turn.

    Returns:
        The store's rows and dim, the load average before, by state the median of the rounds, and
        the server's resident bytes before the first round and after the last.

    Raises:
        RequestError: There is nothing in the store.
        WayError: A request failed, or the server ended.
    """
    import lookalike

    load = os.getloadavg()[0]
    with lookalike.open(store) as searcher:
        ids = lookalike.dataset(store).to_table(columns=["id"])["id"].to_numpy()
        if not len(ids):
            raise RequestError(f"{store}: there are no vectors to ask for")
        random = np.random.default_rng(0)
        count, pauses = given.requests, {"waiting": 0.0, "pausing": given.pause}

        def asked() -> list[int]:
            return [int(one) for one in random.choice(ids, count)]

        alone(searcher, asked())  # what is read once, is
        together(port, asked(), given.clients, 0.0)
        before = resident(port)
        found: dict[str, list[Numbers]] = {name: [] for name in ("library", *pauses)}
        for number in range(given.rounds):
            found["library"].append(alone(searcher, asked()))
            for name, pause in pauses.items():
                found[name].append(together(port, asked(), given.clients, pause))
            took = (f"{name} p99 {own[-1]['p99']:.1f} ms" for name, own in found.items())
            say(f"round {number + 1}: {', '.join(took)}")
        told = {"rows": searcher.count, "dim": searcher.dim}
    return {
        **told,
        **{name: getattr(given, name) for name in ("clients", "requests", "pause", "rounds")},
        "cores": cores(),
        "load_before": load,
        "resident_before": before,
        "resident_after": resident(port),
        "served": 2 * given.rounds * count,
        "states": {
            name: {key: median(one[key] for one in rounds) for key in rounds[0]}
            for name, rounds in found.items()
        },
    }


def alone(searcher: Any, ids: Sequence[int]) -> Numbers:
    """The library asked for one row after the other."""
    seconds, began = [], perf_counter()
    for one in ids:
        start = perf_counter()
        searcher.search(like=one, k=_K)
        seconds.append(perf_counter() - start)
    return numbers(seconds, perf_counter() - began)


def together(port: int, ids: Sequence[int], clients: int, pause: float) -> Numbers:
    """The server asked for the rows by so many clients, each of which pauses so long on average.

    Raises:
        WayError: An answer is none of a search, or there is none.
    """
    seconds: list[float] = []

    async def client(number: int) -> None:
        random = np.random.default_rng(number)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for one in ids[number::clients]:
                if pause:
                    await asyncio.sleep(random.exponential(pause))
                start = perf_counter()
                await searched(reader, writer, {"id": one, "k": _K})
                seconds.append(perf_counter() - start)
        finally:
            writer.close()
            await writer.wait_closed()

    async def all_clients() -> None:
        await asyncio.gather(*map(client, range(min(clients, len(ids)))))

    began = perf_counter()
    try:
        asyncio.run(all_clients())
    except (OSError, EOFError) as error:
        raise WayError(f"a request has no answer: {error}") from error
    return numbers(seconds, perf_counter() - began)


async def searched(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[str, int]
) -> None:
    """One search, whose answer is read to its end; the connection stays open.

    Raises:
        WayError: The server refuses it.
    """
    body = json.dumps(asked).encode()
    head = "POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(told.partition("content-length:")[2].split("\r\n")[0])
    found = await reader.readexactly(length)
    if told.split()[1] != "200":
        raise WayError(f"a search: {told.splitlines()[0]}: {found.decode(errors='replace'):.200}")


def resident(port: int) -> float:
    """The server's memory in bytes, as it tells."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return next(float(x.split()[1]) for x in lines if x.startswith("lookalike_serve_resident_"))


def numbers(seconds: Sequence[float], passed: float) -> Numbers:
    """What some requests come to."""
    p50, p99 = (1e3 * np.percentile(seconds, [50, 99])).tolist()
    return {"p50": p50, "p99": p99, "per_second": len(seconds) / passed}


def table(document: Mapping[str, Any]) -> str:
    """What was measured, and a line for each state."""
    states = document["states"]
    before, after = (document[f"resident_{when}"] / 2**20 for when in ("before", "after"))
    titles = {
        "library": "the library, one at a time",
        "waiting": f"{document['clients']} clients that never pause",
        "pausing": f"{document['clients']} clients that pause {document['pause']:g} s",
    }
    rows = [["ms", "p50", "p99", "a second", "p99, to the library's p50"]]
    for name, own in states.items():
        times = f"{own['p50']:.2f}", f"{own['p99']:.2f}", f"{own['per_second']:,.0f}"
        rows.append([titles[name], *times, f"{own['p99'] / states['library']['p50']:.1f}"])
    return "\n".join(
        [
            "{rows:,} vectors of {dim} components, {rounds} rounds of {requests:,} requests, "
            "{cores} cores for server and clients; load before {load_before:.1f}".format(
                **document
            ),
            *columns(rows),
            f"the server's memory: {before:,.0f} MiB, and after {document['served']:,} more "
            f"requests {after:,.0f} MiB; none failed",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
