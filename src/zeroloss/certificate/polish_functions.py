r"""Activations in double-double arithmetic: exact where they are piecewise linear, else from one exponential to 30 digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from zeroloss.certificate.double_double import Pair
from zeroloss.networks import Abs, Erf

Elementwise = Callable[[Pair], Pair]

# constants as two float64 each, from 40 digits
LOG_2 = (0.6931471805599453, 2.3190468138462996e-17)
TWO_OVER_ROOT_PI = (1.1283791670955126, 1.533545961316588e-17)
ROOT_HALF = (0.7071067811865476, -4.833646656726457e-17)
TERMS = 14  # of the exponential's series on |r| <= ln(2)/512: the next is below 1e-40
SQUARINGS = 8
FLAT = 8.5  # beyond, 1 - erf is below 3e-33
PER_UNIT = 32  # nodes of the error function's table
TAYLOR = 24  # terms at a node: what is left out is below 1e-31


def function_of(layer: nn.Module) -> Elementwise | None:
    """The layer's function on pairs; None for a layer that is no activation we have one of.

    Args:
        layer: a module.

    Example:
        >>> function_of(nn.Tanh()) is None, function_of(nn.Hardsigmoid()) is None
        (False, True)
    """
    if isinstance(layer, nn.GELU) and layer.approximate != "none":
        return None
    if type(layer) is nn.LeakyReLU:
        slope = float(layer.negative_slope)
        return lambda z: z.where(z.high >= 0, z * slope)
    if isinstance(layer, nn.Hardtanh):
        return _clamped(float(layer.min_val), float(layer.max_val))
    if type(layer) is nn.Softplus:
        return softplus if layer.beta == 1 and layer.threshold >= 15 else None
    return _BY_MODULE.get(type(layer))


def exp(z: Pair) -> Pair:
    r"""$e^z=2^m(e^r)^{256}$ with $z=m\ln2+256r$: relative error about 1e-29.

    Args:
        z: at most 709; below -700 the result is 0.

    Returns:
        The exponential.

    Example:
        >>> e = exp(Pair.of(torch.ones(1, dtype=torch.float64)))
        >>> e.high.item(), round(e.low.item() * 1e16, 9)  # 2.71828182845904523536...
        (2.718281828459045, 1.445646892)
    """
    m = torch.round(z.high / LOG_2[0]).clamp(min=-1010)
    rest = (z - _constant(LOG_2, z.high) * Pair.of(m)) * 2.0**-SQUARINGS
    rest = rest.where(z.high > -700, Pair.of(torch.zeros_like(m)))
    total = Pair.of(torch.zeros_like(m))  # e^r - 1, by Horner's rule; squared as (1+s)^2 - 1 = s(2+s), which keeps its digits
    for order in range(TERMS, 0, -1):
        total = (total + 1.0) * rest / Pair.of(torch.full_like(m, float(order)))
    for _ in range(SQUARINGS):
        total = total * (total + 2.0)
    scale = torch.exp2(m)
    return (total + 1.0).map(lambda part: torch.where(z.high > -700, part * scale, torch.zeros_like(part)))


def softplus(z: Pair) -> Pair:
    r"""$\ln(1+e^z)=\max(z,0)+\ln(1+e^{-|z|})$, the logarithm by one Newton step from float64."""
    small = exp(-_absolute(z))
    first = Pair.of(torch.log1p(small.high))
    return _relu(z) + first + ((small + 1.0) * exp(-first) - 1.0)


def sigmoid(z: Pair) -> Pair:
    r"""$1/(1+e^{-z})$, from $e^{-|z|}$."""
    small = exp(-_absolute(z))
    one = Pair.of(torch.ones_like(z.high))
    return one.where(z.high >= 0, small) / (small + 1.0)


def tanh(z: Pair) -> Pair:
    r"""$\pm(1-e^{-2|z|})/(1+e^{-2|z|})$: absolute error 1e-30."""
    small = exp(_absolute(z) * -2.0)
    value = (-small + 1.0) / (small + 1.0)
    return value.where(z.high >= 0, -value)


def erf(z: Pair) -> Pair:
    r"""The error function, by its Taylor series at the nearest of the multiples of 1/32; ±1 beyond 8.5. Absolute error 1e-30."""
    nodes = torch.round(z.high.abs().clamp(max=FLAT) * PER_UNIT)
    away = _absolute(z) - Pair.of(nodes / PER_UNIT)
    index = nodes.long()
    table = _taylor()
    value = Pair.of(torch.zeros_like(nodes))
    for coefficients in reversed(table):
        value = value * away + coefficients.map(lambda part: part[index])
    value = value.where(z.high.abs() < FLAT, Pair.of(torch.ones_like(nodes)))
    return value.where(z.high >= 0, -value)


@lru_cache(maxsize=1)
def _taylor() -> tuple[Pair, ...]:
    r"""$\mathrm{erf}^{(n)}(c)/n!$ at the nodes c for n = 0, 1, ..."""
    c = torch.arange(round(FLAT * PER_UNIT) + 1, dtype=torch.float64) / PER_UNIT
    two_c = Pair.of(2 * c)
    value = _erf_series(Pair.of(c))
    before, slope = Pair.of(torch.zeros_like(c)), _constant(TWO_OVER_ROOT_PI, c) * exp(-(Pair.of(c) * Pair.of(c)))
    found = [value]
    for n in range(TAYLOR):
        found.append(slope / Pair.of(torch.full_like(c, n + 1.0)))
        # the Taylor coefficients g_n of g = exp(-t^2): (n+1) g_{n+1} = -2c g_n - 2 g_{n-1}
        after = -(two_c * slope + before * 2.0) / Pair.of(torch.full_like(c, n + 1.0))
        before, slope = slope, after
    return tuple(found)


def _erf_series(z: Pair) -> Pair:
    r"""$\frac{2}{\sqrt\pi}e^{-z^2}\sum_n\frac{2^nz^{2n+1}}{1\cdot3\cdots(2n+1)}$, a series of terms of one sign."""
    square = z * z
    term = total = z
    for n in range(1, 400):
        term = term * (square * 2.0) / Pair.of(torch.full_like(z.high, 2.0 * n + 1))
        total = total + term
    return _constant(TWO_OVER_ROOT_PI, z.high) * exp(-square) * total


def _gelu(z: Pair) -> Pair:
    return z * ((erf(z * _constant(ROOT_HALF, z.high)) + 1.0) * 0.5)


def _relu(z: Pair) -> Pair:
    return z.map(lambda part: torch.where(z.high > 0, part, torch.zeros_like(part)))


def _absolute(z: Pair) -> Pair:
    return z.where(z.high >= 0, -z)


def _clamped(low: float, high: float) -> Elementwise:
    def clamp(z: Pair) -> Pair:
        inside = (z.high + z.low > low) & (z.high + z.low < high)
        return z.where(inside, Pair.of(z.high.clamp(low, high)))

    return clamp


def _constant(parts: tuple[float, float], like: Tensor) -> Pair:
    return Pair(torch.full_like(like, parts[0]), torch.full_like(like, parts[1]))


_BY_MODULE: dict[type[nn.Module], Elementwise] = {
    nn.ReLU: _relu,
    Abs: _absolute,
    nn.Softplus: softplus,
    nn.Tanh: tanh,
    nn.Sigmoid: sigmoid,
    Erf: erf,
    nn.GELU: _gelu,
    nn.SiLU: lambda z: z * sigmoid(z),
}
