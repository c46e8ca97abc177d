"""Exponents from sweeps: a log-log slope a seed, and an interval that knows how few seeds there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from zeroloss.claims.evidence import Sweep

MIN_SEEDS = 5
MIN_DECADES = 1.5


@dataclass(frozen=True)
class Slope:
    r"""The exponent p in $Q \approx C v^p$, v being the swept variable.

    Args:
        estimate: the mean over seeds of each seed's least-squares slope of $\log Q$ on $\log v$.
        interval: 95 %, Student's t over the seeds' slopes. (Not a bootstrap, which five
            seeds make far too narrow: docs/decisions/005.)
        log_shift: how much lower the slope of $Q/\log v$ is: what a logarithm that the theorem hides may account for.
        seeds: how many.
        decades: the sweep's length.
        problem: empty, or why no verdict should rest on this fit.
    """

    estimate: float
    interval: tuple[float, float]
    log_shift: float
    seeds: int
    decades: float
    problem: str


def fit_slope(sweep: Sweep, quantity: str, saturation: float = np.inf) -> Slope:
    """Fit the exponent of one quantity against the swept variable.

    Args:
        sweep: the measurements, every value with every seed.
        quantity: a key of its points' values.
        saturation: values at which the quantity's geometric mean is above this are left out: a relative error near 1 cannot grow
            further, and would make a true bound look false.

    Returns:
        The slope; ``problem`` says where there are too few seeds, too short a sweep, or values that are not positive.

    Example:
        >>> from zeroloss.claims.evidence import Point
        >>> from zeroloss.networks import Architecture
        >>> a = Architecture("fully_connected", "du", 4, (10,), 1, 1, "erf")
        >>> points = tuple(Point(m, s, {"q": m**-0.5}) for m in (10, 100, 1000) for s in range(5))
        >>> round(fit_slope(Sweep("a law", a, points, {}), "q").estimate, 9)
        -0.5
    """
    seeds = sorted({p.seed for p in sweep.points})
    every = sorted({p.at for p in sweep.points})
    table = np.full((len(seeds), len(every)), np.nan)
    for p in sweep.points:
        table[seeds.index(p.seed), every.index(p.at)] = p.values[quantity]
    nothing = (float("nan"), float("nan"))
    if not (np.isfinite(table).all() and (table > 0).all()):
        return Slope(float("nan"), nothing, 0.0, len(seeds), 0.0, f"{quantity} is not positive everywhere")
    kept = np.log(table).mean(axis=0) <= np.log(saturation)
    values = np.array(every, dtype=np.float64)[kept]
    if len(values) < 2:
        problem = f"{len(values)} values of {sweep.variable} below saturation, 2 are needed"
        return Slope(float("nan"), nothing, 0.0, len(seeds), 0.0, problem)
    x = np.log(values)
    slopes = np.array([_regress(x, line)[0] for line in np.log(table[:, kept])])
    decades = float(np.log10(values[-1] / values[0]))
    spread = float(slopes.std(ddof=1)) / len(seeds) ** 0.5 if len(seeds) > 1 else float("inf")
    reach = float(stdtrit(max(len(seeds) - 1, 1), 0.975)) * spread
    estimate = float(slopes.mean())
    problem = ""
    if len(seeds) < MIN_SEEDS:
        problem = f"{len(seeds)} seeds, {MIN_SEEDS} are needed"
    elif decades < MIN_DECADES - 1e-9:
        problem = f"{decades:.2f} decades of {sweep.variable} below saturation, {MIN_DECADES} are needed"
    shift = _regress(x, np.log(x))[0] if values[0] > 1 else 0.0
    return Slope(estimate, (estimate - reach, estimate + reach), shift, len(seeds), decades, problem)


def _regress(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred**2).sum())
    rest = y - y.mean() - slope * centred
    return slope, float((rest**2).sum())
