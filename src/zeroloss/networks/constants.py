"""The constants of an activation that DU's conditions ask for, computed from the function itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.networks.activations import Activation
from zeroloss.networks.elementwise import SIDE
from zeroloss.networks.gaussian import gaussian_mean


@lru_cache(maxsize=256)
def c_sigma(activation: Activation) -> float:
    r"""DU's normaliser $c_\sigma = 1/\mathbb{E}_{z\sim N(0,1)}[\sigma(z)^2]$ (DU section 3.1).

    Example:
        >>> from zeroloss.networks import find_activation
        >>> c_sigma(find_activation("relu"))
        2.0
    """
    value = float(_unit_mean(lambda z: activation.function(z) ** 2, activation))
    return round(1 / value, 14)  # the rule is exact to rounding; ReLU's 2 should read as 2


@lru_cache(maxsize=256)
def gradient_gain(activation: Activation) -> float:
    r"""$\chi = c_\sigma\mathbb{E}[\sigma'(z)^2]$, the factor by which a wide DU layer scales a gradient's square.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> gradient_gain(find_activation("relu"))
        1.0
    """
    return round(c_sigma(activation) * float(_unit_mean(lambda z: activation.derivative(z) ** 2, activation)), 14)


@lru_cache(maxsize=256)
def sup_derivative(activation: Activation) -> float:
    r"""$\sup_z|\sigma'(z)|$, DU's Lipschitz constant (Condition 3.1), found by a grid and a bounded search.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> round(sup_derivative(find_activation("gelu")), 4)
        1.1289
    """
    return _supremum(activation.derivative)


@lru_cache(maxsize=256)
def sup_curvature(activation: Activation) -> float:
    r"""$\sup_z|\sigma''(z)|$, DU's smoothness constant (Condition 3.1); infinite where $\sigma'$ jumps.

    Example:
        >>> from zeroloss.networks import find_activation
        >>> sup_curvature(find_activation("softplus")), sup_curvature(find_activation("relu"))
        (0.25, inf)
    """
    kinks = torch.tensor(activation.kinks, dtype=torch.float64)
    jumps = (activation.derivative(kinks + SIDE) - activation.derivative(kinks - SIDE)).abs()
    return math.inf if bool((jumps > 1e-6 * sup_derivative(activation)).any()) else _supremum(activation.curvature)


def _unit_mean(f: Callable[[Tensor], Tensor], activation: Activation) -> Float[Tensor, " 1"]:
    return gaussian_mean(f, torch.ones(1, dtype=torch.float64), activation.kinks)


def _supremum(f: Callable[[Tensor], Tensor]) -> float:
    """The largest |f|: on [-40, 40] by a grid, then decade by decade, and infinite if the last decade still adds to it."""
    from scipy.optimize import minimize_scalar  # slow to import, and most users never ask for a supremum

    grid = torch.linspace(-40, 40, 160_001, dtype=torch.float64)
    values = f(grid).abs()
    top = int(values.argmax())
    spacing = float(grid[1] - grid[0])

    def negative(z: float) -> float:
        return -abs(float(f(torch.tensor([z], dtype=torch.float64))))

    near = float(grid[top])
    found = minimize_scalar(negative, bounds=(near - spacing, near + spacing), method="bounded", options={"xatol": 1e-12})
    largest = max(float(values[top]), -float(found.fun))
    decades = 10.0 ** torch.arange(2, 9, dtype=torch.float64)
    far = torch.stack([f(decades), f(-decades)]).abs().nan_to_num(nan=0.0, posinf=math.inf).amax(0)  # NaN: inf/inf, far out
    if float(far[-1]) > 1.001 * max(largest, float(far[-2])):
        return math.inf
    return round(max(largest, float(far.max())), 14)
