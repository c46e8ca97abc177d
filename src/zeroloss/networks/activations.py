"""Activations: the function, the module that applies it, and how torch's own layers are recognised."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.networks.elementwise import check_elementwise, curvature, derivative


class Erf(nn.Module):
    """The error function as a layer; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply erf elementwise."""
        return torch.erf(x)


class Sin(nn.Module):
    """The sine as a layer; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply sin elementwise."""
        return x.sin()


class Cos(nn.Module):
    """The cosine as a layer; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply cos elementwise."""
        return x.cos()


class Abs(nn.Module):
    """The absolute value as a layer; torch has the function and no module."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply abs elementwise."""
        return x.abs()


@dataclass(frozen=True)
class Activation:
    r"""An elementwise function $\sigma$ and what the theorems ask of it.

    Args:
        name: the name users write.
        source: what makes the layer, a module class or anything that returns a module when called with nothing; or the function.
        kinks: where $\sigma$ is not twice differentiable; DU's theorems need none, AZ's ReLU has one at 0.

    Raises:
        ArgumentError: for kinks that are not finite numbers. The function itself is checked by :func:`find_activation`.

    Example:
        >>> Activation("bump", lambda z: torch.exp(-(z**2))).function(torch.zeros(2))
        tensor([1., 1.])
    """

    name: str
    source: Callable[..., nn.Module | Tensor]
    kinks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        try:
            kinks = tuple(sorted({float(kink) for kink in self.kinks}))
        except (TypeError, ValueError):
            kinks = (math.nan,)
        if not all(map(math.isfinite, kinks)):
            raise ArgumentError("kinks", f"is {self.kinks!r}", "pass a tuple of finite numbers, such as (0.0,)")
        object.__setattr__(self, "kinks", kinks)

    @property
    def smooth(self) -> bool:
        """Whether the function is twice differentiable everywhere (all of our smooth ones are analytic)."""
        return not self.kinks

    def module(self) -> nn.Module:
        """A new layer that applies the function, and by which :func:`activation_of` finds this activation again."""
        layer = self._made() or Elementwise(self._applied, self.kinks, self.name)
        if activation_of(layer) != self:
            layer.zeroloss_activation = self  # type: ignore[assignment]  # a plain attribute
        return layer

    def function(self, z: Tensor) -> Tensor:
        r"""$\sigma(z)$, elementwise."""
        value: Tensor = self._applied(z)
        return value

    def derivative(self, z: Tensor) -> Tensor:
        r"""$\sigma'(z)$ elementwise, by automatic differentiation of the function itself; at a kink, torch's choice."""
        return derivative(self.function, z)

    def curvature(self, z: Tensor) -> Tensor:
        r"""$\sigma''(z)$ elementwise, by differentiating twice."""
        return curvature(self.function, z)

    @cached_property
    def _applied(self) -> Callable[[Tensor], Tensor]:
        return self._made() or self.source  # type: ignore[return-value]

    def _made(self) -> nn.Module | None:
        """A new layer from the source, or None where the source is the function itself."""
        if isinstance(self.source, nn.Module):
            return None
        try:
            layer = self.source()
        except Exception:  # a function of a tensor, called without one
            return None
        return layer if isinstance(layer, nn.Module) else None


class Elementwise(nn.Module):
    r"""A layer that applies a function of yours entry by entry, and that limits, claims and kernels recognise.

    Args:
        function: maps a tensor to one of its shape, in differentiable torch operations.
        kinks: where it is not twice differentiable.
        name: for reports and errors; the function's own name by default.

    Raises:
        ArgumentError: as :func:`find_activation`.

    Example:
        >>> layer = Elementwise(torch.sin)
        >>> layer, activation_of(layer).name
        (Elementwise(sin), 'sin')
    """

    def __init__(self, function: Callable[..., Tensor], kinks: tuple[float, ...] = (), name: str | None = None) -> None:
        super().__init__()
        self.apply_elementwise = function
        named = name or str(getattr(function, "__name__", type(function).__name__))
        self.zeroloss_activation = find_activation(Activation(named, function, kinks))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.apply_elementwise(x)

    def extra_repr(self) -> str:
        """The function's name."""
        return self.zeroloss_activation.name


