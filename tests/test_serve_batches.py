"""Requests that are answered together: what a batch is, and that no answer tells of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lookalike
from lookalike.search.queries import Queries
from lookalike.search.ways import Ways, asked_ways
from lookalike.serve.batches import Batches
from tests.serving import Served, serving
from tests.vector_stores import clustered, make_store

ROWS, DIM = 600, 24


class Worker:
    """Answers with squares; each batch ends when it is told to."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, list[int]]] = []
        self._ends: list[asyncio.Event] = []

    def work(self, key: str, items: Sequence[int]) -> list[int | Exception]:
        self.begun.append((key, list(items)))
        if -1 in items:
            raise OSError("the whole batch")
        return [one * one if one else ValueError("no zero") for one in items]

    async def run(self, work: Callable[[], Any]) -> Any:
        end = asyncio.Event()
        self._ends.append(end)
        await end.wait()
        return work()

    async def end(self) -> None:
        """Let the batch that began first end, and those begin that waited for it."""
        self._ends.pop(0).set()
        await turns()

    @property
    def under_way(self) -> int:
        return len(self._ends)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def ask(batches: Batches[str, int, int], key: str, *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batches.ask(key, one)) for one in items]
    await turns()
    return tasks


def test_what_comes_while_a_batch_is_answered_is_the_next() -> None:
    async def scenario() -> None:
        worker = Worker()
        batches = Batches(worker.work, worker.run, 1)
        first = await ask(batches, "a", 2)
        assert worker.under_way == 1  # nobody waits for others
        later = await ask(batches, "a", 3, 4, 5)
        other = await ask(batches, "b", 6)
        assert worker.under_way == 2  # another key is not kept waiting
        for _ in range(3):
            await worker.end()
        assert [await one for one in [*first, *later, *other]] == [4, 9, 16, 25, 36]
        assert worker.begun == [("a", [2]), ("b", [6]), ("a", [3, 4, 5])]
        await ask(batches, "a", 7)
        assert worker.under_way == 1  # and it begins again

    asyncio.run(scenario())


def test_an_error_is_of_one_item_or_of_the_batch() -> None:
    async def scenario() -> None:
        worker = Worker()
        batches = Batches(worker.work, worker.run, 1)
        first = await ask(batches, "a", 1)
        mixed = await ask(batches, "a", 2, 0, 3)
        await worker.end()
        broken = await ask(batches, "a", 4, -1)
        await worker.end()
        await worker.end()
        found = await asyncio.gather(*first, *mixed, *broken, return_exceptions=True)
        assert found[:2] == [1, 4]
        assert isinstance(found[2], ValueError)
        assert found[3] == 9
        assert all(isinstance(one, OSError) for one in found[4:])

    asyncio.run(scenario())


def test_who_goes_away_takes_nobody_along() -> None:
    async def scenario() -> None:
        worker = Worker()
        batches = Batches(worker.work, worker.run, 1)
        first = await ask(batches, "a", 1)
        gone, stays = await ask(batches, "a", 2, 3)
        first[0].cancel()
        gone.cancel()
        await turns()
        await worker.end()
        await worker.end()
        assert await stays == 9

    asyncio.run(scenario())


def test_items_that_take_long_are_batches_by_themselves_at_the_same_time() -> None:
    async def scenario() -> None:
        worker = Worker()
        batches = Batches(worker.work, worker.run, 3)
        first = await ask(batches, "a", 1)
        await asyncio.sleep(0.05)  # longer than a batch is to take
        later = await ask(batches, "a", 2, 3, 4, 5)
        await worker.end()
        assert worker.under_way == 3
        for _ in range(4):
            await worker.end()
        assert [await one for one in [*first, *later]] == [1, 4, 9, 16, 25]
        assert [items for _, items in worker.begun] == [[1], [2], [3], [4], [5]]

    asyncio.run(scenario())


def test_a_server_that_ends_leaves_nobody_waiting() -> None:
    async def scenario() -> None:
        stopped = asyncio.Event()

        async def run(work: Callable[[], Any]) -> Any:
            await stopped.wait()
            raise asyncio.CancelledError

        batches = Batches(lambda key, items: list(items), run, 1)
        tasks = await ask(batches, "a", 1, 2)
        stopped.set()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert all(isinstance(one, asyncio.CancelledError) for one in found)

    asyncio.run(scenario())


