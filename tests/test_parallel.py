"""Which thread works on what."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lookalike.parallel import cores, run_all


def test_one_part_is_worked_on_by_the_thread_that_asks() -> None:
    assert run_all(lambda _: threading.current_thread(), [1]) == [threading.current_thread()]
    assert run_all(lambda _: 1, []) == []


def test_several_parts_are_worked_on_by_the_pool_in_order() -> None:
    found = run_all(lambda part: (part, threading.current_thread()), range(9))
    assert [part for part, _ in found] == list(range(9))
    assert threading.current_thread() not in {thread for _, thread in found}


@pytest.mark.parametrize("parts", [1, 3])
def test_parts_of_parts_are_worked_on_where_they_arise(parts: int) -> None:
    def outer(_: int) -> bool:
        return set(run_all(lambda _: threading.current_thread(), range(5))) == {
            threading.current_thread()
        }

    assert run_all(outer, range(parts)) == [True] * parts
    # And afterwards this thread has the pool again.
    assert threading.current_thread() not in run_all(lambda _: threading.current_thread(), range(2))


def test_no_more_parts_at_a_time_than_cores_however_many_ask() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1

    with ThreadPoolExecutor(4 * cores()) as callers:
        for one in [callers.submit(run_all, work, range(1 + n % 3)) for n in range(12 * cores())]:
            one.result()
    assert most == cores()


@pytest.mark.parametrize("parts", [1, 4])
def test_an_error_comes_out_and_leaves_room_for_the_next(parts: int) -> None:
    for _ in range(2 * cores() + 1):
        with pytest.raises(ZeroDivisionError):
            run_all(lambda part: 1 // (part - part), range(parts))
    assert run_all(lambda part: part, range(parts)) == list(range(parts))
