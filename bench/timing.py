"""Timing things by turns, so that a drifting machine drifts under all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def by_turns(*calls: Callable[[], object], rounds: int = 7) -> tuple[float, ...]:
    """Best time of each over alternating rounds, after one round to warm up.

    Args:
        calls: what to time.
        rounds: how many counted.

    Returns:
        Seconds of each.
    """
    return within(float("inf"), *calls, rounds=rounds)


def within(seconds: float, *calls: Callable[[], object], rounds: int = 7) -> tuple[float, ...]:
    """As :func:`by_turns`, but no round begins after that many seconds; the warm-up counts where no other round was made.

    Args:
        seconds: how long rounds may begin.
        calls: what to time.
        rounds: how many counted at most.

    Returns:
        Seconds of each.
    """
    start = time.perf_counter()
    warm_up = _round(calls)
    best = [float("inf")] * len(calls)
    made = 0
    while made < rounds and time.perf_counter() - start < seconds:
        best = list(map(min, best, _round(calls)))
        made += 1
    return tuple(best if made else warm_up)


def _round(calls: Sequence[Callable[[], object]]) -> list[float]:
    taken = []
    for call in calls:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken
