"""Timing two things by turns, so that a drifting machine drifts under both."""

from __future__ import annotations

import time
from collections.abc import Callable


def by_turns(first: Callable[[], object], second: Callable[[], object], rounds: int = 7) -> tuple[float, float]:
    """Best time of each over alternating rounds, after one round to warm up.

    Args:
        first: one thing.
        second: the other.
        rounds: how many counted.

    Returns:
        Seconds of the first and of the second.
    """
    best = [float("inf"), float("inf")]
    for turn in range(rounds + 1):
        for index, call in enumerate((first, second)):
            start = time.perf_counter()
            call()
            if turn:
                best[index] = min(best[index], time.perf_counter() - start)
    return best[0], best[1]
