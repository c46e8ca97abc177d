r"""Activations in balls: values, derivatives, where they bend, and the constants $\sup|\sigma'|$, $\sup|\sigma''|$."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flint import arb

from zeroloss_verifier.balls import ONE, ZERO
from zeroloss_verifier.network import Activation


@dataclass(frozen=True, eq=False)
class Function:
    r"""One activation.

    Args:
        value: $\sigma(z)$.
        slope: $\sigma'(z)$; at a ball that holds a kink, NaN.
        kinks: where $\sigma$ bends; empty for a twice continuously differentiable one.
        c1: $\ge\sup|\sigma'|$.
        c2: $\ge\sup|\sigma''|$ between the kinks.
    """

    value: Callable[[arb], arb]
    slope: Callable[[arb], arb]
    kinks: tuple[arb, ...]
    c1: arb
    c2: arb


def function_of(stage: Activation) -> Function:
    r"""The function that a stage names, at the current precision.

    The constants, by calculus: softplus with $\beta$: $1$ and $\beta/4$. tanh: $1$ and $4/(3\sqrt3)$, where $\tanh^2=1/3$.
    sigmoid: $1/4$ and $1/(6\sqrt3)$. erf: $2/\sqrt\pi$ and $2\sqrt{2/(\pi e)}$, at $z=1/\sqrt2$.
    gelu, $z\Phi(z)$: $\sigma''=\varphi(z)(2-z^2)$ vanishes at $\pm\sqrt2$, where $|\sigma'|$ is largest, and is largest itself at 0.
    silu, $zs(z)$: $\sigma''=s'(z)(2-z\tanh(z/2))$ lies between $-1/4$ and $1/2=\sigma''(0)$, and vanishes where $z\tanh(z/2)=2$.

    Example:
        >>> function_of(Activation("sigmoid")).c1
        0.250000000000000
    """
    return _MAKERS[stage.name](**{name: arb(number) for name, number in stage.parameters})


def _bent(below: arb, above: arb) -> Function:
    # slope `below` under 0 and `above` over it; the value is continuous and holds for a ball around 0 as well
    def value(z: arb) -> arb:
        return above * z if z > 0 else below * z if z < 0 else ((above + below) * z + (above - below) * abs(z)) / 2

    def slope(z: arb) -> arb:
        return above if z > 0 else below if z < 0 else arb.nan()

    return Function(value, slope, (ZERO,), max(abs(below), abs(above)), ZERO)


def _hard_tanh(low: arb, high: arb) -> Function:
    def value(z: arb) -> arb:
        return z.max(low).min(high)

    def slope(z: arb) -> arb:
        return ZERO if z < low or z > high else ONE if low < z < high else arb.nan()

    return Function(value, slope, (low, high), ONE, ZERO)


def _softplus(beta: arb) -> Function:
    def value(z: arb) -> arb:
        # log(1 + e^t) = t + log(1 + e^-t): without overflow, and with all digits where t is large
        t = beta * z
        return ((t + (-t).exp().log1p()) if t > 0 else t.exp().log1p()) / beta

    return Function(value, lambda z: _logistic(beta * z), (), ONE, beta / 4)


def _tanh() -> Function:
    return Function(lambda z: z.tanh(), lambda z: 1 / z.cosh() ** 2, (), ONE, 4 / (3 * arb(3).sqrt()))


def _sigmoid() -> Function:
    return Function(_logistic, lambda z: _logistic(z) * _logistic(-z), (), ONE / 4, 1 / (6 * arb(3).sqrt()))


def _erf() -> Function:
    factor = 2 / arb.pi().sqrt()
    return Function(lambda z: z.erf(), lambda z: factor * (-z * z).exp(), (), factor, 2 * (2 / (arb.pi() * arb(1).exp())).sqrt())


def _gelu() -> Function:
    root = arb(2).sqrt()

    def share(z: arb) -> arb:
        return (-z / root).erfc() / 2

    def density(z: arb) -> arb:
        return (-z * z / 2).exp() / (2 * arb.pi()).sqrt()

    return Function(
        lambda z: z * share(z), lambda z: share(z) + z * density(z), (), share(root) + root * density(root), 2 * density(ZERO)
    )


def _silu() -> Function:
    def slope(z: arb) -> arb:
        return _logistic(z) * (1 + z * _logistic(-z))

    low, high = arb(2), arb(3)  # z tanh(z/2) increases for z > 0, and is 2 in between
    for _ in range(60):
        middle = ((low + high) / 2).mid()
        low, high = (middle, high) if middle * (middle / 2).tanh() < 2 else (low, middle)
    return Function(lambda z: z * _logistic(z), slope, (), slope(low.union(high)), ONE / 2)


def _logistic(z: arb) -> arb:
    return 1 / (1 + (-z).exp())


_MAKERS: dict[str, Callable[..., Function]] = {
    "relu": lambda: _bent(ZERO, ONE),
    "leaky_relu": lambda slope: _bent(slope, ONE),
    "abs": lambda: _bent(-ONE, ONE),
    "hard_tanh": _hard_tanh,
    "softplus": _softplus,
    "tanh": _tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "gelu": _gelu,
    "silu": _silu,
}
