"""Tiles side by side: one thread a core, each with its own single-threaded matrix products."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Task = TypeVar("Task")

# one kernel at a time: it takes all cores, and torch's number of threads is one for all and one for each
_turn = threading.RLock()
_users = 0
_before = 1


@contextmanager
def _single_threaded_products() -> Iterator[None]:
    """Torch's products with one thread each, for the one kernel that has its turn."""
    global _users, _before
    with _turn:
        _before = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(_before)
            _users -= 1


def side_by_side(tasks: Sequence[Task], work: Callable[[int, Task], None], threads: int) -> None:
    """Do every task, in so many threads; which thread does which depends on their number alone.

    A tile's matrix product is small, and a barrier of all threads after every one would cost as much as the loops between them.

    Args:
        tasks: what to do.
        work: called with the number of the thread, from 0, and a task.
        threads: how many, of :func:`thread_count`; asked once, since another thread of Python's may change what torch says.

    Raises:
        Exception: the first that a task raised.

    Example:
        >>> done = []
        >>> side_by_side(range(3), lambda thread, task: done.append(task), thread_count(3))
        >>> sorted(done)
        [0, 1, 2]
    """
    if threads <= 1:
        for task in tasks:
            work(0, task)
        return
    stop = threading.Event()

    def run(thread: int) -> None:
        torch.set_num_threads(1)  # a new thread's own setting
        for task in tasks[thread::threads]:
            if stop.is_set():
                return
            work(thread, task)

    with _single_threaded_products(), ThreadPoolExecutor(threads) as pool:
        runs = [pool.submit(run, thread) for thread in range(threads)]
        try:
            for one in runs:
                one.result()
        finally:
            stop.set()


def thread_count(tasks: int) -> int:
    """How many threads :func:`side_by_side` should take for so many tasks: torch's number, or what it was before others began.

    Example:
        >>> thread_count(0)
        1
    """
    threads = _before if _users else torch.get_num_threads()
    return max(1, min(threads, tasks))
