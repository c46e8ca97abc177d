"""Tasks side by side: all of them once, torch's thread count left as it was, errors raised."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from zeroloss.kernels.workers import side_by_side, thread_count


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_every_task_is_done_once(count):
    """And the tasks of one number are done by one thread, so that what it holds is its own."""
    done: list[tuple[int, int, int]] = []
    side_by_side(range(count), lambda thread, task: done.append((task, thread, threading.get_ident())), thread_count(count))
    assert sorted(task for task, _, _ in done) == list(range(count))
    numbers = {thread for _, thread, _ in done}
    assert numbers == set(range(min(count, 3)))
    for number in numbers:
        assert len({ident for _, thread, ident in done if thread == number}) == 1
    assert all(task % max(1, min(count, 3)) == thread for task, thread, _ in done)


def test_tasks_run_at_the_same_time_with_one_thread_each():
    """Three meet at a barrier, which one after the other could not."""
    barrier, seen = threading.Barrier(3, timeout=20), []

    def meet(thread: int, task: int) -> None:
        barrier.wait()
        seen.append(torch.get_num_threads())

    side_by_side(range(3), meet, thread_count(3))
    assert seen == [1, 1, 1]
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("count", [1, 50])
def test_an_error_is_raised_and_the_threads_restored(count):
    """The rest is not begun: one of three threads stops at once, the others at their next task."""
    done: list[int] = []

    def fail(thread: int, task: int) -> None:
        if task == 0:
            raise KeyError("task 0")
        time.sleep(0.01)
        done.append(task)

    with pytest.raises(KeyError, match="task 0"):
        side_by_side(range(count), fail, thread_count(count))
    assert len(done) < 20
    assert torch.get_num_threads() == 3


def test_two_callers_take_turns_and_leave_every_thread_count_as_it_was():
    """The second asks while the first is inside: it waits, gets as many threads as there were, and so do both callers after."""
    inside, leave, order, counts = threading.Event(), threading.Event(), [], {}

    def first(thread: int, task: int) -> None:
        inside.set()
        assert leave.wait(20)
        order.append("first")

    def caller() -> None:
        side_by_side(range(3), first, thread_count(3))
        counts["first caller"] = torch.get_num_threads()

    one = threading.Thread(target=caller)
    one.start()
    assert inside.wait(20)
    counts["asked meanwhile"] = thread_count(100)
    threading.Timer(0.2, leave.set).start()
    side_by_side(range(3), lambda thread, task: order.append("second"), 3)
    counts["second caller"] = torch.get_num_threads()
    one.join()
    after = threading.Thread(target=lambda: counts.update({"afterwards": torch.get_num_threads()}))
    after.start()
    after.join()
    assert order == ["first"] * 3 + ["second"] * 3
    assert counts == dict.fromkeys(("first caller", "asked meanwhile", "second caller", "afterwards"), 3)


def test_room_for_each_thread_is_asked_once():
    """The number of threads is the caller's: what torch says in between does not matter."""
    numbers: set[int] = set()
    threads = thread_count(10)
    torch.set_num_threads(5)
    side_by_side(range(10), lambda thread, task: numbers.add(thread), threads)
    assert numbers == {0, 1, 2}
