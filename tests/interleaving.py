"""Attempts of one piece of work, run by turns in every order of their changes of the store.

Each attempt is a thread. It stands before every change of the store, and goes on when it is its
turn; only one runs at a time, so that an order is a list of turns and can be run again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lookalike.store import durable

NAMES = ("replace", "link", "rename")  # what gives a file its name: all that others can see
_PATIENCE_S = 120.0  # a thread that takes longer hangs


@dataclass(frozen=True)
class Attempt:
    """What one attempt does.

    Attributes:
        work: The work; its result is the attempt's.
        first: What holds during its first turn, in which it reads.
        retried: Whether an attempt that failed in its first turn is made again in its next.
    """

    work: Callable[[], Any]
    first: Callable[[], AbstractContextManager[Any]] = nullcontext
    retried: bool = False


@contextmanager
def hidden(*paths: Path) -> Iterator[None]:
    """Files that cannot be had for a while."""
    for path in paths:
        path.rename(path.with_name(f"{path.name}.away"))
    try:
        yield
    finally:
        for path in paths:
            path.with_name(f"{path.name}.away").rename(path)


class Runner:
    """One attempt in a thread of its own, which stands before each change of the store."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._turn, self._stands = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.result: Any = None
        self.error: Exception | None = None
        self.ended = False
        self.steps = 0
        self._thread.start()

    def go_on(self) -> None:
        """Let it run to its next change, or to its end."""
        assert not self.ended
        with nullcontext() if self.steps else self._attempt.first():
            self._stands.clear()
            self._turn.set()
            assert self._stands.wait(_PATIENCE_S), "an attempt hangs"
        self.steps += 1

    def finish(self) -> None:
        """Let it run to its end."""
        while not self.ended:
            self.go_on()

    def owns_this_thread(self) -> bool:
        """Whether it is this attempt that calls."""
        return threading.current_thread() is self._thread

    def stand(self) -> None:
        """Wait for the next turn; called by the attempt itself."""
        self._stands.set()
        self._wait()

    def _wait(self) -> None:
        assert self._turn.wait(_PATIENCE_S), "nobody goes on with an attempt"
        self._turn.clear()

    def _run(self) -> None:
        self._wait()
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error
        self.ended = True
        self._stands.set()

    def _work(self) -> Any:
        try:
            return self._attempt.work()
        except Exception:
            if self.steps or not self._attempt.retried:
                raise
        self.stand()
        return self._attempt.work()


@contextmanager
def standing(attempts: Sequence[Attempt], opening: bool = False) -> Iterator[list[Runner]]:
    """The attempts, none of which has begun; while the block runs, they stand before changes.

    Args:
        attempts: What they do.
        opening: Whether to open a file to be written is a change, too; else names alone are.
    """
    runners: list[Runner] = []

    def watched(change: Callable[..., Any]) -> Callable[..., Any]:
        def stand_first(*arguments: Any, **options: Any) -> Any:
            for runner in runners:
                if runner.owns_this_thread():
                    runner.stand()
            return change(*arguments, **options)

        return stand_first

    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setattr(os, name, watched(getattr(os, name)))
        if opening:
            patch.setattr(durable, "open", watched(open), raising=False)
        runners += [Runner(attempt) for attempt in attempts]
        try:
            yield runners
        finally:
            for runner in runners:
                runner.finish()


def every_order(
    make: Callable[[], Sequence[Attempt]], check: Callable[[list[Runner]], None]
) -> int:
    """Run attempts in every order of their turns, and check each; returns how many there are.

    Args:
        make: Prepares a place, and gives the attempts, which must each do the same every time.
        check: What must hold when all have ended.
    """
    order: list[int] | None = []
    count = 0
    while order is not None:
        taken, open_ = [], []  # which went on, and which might have gone on later in this place
        with standing(make()) as runners:
            while waiting := [n for n, runner in enumerate(runners) if not runner.ended]:
                at = len(taken)
                turn = order[at] if at < len(order) else waiting[0]
                assert turn in waiting, "an attempt did something else than before"
                taken.append(turn)
                open_.append([n for n in waiting if n > turn])
                runners[turn].go_on()
            try:
                check(runners)
            except Exception as error:
                raise AssertionError(f"order {taken}: {error}") from error
        count += 1
        last = max((at for at, others in enumerate(open_) if others), default=None)
        order = None if last is None else [*taken[:last], open_[last][0]]
    return count
