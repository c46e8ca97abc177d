"""Exponents from sweeps: log-log regression with a bootstrap that resamples seeds, and the rule that judges them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zeroloss.claims.evidence import Point, Sweep

DRAWS = 2000
MIN_SEEDS = 5
MIN_DECADES = 1.5
WIDEST = 0.6  # an interval wider than this decides nothing


@dataclass(frozen=True)
class Slope:
    r"""The exponent p in $Q \approx C m^p$.

    Args:
        estimate: least squares on logarithms.
        interval: 95 %, by resampling seeds (never single points, which share their seed's draw).
        r2: share of the variance explained.
        seeds: how many.
        decades: the sweep's length.
        problem: empty, or why no verdict should rest on this fit.
    """

    estimate: float
    interval: tuple[float, float]
    r2: float
    seeds: int
    decades: float
    problem: str


def fit_slope(sweep: Sweep, quantity: str) -> Slope:
    """Fit the exponent of one quantity against the width.

    Args:
        sweep: the measurements.
        quantity: a key of its points' values.

    Returns:
        The slope; ``problem`` says where there are too few seeds, too short a sweep, or values that are not positive.

    Example:
        >>> from zeroloss.networks import Architecture
        >>> a = Architecture("fully_connected", "du", 4, (10,), 1, 1, "erf")
        >>> points = tuple(Point(m, s, {"q": m**-0.5}) for m in (10, 100, 1000) for s in range(5))
        >>> round(fit_slope(Sweep("a law", a, points, {}), "q").estimate, 9)
        -0.5
    """
    seeds = sorted({p.seed for p in sweep.points})
    widths = sorted({p.width for p in sweep.points})
    decades = float(np.log10(widths[-1] / widths[0]))
    values = [p.values[quantity] for p in sweep.points]
    positive = all(np.isfinite(v) and v > 0 for v in values)
    if len(widths) < 2 or not positive:
        problem = f"{quantity} is not positive everywhere" if len(widths) > 1 else "one width only"
        return Slope(float("nan"), (float("nan"), float("nan")), 0.0, len(seeds), decades, problem)
    by_seed = [_line([p for p in sweep.points if p.seed == seed], quantity) for seed in seeds]
    x, y = (np.concatenate(column) for column in zip(*by_seed, strict=True))
    slope, rest = _regress(x, y)
    generator = np.random.default_rng(0)
    draws = np.empty(DRAWS)
    for index in range(DRAWS):
        chosen = generator.integers(0, len(seeds), len(seeds))
        draws[index] = _regress(*(np.concatenate(c) for c in zip(*[by_seed[i] for i in chosen], strict=True)))[0]
    low, high = np.quantile(draws, [0.025, 0.975])
    total = float(((y - y.mean()) ** 2).sum())
    problem = ""
    if len(seeds) < MIN_SEEDS:
        problem = f"{len(seeds)} seeds, {MIN_SEEDS} are needed"
    elif decades < MIN_DECADES - 1e-9:
        problem = f"{decades:.2f} decades of width, {MIN_DECADES} are needed"
    elif high - low > WIDEST:
        problem = f"an interval of length {high - low:.2f}"
    return Slope(slope, (float(low), float(high)), 1 - rest / total if total > 0 else 1.0, len(seeds), decades, problem)


def exponential_beats_power(steps: NDArray[np.float64], logs: NDArray[np.float64]) -> tuple[float, float]:
    r"""How well $\log F = a - rk$ and $\log F = a - p\log k$ fit a tail.

    Args:
        steps: k >= 1.
        logs: $\log F_k$.

    Returns:
        R² of the exponential law, and the difference of AIC (power minus exponential: positive favours the exponential).

    Example:
        >>> k = np.arange(1.0, 200.0)
        >>> r2, gain = exponential_beats_power(k, -0.1 * k)
        >>> round(r2, 6), gain > 10
        (1.0, True)
    """
    total = float(((logs - logs.mean()) ** 2).sum())
    _, rest = _regress(steps, logs)
    _, rest_power = _regress(np.log(steps), logs)
    floor = 1e-30 * len(logs)
    gain = len(logs) * (np.log(rest_power + floor) - np.log(rest + floor))  # both have two parameters
    return 1 - rest / total if total > 0 else 1.0, float(gain)


def _line(points: list[Point], quantity: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.log([p.width for p in points]), np.log([p.values[quantity] for p in points])


def _regress(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    centred = x - x.mean()
    slope = float((centred * y).sum() / (centred**2).sum())
    rest = y - y.mean() - slope * centred
    return slope, float((rest**2).sum())
