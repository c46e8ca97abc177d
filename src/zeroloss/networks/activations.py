"""Activations: the function, the module that applies it, and the constants of DU's conditions, all computed from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import unknown_name
from zeroloss.networks.gaussian import gaussian_mean


class Erf(nn.Module):
    """The error function as a layer; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply erf elementwise."""
        return torch.erf(x)


@dataclass(frozen=True)
class Activation:
    r"""An elementwise function $\sigma$ and what the theorems ask of it.

    Args:
        name: the name users write.
        module: makes the layer that applies it.
        kinks: where $\sigma$ is not twice differentiable; DU's theorems need none, AZ's ReLU has one at 0.

    Example:
        >>> find_activation("relu").function(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    name: str
    module: Callable[[], nn.Module]
    kinks: tuple[float, ...] = ()

    @property
    def smooth(self) -> bool:
        """Whether the function is twice differentiable everywhere (all of our smooth ones are analytic)."""
        return not self.kinks

    def function(self, z: Tensor) -> Tensor:
        r"""$\sigma(z)$, elementwise."""
        value: Tensor = self.module()(z)
        return value

    def derivative(self, z: Tensor) -> Tensor:
        r"""$\sigma'(z)$ elementwise, by automatic differentiation of the function itself; at a kink, torch's choice."""
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(point).sum(), point, create_graph=False)
        return slope

    def curvature(self, z: Tensor) -> Tensor:
        r"""$\sigma''(z)$ elementwise, by differentiating twice."""
        with torch.enable_grad():
            point = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.function(point).sum(), point, create_graph=True)
            if not slope.requires_grad:  # piecewise linear
                return torch.zeros_like(z)
            (bend,) = torch.autograd.grad(slope.sum(), point)
        return bend


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("relu", nn.ReLU, kinks=(0.0,)),
        # torch switches softplus to the identity above a threshold; at 40 the switch is below rounding, at its default 20 it is not
        Activation("softplus", lambda: nn.Softplus(threshold=40)),
        Activation("tanh", nn.Tanh),
        Activation("erf", Erf),
        Activation("gelu", nn.GELU),
    )
}
_BY_MODULE: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.Softplus: "softplus",
    nn.Tanh: "tanh",
    Erf: "erf",
    nn.GELU: "gelu",
}


def find_activation(name: str | Activation) -> Activation:
    """The activation of that name, or the one given.

    Raises:
        ArgumentError: for a name that is not known, with the nearest one suggested.

    Example:
        >>> find_activation("gelu").smooth
        True
    """
    if isinstance(name, Activation):
        return name
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def activation_of(module: nn.Module) -> Activation | None:
    """The activation that a layer applies, or None where the layer is not an activation we know.

    Example:
        >>> activation_of(nn.Tanh()).name, activation_of(nn.Linear(2, 2))
        ('tanh', None)
    """
    name = _BY_MODULE.get(type(module))
    if name is None or (isinstance(module, nn.GELU) and module.approximate != "none"):
        return None
    if isinstance(module, nn.Softplus) and module.beta != 1:
        return None
    return ACTIVATIONS[name]


@lru_cache(maxsize=256)
def c_sigma(activation: Activation) -> float:
    r"""DU's normaliser $c_\sigma = 1/\mathbb{E}_{z\sim N(0,1)}[\sigma(z)^2]$ (DU section 3.1).

    Example:
        >>> c_sigma(find_activation("relu"))
        2.0
    """
    value = float(_unit_mean(lambda z: activation.function(z) ** 2, activation))
    return round(1 / value, 14)  # the rule is exact to rounding; ReLU's 2 should read as 2


@lru_cache(maxsize=256)
def gradient_gain(activation: Activation) -> float:
    r"""$\chi = c_\sigma\mathbb{E}[\sigma'(z)^2]$, the factor by which a wide DU layer scales a gradient's square.

    Example:
        >>> gradient_gain(find_activation("relu"))
        1.0
    """
    return round(c_sigma(activation) * float(_unit_mean(lambda z: activation.derivative(z) ** 2, activation)), 14)


@lru_cache(maxsize=256)
def sup_derivative(activation: Activation) -> float:
    r"""$\sup_z|\sigma'(z)|$, DU's Lipschitz constant (Condition 3.1), found by a grid and a bounded search.

    Example:
        >>> round(sup_derivative(find_activation("gelu")), 4)
        1.1289
    """
    return _supremum(activation.derivative)


@lru_cache(maxsize=256)
def sup_curvature(activation: Activation) -> float:
    r"""$\sup_z|\sigma''(z)|$, DU's smoothness constant (Condition 3.1); infinite where $\sigma$ has a kink.

    Example:
        >>> sup_curvature(find_activation("softplus")), sup_curvature(find_activation("relu"))
        (0.25, inf)
    """
    return _supremum(activation.curvature) if activation.smooth else math.inf


def _unit_mean(f: Callable[[Tensor], Tensor], activation: Activation) -> Float[Tensor, " 1"]:
    return gaussian_mean(f, torch.ones(1, dtype=torch.float64), activation.kinks)


def _supremum(f: Callable[[Tensor], Tensor]) -> float:
    """The largest |f| on [-40, 40]: beyond it every activation here is linear or flat to rounding."""
    from scipy.optimize import minimize_scalar  # slow to import, and most users never ask for a supremum

    grid = torch.linspace(-40, 40, 160_001, dtype=torch.float64)
    values = f(grid).abs()
    top = int(values.argmax())
    spacing = float(grid[1] - grid[0])

    def negative(z: float) -> float:
        return -abs(float(f(torch.tensor([z], dtype=torch.float64))))

    near = float(grid[top])
    found = minimize_scalar(negative, bounds=(near - spacing, near + spacing), method="bounded", options={"xatol": 1e-12})
    return round(max(float(values[top]), -float(found.fun)), 14)