def leaky_relu(slope: float = 0.01) -> Activation:
    r"""$\max(z, 0) + s\min(z, 0)$.

    Args:
        slope: $s$, any finite number.

    Returns:
        The activation, the same object for one slope.

    Example:
        >>> leaky_relu(0.2).name, leaky_relu(0.2).function(torch.tensor([-1.0, 1.0]))
        ('leaky_relu(0.2)', tensor([-0.2000,  1.0000]))
    """
    return _from_torch(nn.LeakyReLU, (float(slope),), f"leaky_relu({slope:g})" if slope != 0.01 else "leaky_relu", (0.0,))


def hard_tanh(low: float = -1.0, high: float = 1.0) -> Activation:
    r"""$\min(\max(z, a), b)$.

    Args:
        low: $a$.
        high: $b > a$.

    Returns:
        The activation, the same object for one pair of limits.

    Example:
        >>> hard_tanh(0.0, 6.0).name, hard_tanh(0.0, 6.0).kinks
        ('hard_tanh(0, 6)', (0.0, 6.0))
    """
    limits = (float(low), float(high))
    return _from_torch(nn.Hardtanh, limits, f"hard_tanh({low:g}, {high:g})" if limits != (-1, 1) else "hard_tanh", limits)


def softplus(beta: float = 1.0) -> Activation:
    r"""$\log(1+e^{\beta z})/\beta$.

    Args:
        beta: $\beta > 0$.

    Returns:
        The activation, the same object for one $\beta$.

    Example:
        >>> softplus(2.0).name
        'softplus(2)'
    """
    # torch switches softplus to the identity above a threshold; at 40 the switch is below rounding, at its default 20 it is not
    return _from_torch(nn.Softplus, (float(beta), 40.0), f"softplus({beta:g})" if beta != 1 else "softplus", ())


@lru_cache(maxsize=256)
def _from_torch(layer: Callable[..., nn.Module], arguments: tuple[float, ...], name: str, kinks: tuple[float, ...]) -> Activation:
    """One object for one set of arguments, since what is computed from an activation is kept for as long as it is the same."""
    return Activation(name, partial(layer, *arguments), kinks)


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("relu", nn.ReLU, kinks=(0.0,)),
        leaky_relu(),
        Activation("abs", Abs, kinks=(0.0,)),
        hard_tanh(),
        softplus(),
        Activation("tanh", nn.Tanh),
        Activation("sigmoid", nn.Sigmoid),
        Activation("erf", Erf),
        Activation("gelu", nn.GELU),
        Activation("swish", nn.SiLU),
        Activation("sin", Sin),
        Activation("cos", Cos),
    )
}
_TANH_GELU = Activation("gelu(tanh)", partial(nn.GELU, approximate="tanh"))
_BY_MODULE: dict[type[nn.Module], Callable[..., Activation]] = {
    nn.ReLU: lambda _: ACTIVATIONS["relu"],
    nn.LeakyReLU: lambda layer: leaky_relu(float(layer.negative_slope)),
    Abs: lambda _: ACTIVATIONS["abs"],
    nn.Hardtanh: lambda layer: hard_tanh(float(layer.min_val), float(layer.max_val)),
    nn.ReLU6: lambda layer: hard_tanh(float(layer.min_val), float(layer.max_val)),
    nn.Softplus: lambda layer: softplus(float(layer.beta)),
    nn.Tanh: lambda _: ACTIVATIONS["tanh"],
    nn.Sigmoid: lambda _: ACTIVATIONS["sigmoid"],
    Erf: lambda _: ACTIVATIONS["erf"],
    nn.GELU: lambda layer: _TANH_GELU if layer.approximate == "tanh" else ACTIVATIONS["gelu"],
    nn.SiLU: lambda _: ACTIVATIONS["swish"],
    Sin: lambda _: ACTIVATIONS["sin"],
    Cos: lambda _: ACTIVATIONS["cos"],
    nn.Mish: lambda _: _from_torch(nn.Mish, (), "mish", ()),
    nn.LogSigmoid: lambda _: _from_torch(nn.LogSigmoid, (), "log_sigmoid", ()),
    nn.Tanhshrink: lambda _: _from_torch(nn.Tanhshrink, (), "tanh_shrink", ()),
    nn.Hardsigmoid: lambda _: _from_torch(nn.Hardsigmoid, (), "hard_sigmoid", (-3.0, 3.0)),
    nn.Softshrink: lambda layer: _bent(
        nn.Softshrink, "soft_shrink", float(layer.lambd), (-float(layer.lambd), float(layer.lambd))
    ),
    nn.ELU: lambda layer: _bent(nn.ELU, "elu", float(layer.alpha), (0.0,)),
    nn.CELU: lambda layer: _bent(nn.CELU, "celu", float(layer.alpha), (0.0,)),
    nn.SELU: lambda _: _from_torch(nn.SELU, (), "selu", (0.0,)),
    nn.Softsign: lambda _: _from_torch(nn.Softsign, (), "soft_sign", (0.0,)),  # its second derivative jumps
    nn.Hardswish: lambda _: _from_torch(nn.Hardswish, (), "hard_swish", (-3.0, 3.0)),
}


