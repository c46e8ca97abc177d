r"""The losses of AZ Theorem 5: the function of one sample's outputs, its gradient, and the constants that the theorem asks about.

The objective is the papers' sum $F=\sum_i f(\mathrm{out}_i)$, so what is stated of $f$ holds for the gradient of $F$ in all outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.training.targets import Kind


@dataclass(frozen=True)
class Loss:
    r"""A loss $f\ge 0$ of one sample's outputs; all of ours have infimum 0.

    Args:
        name: the name users write.
        value: from outputs n×k and targets n×k the n losses $f(\mathrm{out}_i)$.
        gradient: from the same the n×k derivatives in the outputs.
        smoothness: the Lipschitz constant of that gradient.
        dominance: $\sigma>0$ with $\|\nabla f\|^2\ge\sigma f$ everywhere; None where there is none.
        convex: whether $f$ is convex in the outputs.
        targets: ``"any"``, ``"signs"`` (±1) or ``"one-hot"``.
        local_dominance: from R the largest $\sigma$ that holds while every residual is at most R in size, where one is known.
        infimum: of $f$; for cross-entropy and the logistic loss it is not attained.

    Example:
        >>> loss = find_loss("squared")
        >>> out, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 1.0]])
        >>> loss.value(out, y), loss.gradient(out, y), loss.smoothness, loss.dominance
        (tensor([2.5000]), tensor([[ 2., -1.]]), 1.0, 2.0)
    """

    name: str
    value: Callable[[Tensor, Tensor], Tensor]
    gradient: Callable[[Tensor, Tensor], Tensor]
    smoothness: float
    dominance: float | None
    convex: bool
    targets: Kind = "any"
    local_dominance: Callable[[float], float] | None = None
    infimum: float = 0.0

    def dominance_within(self, radius: float) -> float | None:
        r"""$\sigma$ with $\|\nabla f\|^2\ge\sigma f$ while every $|r_a|\le R$.

        Args:
            radius: $R>0$, in the units of the outputs.

        Returns:
            The constant, or None where none is known.

        Example:
            >>> find_loss("log_cosh").dominance_within(1.0)  # tanh(1)^2 / log cosh 1
            1.33713...
        """
        if not radius > 0:
            raise ArgumentError("radius", f"is {radius!r}", "pass a positive number")
        return self.dominance if self.local_dominance is None else self.local_dominance(max(radius, 1e-100))  # squares underflow


def find_loss(loss: str | Loss) -> Loss:
    """The loss of that name, or the loss itself.

    Raises:
        ArgumentError: for a name that is not known, with the nearest one suggested.

    Example:
        >>> find_loss("cross_entropy").smoothness
        0.5
    """
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    return LOSSES[loss]


def _of_residual(
    name: str,
    value: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    smoothness: float,
    dominance: float | None,
    convex: bool,
    local_dominance: Callable[[float], float] | None = None,
) -> Loss:
    """A sum over outputs of one function of the residual $r=f-y$."""
    return Loss(
        name,
        lambda outputs, targets: value(outputs - targets).sum(dim=1),
        lambda outputs, targets: slope(outputs - targets),
        smoothness,
        dominance,
        convex,
        local_dominance=local_dominance,
    )


def _log_cosh(r: Tensor) -> Tensor:
    # near 0 the usual form loses every digit to the cancellation of log 2; log(1 + 2 sinh^2(r/2)) keeps them all
    size = r.abs()
    near = torch.log1p(2 * torch.sinh(size.clamp(max=1.0) / 2).square())
    return torch.where(size < 1, near, size + torch.log1p(torch.exp(-2 * size)) - math.log(2))


def _quartic(r: Tensor) -> Tensor:
    square = r.square()
    return square * (0.5 * square / (1 + square))


def _quartic_slope(r: Tensor) -> Tensor:
    square = r.square()
    share = square / (1 + square)
    return r * share * (1 + 1 / (1 + square))


def _logistic(outputs: Tensor, targets: Tensor) -> Tensor:
    return -torch.nn.functional.logsigmoid(targets * outputs).sum(dim=1)


def _logistic_slope(outputs: Tensor, targets: Tensor) -> Tensor:
    return -targets * torch.sigmoid(-targets * outputs)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    # log(1 + e^g) with g the log-sum-exp of the other outputs less the own one: full precision as the loss tends to 0
    others = outputs.masked_fill(targets == 1, -torch.inf).logsumexp(dim=1)
    return -torch.nn.functional.logsigmoid((outputs * targets).sum(dim=1) - others)


def _cross_entropy_slope(outputs: Tensor, targets: Tensor) -> Tensor:
    others = outputs.softmax(dim=1).masked_fill(targets == 1, 0.0)
    return others - targets * others.sum(dim=1, keepdim=True)  # p_y - 1 as a sum of small numbers, not as a difference


# (2r + 3 sin 2r)^2 / (r^2 + 3 sin^2 r) is least at r = 2.20171, where it is 0.351062; the tests prove the rounded value
SINE_DOMINANCE = 0.351

LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        # f' = r, so f'^2 = 2f
        _of_residual("squared", lambda r: 0.5 * r.square(), lambda r: r, 1.0, 2.0, True),
        # the Hessian diag(p) - pp^T has norm at most 1/2, reached at p = (1/2, 1/2); ||f'||^2 / f tends to 0 as f does
        Loss("cross_entropy", _cross_entropy, _cross_entropy_slope, 0.5, None, True, "one-hot"),
        # f'' = s(1 - s) with s = sigmoid(-yf)
        Loss("logistic", _logistic, _logistic_slope, 0.25, None, True, "signs"),
        # r^4/(2(1 + r^2)): with s = 1 + r^2, f'' = 1 + 3/s^2 - 4/s^3, which is 0 at r = 0 and largest, 5/4, at s = 2; f'^2 / f ~ 8 r^2
        _of_residual("quartic", _quartic, _quartic_slope, 1.25, None, True),
        # f'' = 1 - tanh^2; f'^2 / f falls with |r|, since its logarithm's derivative has the sign of 2 f'' f - f'^2, which is 0 at 0
        # and has derivative 2 f''' f < 0
        _of_residual("log_cosh", _log_cosh, torch.tanh, 1.0, None, True, lambda R: math.tanh(R) ** 2 / _log_cosh_number(R)),
        # r^2 + 3 sin^2 r: f'' = 2 + 6 cos 2r lies in [-4, 8]
        _of_residual(
            "sine",
            lambda r: r.square() + 3 * torch.sin(r).square(),
            lambda r: 2 * r + 3 * torch.sin(2 * r),
            8.0,
            SINE_DOMINANCE,
            False,
        ),
        # 1 - exp(-r^2/2): f'' = (1 - r^2) exp(-r^2/2) lies in [-2 exp(-3/2), 1]
        _of_residual(
            "welsch", lambda r: -torch.expm1(-0.5 * r.square()), lambda r: r * torch.exp(-0.5 * r.square()), 1.0, None, False
        ),
    )
}


def _log_cosh_number(radius: float) -> float:
    return float(_log_cosh(torch.tensor(radius, dtype=torch.float64)))
