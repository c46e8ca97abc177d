r"""Activations as certificates need them: value, derivative, kinks, and $c_1=\sup|\sigma'|$, $c_2=\sup|\sigma''|$ rounded up.

Of the smooth ones, with $\varphi,\Phi$ the Gaussian density and distribution:

| $\sigma$ | $c_1$, attained at | $c_2$, attained at |
|---|---|---|
| softplus $\log(1+e^{\beta z})/\beta$ | 1, $\infty$ | $\beta/4$, 0 |
| tanh | 1, 0 | $4/(3\sqrt3)$, $\tanh z=1/\sqrt3$ |
| sigmoid | 1/4, 0 | $1/(6\sqrt3)$, $s=1/2\pm1/\sqrt{12}$ |
| erf | $2/\sqrt\pi$, 0 | $\sqrt{8/(\pi e)}$, $1/\sqrt2$ |
| gelu $z\Phi(z)$ | $\Phi(\sqrt2)+\sqrt2\varphi(\sqrt2)$, $\sqrt2$ | $2\varphi(0)$, 0 |
| silu $z\,s(z)$ | 1.0998…, 2.3994… | 1/2, 0 |
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.certificate.rounding import ELEMENTARY

_UP = 1 + 1e-12


@dataclass(frozen=True)
class Sigma:
    """An activation with its constants.

    Args:
        name: of the file format: relu, leaky_relu, abs, hard_tanh, softplus, tanh, sigmoid, erf, gelu or silu.
        c1: an upper bound of the derivative's magnitude.
        c2: an upper bound of the second derivative's; 0 for the piecewise linear ones, between their kinks.
        kinks: where the pieces of a piecewise linear one meet.
        parameter: slope (leaky_relu) or beta (softplus).
        limits: of hard_tanh.

    Example:
        >>> sigma_of("tanh").c1, sigma_of("relu").kinks
        (1.0, (0.0,))
    """

    name: str
    c1: float
    c2: float
    kinks: tuple[float, ...] = ()
    parameter: float = 1.0
    limits: tuple[float, float] = (-1.0, 1.0)

    def value(self, z: Tensor) -> Tensor:
        r"""$\sigma(z)$, in float64 to within :meth:`value_error`."""
        match self.name:
            case "relu":
                return z.clamp(min=0)
            case "leaky_relu":
                return torch.where(z > 0, z, self.parameter * z)
            case "abs":
                return z.abs()
            case "hard_tanh":
                return z.clamp(*self.limits)
            case "softplus":
                scaled = self.parameter * z
                return (scaled.clamp(min=0) + torch.log1p(torch.exp(-scaled.abs()))) / self.parameter
            case "tanh":
                return torch.tanh(z)
            case "sigmoid":
                return torch.sigmoid(z)
            case "erf":
                return torch.erf(z)
            case "gelu":
                return z * _normal(z)
            case _:
                return z * torch.sigmoid(z)

    def derivative(self, z: Tensor) -> Tensor:
        r"""$\sigma'(z)$, in float64 to within :attr:`derivative_error`; at a kink, either side's."""
        one = torch.ones_like(z)
        match self.name:
            case "relu":
                return torch.where(z > 0, one, 0.0)
            case "leaky_relu":
                return torch.where(z > 0, one, self.parameter)
            case "abs":
                return torch.where(z > 0, one, -1.0)
            case "hard_tanh":
                return torch.where((z > self.limits[0]) & (z < self.limits[1]), one, 0.0)
            case "softplus":
                return torch.sigmoid(self.parameter * z)
            case "tanh":
                return 1 - torch.tanh(z).square()
            case "sigmoid":
                return torch.sigmoid(z) * torch.sigmoid(-z)
            case "erf":
                return 2 / math.sqrt(math.pi) * torch.exp(-z.square())
            case "gelu":
                return _normal(z) + z * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
            case _:
                s = torch.sigmoid(z)
                return s * (1 + z * torch.sigmoid(-z))

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        r"""A bound of $|\mathrm{fl}(\sigma(z))-\sigma(z)|$, entry by entry (assumption A2)."""
        if self.kinks:
            return ELEMENTARY * value.abs() if self.name == "leaky_relu" else torch.zeros_like(z)
        return ELEMENTARY * (value.abs() + z.abs())

    @property
    def derivative_error(self) -> float:
        r"""A bound of $|\mathrm{fl}(\sigma'(z))-\sigma'(z)|$ (assumption A2)."""
        return 0.0 if self.kinks else ELEMENTARY * max(1.0, self.c1)


def sigma_of(name: str, parameter: float = 1.0, limits: tuple[float, float] = (-1.0, 1.0)) -> Sigma:
    """The activation of that name.

    Args:
        name: as :class:`Sigma` says.
        parameter: slope of leaky_relu, or beta of softplus.
        limits: of hard_tanh.

    Returns:
        The activation with its constants.

    Raises:
        KeyError: for another name.

    Example:
        >>> sigma_of("softplus", 2.0).c2
        0.5000000000005
    """
    match name:
        case "leaky_relu":
            return Sigma(name, max(1.0, abs(parameter)), 0.0, (0.0,), parameter=parameter)
        case "hard_tanh":
            return Sigma(name, 1.0, 0.0, limits, limits=limits)
        case "softplus":
            return Sigma(name, 1.0, parameter / 4 * _UP, parameter=parameter)
        case _:
            return _PLAIN[name]


def _normal(z: Tensor) -> Tensor:
    """Phi(z), without the cancellation of 1 + erf."""
    doubled: Tensor = torch.special.erfc(-z / math.sqrt(2))
    return doubled / 2


_PLAIN = {
    s.name: s
    for s in (
        Sigma("relu", 1.0, 0.0, (0.0,)),
        Sigma("abs", 1.0, 0.0, (0.0,)),
        Sigma("tanh", 1.0, 4 / (3 * math.sqrt(3)) * _UP),
        Sigma("sigmoid", 0.25, 1 / (6 * math.sqrt(3)) * _UP),
        Sigma("erf", 2 / math.sqrt(math.pi) * _UP, math.sqrt(8 / (math.pi * math.e)) * _UP),
        Sigma("gelu", 1.12890435, 2 / math.sqrt(2 * math.pi) * _UP),
        Sigma("silu", 1.09983933, 0.5 * _UP),
    )
}