# --- answers --------------------------------------------------------------------------------------

WAYS = {
    "plain": {},
    "where": {"where": "label = '3'"},
    "few": {"where": "label = '3' or label = '5'", "k": 40},
    "min-score": {"min_score": 0.5},
    "group": {"group_by": "label", "per_group": 2, "k": 20},
    "diverse": {"diversify": 0.3},
    "others": {"exclude_self": True},
}


@pytest.fixture(scope="module", params=["cosine", "l2"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors in an index that misses some: what it finds depends on every bit of a query."""
    place = tmp_path_factory.mktemp("batched") / "store"
    options = {"kind": "ivf_pq", "nlist": 24}
    make_store(place, clustered(ROWS, DIM, seed=2), request.param, options=options)
    return place


@pytest.mark.parametrize("way", WAYS)
def test_queries_that_are_asked_apart_are_answered_as_by_themselves(store: Path, way: str) -> None:
    asked: dict[str, Any] = {"k": 10, "where": None, **WAYS[way]}
    k, where = asked.pop("k"), asked.pop("where")
    ways: Ways = asked_ways(**asked)
    with lookalike.open(store) as searcher:
        rows = lookalike.dataset(store).to_table(columns=["id"])["id"].to_pylist()[::11]
        queries: Queries = searcher.like(rows)
        together = searcher.answer(queries, k, ways, where=where, apart=True)
        for place, row in enumerate(rows):
            alone = searcher.answer(searcher.like([row]), k, ways, where=where)
            np.testing.assert_array_equal(together.ids[place], alone.ids[0])
            np.testing.assert_array_equal(together.scores[place], alone.scores[0])
            assert together.complete[place] == alone.complete[0]


def test_so_many_that_the_library_would_compare_all_rows_are_asked_apart_as_well(
    tmp_path: Path,
) -> None:
    vectors = clustered(11_000, 8, seed=4, groups=300)
    make_store(tmp_path, vectors, options={"kind": "ivf_pq", "nlist": 64})
    with lookalike.open(tmp_path) as searcher:
        asked: dict[str, Any] = {"where": "width >= 0", "nprobe": 1, "rerank": 400}
        rows = lookalike.dataset(tmp_path).to_table(columns=["id"])["id"].to_pylist()[::50]
        queries = searcher.like(rows)
        alone = [searcher.answer(searcher.like([one]), 10, Ways(), **asked).ids[0] for one in rows]
        apart = searcher.answer(queries, 10, Ways(), **asked, apart=True)
        np.testing.assert_array_equal(apart.ids, alone)
        usual = searcher.answer(queries, 10, Ways(), **asked)
        assert (usual.ids != alone).any()  # better ones, which no single query is given


def test_many_at_a_time_get_what_each_gets_alone(store: Path) -> None:
    """Rows by id and by name, in all ways, some that are not there and some that are wrong."""
    ids = lookalike.dataset(store).to_table(columns=["id"])["id"].to_pylist()
    bodies: list[dict[str, Any]] = []
    for number in range(240):
        way = WAYS[list(WAYS)[number % 3 * (number % len(WAYS)) % len(WAYS)]]
        row = {"id": ids[number * 7 % ROWS]}
        if number % 5 == 0:
            row = {"uri": f"/pictures/{number * 7 % ROWS}.png"}
        if number % 11 == 0:
            row = {"id": (1 << 40) + number}  # of no row
        if number % 29 == 0:
            row = {**row, "where": "colour = 1"}  # there is no such column
        bodies.append({**way, **row})

    def told(served: Served, body: dict[str, Any]) -> tuple[int, Any]:
        found = served.post(body)
        return found.status, found.json()

    with serving(store) as served:
        alone = [told(served, body) for body in bodies]
        assert {status for status, _ in alone} == {200, 400, 404}
        with ThreadPoolExecutor(24) as pool:
            for _ in range(3):
                assert list(pool.map(lambda body: told(served, body), bodies)) == alone
