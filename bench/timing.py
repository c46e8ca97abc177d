"""Timing things by turns, so that a drifting machine drifts under all of them."""

from __future__ import annotations

import time
from collections.abc import Callable


def by_turns(*calls: Callable[[], object], rounds: int = 7) -> tuple[float, ...]:
    """Best time of each over alternating rounds, after one round to warm up.

    Args:
        calls: what to time.
        rounds: how many counted.

    Returns:
        Seconds of each.
    """
    best = [float("inf")] * len(calls)
    for turn in range(rounds + 1):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            if turn:
                best[index] = min(best[index], time.perf_counter() - start)
    return tuple(best)
