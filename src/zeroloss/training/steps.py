r"""Step sizes: a stated fraction of $1/\lambda_{\max}$ of the initial Gram, or what a theorem asks for."""

from __future__ import annotations

import math

from torch import nn

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import tangent_operator
from zeroloss.kernels import limit_kernel
from zeroloss.networks import Network
from zeroloss.spectrum import extremes, largest_eigenvalue

AUTO_FRACTION = 1.0  # half of the stable limit 2/lambda_max: every direction contracts, and none oscillates


def step_size(step: str | float, module: nn.Module, data: Dataset) -> float:
    r"""The number behind a step: ``"auto"``, ``"theory"``, or itself.

    Args:
        step: ``"auto"`` is $1/\lambda_{\max}(G(0))$; ``"theory"`` is :func:`theory_step`; a positive number is kept.
        module: the module at its initial weights.
        data: what it trains on.

    Returns:
        $\eta$.

    Raises:
        ArgumentError: for another word or a number that is not positive and finite.

    Example:
        >>> step_size(0.1, nn.Identity(), Dataset([[1.0]], [1.0]))
        0.1
    """
    if step == "auto":
        largest = largest_eigenvalue(tangent_operator(module, data.x))
        if not (math.isfinite(largest) and largest > 0):
            raise ArgumentError(
                "module",
                f"has a Gram with largest eigenvalue {largest} at its initial weights",
                "check for dead units, zero inputs or NaN weights, or pass a number as step",
            )
        return AUTO_FRACTION / largest
    if step == "theory":
        return theory_step(module, data)
    check_step(step)
    return float(step)


def check_step(step: str | float) -> None:
    """Refuse a step that is neither a rule's name nor a positive number, before anything is computed.

    Raises:
        ArgumentError: saying what was passed.
    """
    if step in ("auto", "theory"):
        return
    if isinstance(step, bool) or not isinstance(step, int | float) or not (math.isfinite(step) and step > 0):
        raise ArgumentError("step", f"is {step!r}", "pass 'auto', 'theory' or a positive number")


def check_budget(max_steps: int, until: float) -> None:
    """Refuse a budget or a target out of range, before anything is computed.

    Raises:
        ArgumentError: saying what was passed.
    """
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise ArgumentError("max_steps", f"is {max_steps!r}", "pass a whole number of at least 0")
    number = isinstance(until, int | float) and not isinstance(until, bool)
    if not (number and math.isfinite(until) and 0 <= until < 1):
        raise ArgumentError("until", f"is {until!r}", "pass a fraction of the first loss in [0, 1)")


def theory_step(module: nn.Module, data: Dataset) -> float:
    r"""The step of the theorem that covers the network, with every hidden constant set to 1.

    AZ Theorem 1: $\eta = d\,\delta/(n^4L^2m)$, with d the number of outputs (explicit powers from memory of AZ's appendix,
    THEORY 1.4). DU Theorem 5.1: $\lambda/(n^2 2^H)$; Theorem 6.1: $\lambda H^2/n^2$; $\lambda=\lambda_{\min}(K^{(H)})$.

    Args:
        module: a builder's network.
        data: what it trains on.

    Returns:
        $\eta$; far below what is stable, which is the point of showing it.

    Raises:
        ArgumentError: for a module without an architecture, or data with which the theorem gives no positive step.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> theory_step(fully_connected(2, 4, 1), Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]))  # sqrt(2)/(16 * 4)
        0.0220970869120796...
    """
    if not isinstance(module, Network):
        raise ArgumentError("step", "is 'theory' for a module that no builder made", "pass 'auto' or a number")
    a, n = module.architecture, data.n
    if a.scheme == "allen-zhu":
        eta = a.outputs * data.separation / (n**4 * a.depth**2 * a.width) if n > 1 else math.inf
    else:
        smallest = extremes(limit_kernel(module, "last-hidden")(data.x)).smallest
        eta = smallest / (n**2 * 2**a.depth) if a.family == "fully_connected" else smallest * a.depth**2 / n**2
    if not (math.isfinite(eta) and eta > 0):
        raise ArgumentError(
            "step", f"is 'theory', which gives {eta} on this data", "remove duplicate or parallel rows, or pass 'auto'"
        )
    return eta
