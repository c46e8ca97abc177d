"""Step sizes that change at stated steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from zeroloss.errors import ArgumentError

Schedule = tuple[tuple[int, float], ...]


def check_schedule(schedule: Iterable[Any]) -> Schedule:
    """A schedule as a tuple of pairs; refuses what is not pairs of ascending first steps and positive factors.

    Raises:
        ArgumentError: saying which pair.

    Example:
        >>> check_schedule([[100, 0.1]])
        ((100, 0.1),)
    """
    remedy = "pass (first_step, factor) pairs, steps ascending from 0, factors positive"
    if not isinstance(schedule, Iterable):
        raise ArgumentError("schedule", f"is {schedule!r}", remedy)
    pairs, last = tuple(schedule), -1
    for pair in pairs:
        whole = isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], int) and not isinstance(pair[0], bool)
        if not whole or not (isinstance(pair[1], int | float) and math.isfinite(pair[1]) and pair[1] > 0) or pair[0] <= last:
            raise ArgumentError("schedule", f"contains {pair!r}", remedy)
        last = int(pair[0])
    return tuple((int(first), float(factor)) for first, factor in pairs)


def factor_at(schedule: Schedule, step: int) -> float:
    r"""What $\eta$ is multiplied by at a step: the factor of the last pair whose first step has come, else 1.

    Args:
        schedule: pairs (first step, factor), first steps ascending.
        step: k.

    Returns:
        The factor.

    Example:
        >>> [factor_at(((10, 0.5), (20, 0.1)), k) for k in (9, 10, 25)]
        [1.0, 0.5, 0.1]
    """
    factor = 1.0
    for first, value in schedule:
        if first > step:
            break
        factor = float(value)
    return factor


def check_momentum(momentum: float) -> None:
    r"""Refuse a $\mu$ outside [0, 1).

    Raises:
        ArgumentError: saying what was passed.
    """
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 <= momentum < 1:
        raise ArgumentError("momentum", f"is {momentum!r}", "pass a number in [0, 1)")
