r"""How many steps each decade of loss takes, between what two Grams say: the initial one, and the one after a few real steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from zeroloss.doctor.modes import Forecast
from zeroloss.doctor.trial import Movement

DECADES = tuple(float(f"1e-{i}") for i in range(1, 9))
SLACK = 1.02  # for rounding to whole steps and what second order does where nothing drifts
POINTS = 120  # of the drawn curve


@dataclass(frozen=True)
class Decade:
    """When the loss has fallen to some fraction of its start.

    Args:
        ratio: the fraction.
        start: steps by the initial Gram; None for never (or not within the budget of a forecast without a closed form).
        anchored: steps by the real steps and then by the Gram reached there.
        steps: the prediction, the anchored one where it differs.
        low: of the interval.
        high: of the interval; None where it has no end.
    """

    ratio: float
    start: int | None
    anchored: int | None
    steps: int | None
    low: int | None
    high: int | None


@dataclass(frozen=True)
class Curve:
    """The predicted loss relative to its start, to be drawn.

    Args:
        steps: ascending.
        start: by the initial Gram.
        anchored: after the real steps.
        real: the losses of the real steps 0 to T.
    """

    steps: tuple[int, ...]
    start: tuple[float, ...]
    anchored: tuple[float, ...]
    real: tuple[float, ...]


def decades(start: Forecast, after: Forecast, movement: Movement, first: float) -> tuple[Decade, ...]:
    r"""The steps to each decade, with an interval.

    With $k_0$ the forecast of the initial Gram, $k_T$ that of the T real steps followed by the Gram there, and $d$ the Gram's drift per
    residual gone, the interval is $[\min(k_0,k_T)/w, \max(k_0,k_T)\,w]$, $w = 1.02\,\frac{\max}{\min}(1+d)^2$: the two forecasts, their
    disagreement once more on either side, and room for each eigenvalue to drift twice as far as foreseen. It is a rule that was measured,
    not a theorem. A decade that the real steps reached is exact.

    Args:
        start: the initial forecast.
        after: from where the real steps ended.
        movement: what they showed.
        first: the first loss, positive.

    Returns:
        One a decade.

    Example:
        >>> import torch
        >>> from zeroloss.doctor.modes import ClosedForm, decompose
        >>> one = torch.eye(1, dtype=torch.float64)
        >>> run, still = ClosedForm(decompose(one), one, 0.5), Movement(1, 0.5, 0, (0.5, 0.125), 0.125, 0.5, 0.0, 0.0, 1.0)
        >>> [(d.steps, d.low, d.high) for d in decades(run, ClosedForm(decompose(one), one / 2, 0.5), still, 0.5)[:2]]
        [(2, 2, 3), (4, 3, 5)]
    """
    found = []
    for ratio in DECADES:
        told = start.steps_to(ratio * first)
        if told == 0:
            found.append(Decade(ratio, 0, 0, 0, 0, 0))
            continue
        seen = next((k for k, loss in enumerate(movement.losses) if loss <= ratio * first), None)
        if seen is not None:
            found.append(Decade(ratio, told, seen, seen, seen, seen))
            continue
        rest = after.steps_to(ratio * first)
        anchored = None if rest is None else movement.steps + max(rest, 1)
        found.append(_foreseen(ratio, told, anchored, movement, movement.steps + 1 if movement.steps else 1))
    return tuple(found)


def at_step(
    found: tuple[Decade, ...], start: Forecast, after: Forecast, movement: Movement, step: float, first: float
) -> tuple[Decade, ...]:
    r"""The decades at another step than that of the real ones, of which none is exact then.

    The initial Gram says how many steps either size takes, and the anchored number is taken to change in the same proportion: near the
    edge of stability, where a larger step is slower, as well as far below it, where steps only count time. Where the Gram that the real
    steps reached is too sharp for their size, there is no such number, and the real steps count as a stretch of gradient flow.

    Args:
        found: at the real steps' size.
        start: the initial forecast at the other size.
        after: at the other size too, from where the real steps ended.
        movement: what the real steps showed.
        step: the other size.
        first: the first loss, positive.

    Returns:
        One a decade, with an interval by the rule of :func:`decades`.

    Example:
        >>> import torch
        >>> from zeroloss.doctor.modes import ClosedForm, decompose
        >>> one, still = torch.eye(1, dtype=torch.float64), Movement(1, 0.5, 0, (0.5, 0.125), 0.125, 0.5, 0.0, 0.0, 1.0)
        >>> run = ClosedForm(decompose(one), one, 1.5)
        >>> at_step((Decade(0.1, 2, 2, 2, 2, 2),), run, run, still, 1.5, 0.5)[0]
        Decade(ratio=0.1, start=2, anchored=2, steps=2, low=1, high=3)
    """
    changed = []
    for decade in found:
        told = start.steps_to(decade.ratio * first)
        if told == 0:
            changed.append(decade)
            continue
        stretch = told / decade.start if told and decade.start else movement.step / step
        anchored = None if decade.anchored is None else max(1, round(decade.anchored * stretch))
        if anchored is None and (rest := after.steps_to(decade.ratio * first)) is not None:
            anchored = round(movement.steps * movement.step / step) + max(rest, 1)
        changed.append(_foreseen(decade.ratio, told, anchored, movement, 1))
    return tuple(changed)


def _foreseen(ratio: float, told: int | None, anchored: int | None, movement: Movement, least: int) -> Decade:
    """A decade that was not reached, with its interval."""
    known = [k for k in (told, anchored) if k is not None]
    if not known:
        return Decade(ratio, told, anchored, None, None, None)
    drift = movement.drift_per_gain if math.isfinite(movement.drift_per_gain) else 1e3
    width = SLACK * max(known) / max(min(known), 1) * (1 + drift) ** 2
    most = math.ceil(max(known) * width) if len(known) == 2 else None
    return Decade(ratio, told, anchored, anchored, max(least, math.floor(min(known) / width)), most)


def curve(start: Forecast, after: Forecast, movement: Movement, first: float, last: int) -> Curve:
    """Both forecasts at steps spread evenly on a logarithmic scale.

    Args:
        start: the initial forecast.
        after: from where the real steps ended.
        movement: the real steps.
        first: the first loss.
        last: the last step to draw.

    Returns:
        The curve; NaN where a forecast has ended.
    """
    grid = sorted({0, *(round(max(last, 1) ** (i / POINTS)) for i in range(POINTS + 1))})
    before = [k for k in grid if k <= movement.steps]
    real = tuple(loss / first for loss in movement.losses)
    anchored = [real[k] for k in before] if real else []
    later = after.losses([k - movement.steps for k in grid[len(anchored) :]])
    return Curve(tuple(grid), tuple(v / first for v in start.losses(grid)), (*anchored, *(v / first for v in later)), real)
