"""Requests that ask alike, answered together: what comes while one batch is answered is the next.

Nobody waits for a batch to fill. A request that comes alone is answered at once and by itself; of
many at a time, those that came during the last batch share one pass over Python's and Arrow's
calls, each of which costs as much for one row as for twenty.

    come      a   b c    d e f g      h
    answered  [a ][ b c ][ d e f g  ][h ]

A batch is to take some milliseconds. Where one item takes as long, each is a batch, and as many
are answered at the same time as there are threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Generic, TypeVar

_MOST = 16  # items of a batch; more gain little, and wait for one another
_BATCH_S = 0.02  # that a batch is to take

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")

Results = Sequence[Result | Exception]
"""Of items, in their order: a result, or what it raises in place of one."""

Work = Callable[[Key, Sequence[Item]], Results[Result]]
"""What answers items of one key."""

Run = Callable[[Callable[[], Results[Result]]], Awaitable[Results[Result]]]
"""What calls a function in a thread."""

_Waiting = list[tuple[Item, "asyncio.Future[Result]"]]


@dataclass
class _Queue(Generic[Item, Result]):
    """Of one key: what waits, how many batches are being answered, and what one may have."""

    waiting: _Waiting[Item, Result] = field(default_factory=list)
    running: int = 0
    most: int = _MOST


class Batches(Generic[Key, Item, Result]):
    """Answers items in batches of one key; for coroutines of one event loop."""

    def __init__(self, work: Work[Key, Item, Result], run: Run[Result], at_once: int) -> None:
        """Begin with none.

        Args:
            work: Answers some items.
            run: Calls it in a thread.
            at_once: Batches of a key that are answered at the same time, at most.
        """
        self._work, self._run, self._at_once = work, run, at_once
        self._queues: dict[Key, _Queue[Item, Result]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # or nothing would hold them

    async def ask(self, key: Key, item: Item) -> Result:
        """What `work` gives for the item.

        Raises:
            Exception: What it gives in place of a result, or raises for all of the batch.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting.append((item, future))
        self._start(key, queue)
        return await future

    def _start(self, key: Key, queue: _Queue[Item, Result]) -> None:
        """Begin a batch where none is being answered, or where a whole one waits."""
        while queue.waiting and (
            not queue.running
            or (queue.running < self._at_once and len(queue.waiting) >= queue.most)
        ):
            batch, queue.waiting = queue.waiting[: queue.most], queue.waiting[queue.most :]
            queue.running += 1
            task = asyncio.create_task(self._answer(key, queue, batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not queue.running:
            del self._queues[key]

    async def _answer(
        self, key: Key, queue: _Queue[Item, Result], batch: _Waiting[Item, Result]
    ) -> None:
        began = perf_counter()
        results: Results[Result]
        try:
            results = await self._run(partial(self._work, key, [item for item, _ in batch]))
        except Exception as error:
            results = [error] * len(batch)
        except asyncio.CancelledError:  # the server ends
            for _, future in [*batch, *queue.waiting]:
                future.cancel()
            raise
        queue.most = max(1, min(_MOST, int(_BATCH_S * len(batch) / (perf_counter() - began))))
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # who asked has gone away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        queue.running -= 1
        self._start(key, queue)