def _bent(layer: Callable[..., nn.Module], name: str, parameter: float, kinks: tuple[float, ...]) -> Activation:
    """One of torch's layers of one parameter, which the name tells."""
    return _from_torch(layer, (parameter,), f"{name}({parameter:g})", kinks)


def find_activation(activation: object) -> Activation:
    """The activation of that name, or the one given, once it is known to be an elementwise function with a limit.

    Args:
        activation: a name, or an :class:`Activation` of your own.

    Returns:
        The activation.

    Raises:
        ArgumentError: for a name that is not known, with the nearest one suggested; or for a function that is not elementwise, not
            finite, not continuous, not differentiable, random or constant, or that has a kink it does not list.

    Example:
        >>> find_activation("gelu").smooth, find_activation(Activation("sine", torch.sin)).name
        (True, 'sine')
    """
    if isinstance(activation, Activation):
        _check(activation)
        return activation
    if not isinstance(activation, str):
        remedy = "pass a name, or wrap it: zeroloss.networks.Activation('name', function, kinks=(...))"
        raise ArgumentError("activation", f"is {activation!r}", remedy)
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    return ACTIVATIONS[activation]


@lru_cache(maxsize=256)
def _check(activation: Activation) -> None:
    if isinstance(activation._applied, nn.Module) and any(True for _ in activation._applied.parameters()):
        raise ArgumentError(f"activation {activation.name!r}", "has parameters of its own", "pass a function that is not trained")
    check_elementwise(activation.name, activation.function, activation.kinks)


def activation_of(module: nn.Module) -> Activation | None:
    """The activation that a layer applies, or None where the layer is not an activation we know.

    A layer of another class is known by its attribute ``zeroloss_activation``, which :class:`Elementwise` and the layers that an
    :class:`Activation` makes carry, and which a class of your own may set.

    Example:
        >>> activation_of(nn.Tanh()).name, activation_of(nn.LeakyReLU(0.3)).name, activation_of(nn.Linear(2, 2))
        ('tanh', 'leaky_relu(0.3)', None)
    """
    carried = getattr(module, "zeroloss_activation", None)
    if isinstance(carried, Activation):
        return find_activation(carried)
    if isinstance(module, nn.Softplus) and module.threshold < 15:  # torch cuts it off there, so that it jumps
        return None
    read = _BY_MODULE.get(type(module))
    return None if read is None else read(module)
