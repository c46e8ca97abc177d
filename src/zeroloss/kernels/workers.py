"""Tiles side by side: one thread a core, each with its own single-threaded matrix products."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Task = TypeVar("Task")

_lock = threading.Lock()
_users = 0
_before = 1


@contextmanager
def _single_threaded_products() -> Iterator[int]:
    """Torch's products with one thread each while anybody is inside; gives the number of threads that there were before."""
    global _users, _before
    with _lock:
        if _users == 0:
            _before = torch.get_num_threads()
            torch.set_num_threads(1)
        _users += 1
        threads = _before
    try:
        yield threads
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_num_threads(_before)


def side_by_side(tasks: Sequence[Task], work: Callable[[int, Task], None]) -> None:
    """Do every task, in as many threads as torch has; which thread does which depends on their number alone.

    A tile's matrix product is small, and a barrier of all threads after every one would cost as much as the loops between them.

    Args:
        tasks: what to do.
        work: called with the number of the thread, from 0, and a task.

    Raises:
        Exception: the first that a task raised.

    Example:
        >>> done = []
        >>> side_by_side(range(3), lambda thread, task: done.append(task))
        >>> sorted(done)
        [0, 1, 2]
    """
    threads = min(torch.get_num_threads(), len(tasks))
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
    """How many threads :func:`side_by_side` takes for so many tasks.

    Example:
        >>> thread_count(0)
        1
    """
    return max(1, min(torch.get_num_threads(), tasks))
