"""Step sizes that change at stated steps."""

from __future__ import annotations

import math

from zeroloss.errors import ArgumentError

Schedule = tuple[tuple[int, float], ...]


def check_schedule(schedule: Schedule) -> None:
    """Refuse what is not pairs of ascending first steps and positive factors.

    Raises:
        ArgumentError: saying which pair.
    """
    last = -1
    for pair in schedule:
        whole = len(pair) == 2 and isinstance(pair[0], int) and not isinstance(pair[0], bool)
        if not whole or not (isinstance(pair[1], int | float) and math.isfinite(pair[1]) and pair[1] > 0) or pair[0] <= last:
            raise ArgumentError(
                "schedule", f"contains {pair!r}", "pass (first_step, factor) pairs, steps ascending from 0, factors positive"
            )
        last = pair[0]


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
