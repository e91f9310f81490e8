"""Queries answered: those that decode pictures each by itself, those that ask alike in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np

from lookalike.distances import Vectors
from lookalike.errors import RequestError
from lookalike.search.neighbour import Neighbours
from lookalike.search.opened import SnapshotGoneError
from lookalike.search.queries import Queries, joined
from lookalike.search.searcher import Searcher
from lookalike.serve.batches import Batches
from lookalike.serve.limits import RefusedError
from lookalike.serve.pictures import Pictures, check_models
from lookalike.serve.query import Alike, Asked

Result = TypeVar("Result")
Render = Callable[[Neighbours, Searcher], Result]
"""What is made of an answer, and of the snapshot that gave it."""


async def in_pool(pool: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
    """What a function gives that is called in a thread."""
    return await asyncio.get_running_loop().run_in_executor(pool, work)


@dataclass(frozen=True)
class _Search:
    """One query of a batch."""

    now: Searcher
    row: int | str
    render: Render[Any]


class Searches:
    """Answers queries, in threads."""

    def __init__(
        self,
        searching: ThreadPoolExecutor,
        decoding: ThreadPoolExecutor,
        pictures: Pictures,
        threads: int,
    ) -> None:
        """Answer in threads of these pools, the first of which has so many."""
        self._searching, self._decoding = searching, decoding
        self._pictures = pictures
        self._batches: Batches[tuple[str, Alike], _Search, Any]
        self._batches = Batches(_answer_alike, partial(in_pool, searching), threads)

    async def ask(self, now: Searcher, asked: Asked, render: Render[Result]) -> Result:
        """What `render` makes of the answer to a query.

        Raises:
            RequestError: It cannot be asked so.
            RefusedError: A picture or a row is not there, or cannot be used.
        """
        if (alike := asked.alike) is not None:
            row = asked.ids[0] if asked.ids else asked.uris[0]
            key = str(now.manifest["name"]), alike
            found: Result = await self._batches.ask(key, _Search(now, row, render))
            return found

        def answer(made: tuple[Queries, Vectors | None]) -> Result:
            return render(_answer(now, asked, *made), now)

        def whole() -> Result:  # at once: each change of threads waits for its turn
            _check(now, asked)
            return answer(self._queries(now, asked))

        if not asked.decodes:
            return await in_pool(self._searching, whole)
        await in_pool(self._searching, partial(_check, now, asked))
        made = await in_pool(self._decoding, partial(self._queries, now, asked))
        return await in_pool(self._searching, partial(answer, made))

    def _queries(self, now: Searcher, asked: Asked) -> tuple[Queries, Vectors | None]:
        parts = []
        if asked.pictures:
            parts.append(self._pictures.uploaded(now, asked.pictures, asked.crop))
        if rows := [*asked.ids, *asked.uris]:
            found = _like(now, rows)
            if asked.crop is not None:
                found = self._pictures.stored(now, [str(one) for one in found.uris], asked.crop)
            parts.append(found)
        away = []
        if asked.unlike_pictures:
            away.append(self._pictures.uploaded(now, asked.unlike_pictures, None).vectors)
        if asked.unlike_ids:
            away.append(_like(now, list(asked.unlike_ids)).vectors)
        return joined(parts, now.dim), np.concatenate(away) if away else None


def _check(now: Searcher, asked: Asked) -> None:
    """Before anything is decoded."""
    if asked.decodes:
        check_models(now)
    now.request(asked.k, where=asked.where)
    now.check_ways(asked.ways, bool(asked.unlike_ids or asked.unlike_pictures))


def _answer(now: Searcher, asked: Asked, queries: Queries, away: Vectors | None) -> Neighbours:
    found = now.answer(queries, asked.k, asked.ways, away, where=asked.where)
    [answer] = now.describe(found.names, found.ids, found.scores, found.complete)
    return answer


def _answer_alike(key: tuple[str, Alike], batch: Sequence[_Search]) -> list[Any]:
    """What is wanted of the answers to queries that ask alike; or the error of one of them."""
    now, alike = batch[0].now, key[1]
    try:
        now.request(alike.k, where=alike.where)
        now.check_ways(alike.ways)
        queries = _like(now, [one.row for one in batch])
        found = now.answer(queries, alike.k, alike.ways, where=alike.where, apart=True)
        answers = now.describe(found.names, found.ids, found.scores, found.complete)
        return [one.render(answer, now) for one, answer in zip(batch, answers, strict=True)]
    except (RequestError, RefusedError) as error:
        if len(batch) == 1 or isinstance(error, SnapshotGoneError):
            raise
    # One of them cannot be answered, which is told to whoever asked for it and to nobody else.
    results: list[Any] = []
    for one in batch:
        try:
            results += _answer_alike(key, [one])
        except (RequestError, RefusedError) as error:
            results.append(error)
    return results


def _like(now: Searcher, rows: list[Any]) -> Queries:
    try:
        return now.like(rows)
    except SnapshotGoneError:
        raise
    except RequestError as error:
        raise RefusedError(404, str(error)) from error
